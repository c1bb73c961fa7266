"""What a dead process held, held for a person: it may have been delivered (rule 12, G8)."""

from redis.asyncio import Redis

from queueing.contract import TakenOver
from queueing.message import MessageState, Uncertain
from queueing.redis_queue import RedisQueue
from tests.queueing.desk import P, Start, drained, message, start, state

__all__ = ["start"]


async def lapse(redis: Redis, dead: RedisQueue, alive: RedisQueue) -> list[TakenOver]:
    await alive.claim(0)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    return list(await alive.reap())


async def test_what_a_dead_process_held_is_held_if_it_says_so(redis: Redis, start: Start) -> None:
    dead, alive = await start(), await start()
    await dead.enqueue([message("a", 1, uncertain=Uncertain.HOLD), message("b", 2)])
    assert len((await dead.claim(2)).leases) == 2
    assert await lapse(redis, dead, alive) == [TakenOver(dead.incarnation, recovered=2, held=1)]
    assert await state(alive, "a") is MessageState.UNCERTAIN
    assert await drained(alive) == ["b"]


async def test_the_default_holds_what_says_nothing(redis: Redis, start: Start, redis_url: str) -> None:
    dead, alive = await start(), RedisQueue(redis_url, uncertain=Uncertain.HOLD)
    await alive.start()
    try:
        await dead.enqueue([message("a", 1), message("b", 2, uncertain=Uncertain.RESEND)])
        assert len((await dead.claim(2)).leases) == 2
        assert await lapse(redis, dead, alive) == [TakenOver(dead.incarnation, recovered=2, held=1)]
        assert await drained(alive) == ["b"]
    finally:
        await alive.close()
