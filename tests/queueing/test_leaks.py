"""What is left in the server: the guard that looks for it can fail, and a drained queue leaves next to nothing."""

from redis.asyncio import Redis

from queueing.contract import Settlement
from queueing.limits import Rate
from queueing.message import Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Release, Scope
from tests.conftest import wait_until
from tests.queueing.desk import BLOCKED, FRONT, P, Start, kill, message, start
from tests.queueing.leaks import leaked

__all__ = ["start"]

RATES = {"bot": Rate(1000), "chat": Rate(1000), "group": Rate(1000)}
OUTCOMES = [
    Release(0.001, "network", "refused", counts=True),
    Release(0.001, "flood", "retry after", scope=Scope.CHAT),
    Release(0.001, "unauthorized", "401", scope=Scope.BOT),
    Release(0, "network", "refused", scope=Scope.RECEIVER),
    Release(),
    BLOCKED,
]


async def test_a_key_that_is_on_no_list_and_has_no_ttl_is_a_leak(redis: Redis, redis_url: str) -> None:
    await redis.set(f"{P}unheard", "of")
    await redis.set(f"{P}msg:a", "a status without a TTL")
    await redis.set(f"{P}msg:b", "one with", ex=60)
    await redis.rpush(FRONT, "an element")
    assert sorted(leaked(redis_url)) == [f"{P}msg:a", f"{P}unheard"]
    await redis.delete(f"{P}unheard", f"{P}msg:a")


async def fill(queue: RedisQueue) -> None:
    """Messages of every kind; some of them end without being sent."""
    await queue.enqueue(
        [
            message(f"{chat} {priority[0]}".replace(" ", "-"), chat, priority=priority)
            for chat in (1, 2, -3, "@four")
            for priority in Priority
        ]
    )
    await queue.enqueue([message("cancelled", 5), message("expired", 6, ttl=0.001), message("once", 7, dedup_key="k")])
    await queue.enqueue([message("twice", 7, dedup_key="k"), message("later", 8, send_at=1.0)])
    await queue.claim(0)
    await queue.cancel("cancelled")
    await queue.pause("1", "2")
    await queue.resume("1", "2")


async def drain(queue: RedisQueue) -> None:
    """Every outcome comes to pass, then all is acknowledged; until nothing is left but dead letters."""
    outcomes = [*OUTCOMES]

    async def is_empty() -> bool:
        leases = (await queue.claim(10)).leases
        settlements = [Settlement(lease, outcomes.pop() if outcomes else Ack()) for lease in leases]
        await queue.claim(0, settlements)
        return not (await queue.stats()).depth

    await wait_until(is_empty, "the queue to be drained")


async def test_a_queue_that_was_drained_leaves_counts_the_clock_and_the_pace(redis: Redis, start: Start) -> None:
    queue, dead = await start(**RATES), await start(**RATES)
    await kill(queue, "replayed", "dropped", chat=9)
    await fill(queue)
    await dead.claim(1)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    await queue.reap()
    await queue.redrive(["replayed"], head=True)
    await drain(queue)
    assert (await queue.claim(0)).next_due is None
    await queue.drop_all()
    await queue.close()
    await dead.close()
    left = [key for key in await redis.keys() if await redis.ttl(key) == -1]
    assert sorted(left) == [f"{P}clock", f"{P}pace", f"{P}totals"]
