"""`also`: a second lane that a message holds together with its own, across processes."""

from redis.asyncio import Redis

from queueing.contract import Claim, Settlement
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Release
from tests.queueing.desk import BLOCKED, P, Start, message, queue, settle, start

__all__ = ["queue", "start"]


def update(name: str, chat: object, user: object, **fields: object) -> Message:
    return message(name, chat, also=str(user), **fields)


def ids(claim: Claim) -> list[str]:
    return sorted(lease.message.id for lease in claim.leases)


async def test_rule_20_a_message_holds_another_lane_together_with_its_own(start: Start, redis: Redis) -> None:
    queue, other = await start(), await start()
    await queue.enqueue(
        [update("a", -1, 7), update("b", -2, 7), update("c", 7, 7), update("d", -2, 8), update("e", -3, 9)]
    )
    first = await queue.claim(10)
    assert ids(first) == ["a", "e"]
    assert ids(await other.claim(10)) == []
    await settle(queue, first.leases, Ack())
    second = await other.claim(10)
    assert ids(second) == ["b"], "the next of the user, in another chat"
    assert ids(await queue.claim(10)) == []
    await settle(other, second.leases, BLOCKED)
    assert ids(await queue.claim(10)) == ["c", "d"], "however it ended"


async def test_rule_20_those_that_hold_two_lanes_never_wait_for_each_other(queue: RedisQueue, redis: Redis) -> None:
    chats = [(n % 5, (n * 3 + n // 5) % 4 + 100) for n in range(60)]
    await queue.enqueue([update(f"{n}", chat, user) for n, (chat, user) in enumerate(chats)])
    order: list[int] = []
    held = (await queue.claim(10)).leases
    while held:
        busy = [chats[int(lease.message.id)] for lease in held]
        assert len({chat for chat, _ in busy}) == len({user for _, user in busy}) == len(busy)
        order += [int(held[0].message.id)]
        held = [*held[1:], *(await queue.claim(10, [Settlement(held[0], Ack())], held[1:])).leases]
    assert sorted(order) == list(range(60))
    for lane in {chat for chat, _ in chats} | {user for _, user in chats}:
        of_it = [n for n in order if lane in chats[n]]
        assert of_it == sorted(of_it)
    assert not await redis.exists(f"{P}tails", f"{P}open")


async def test_one_that_is_tried_again_keeps_both_lanes(queue: RedisQueue) -> None:
    await queue.enqueue([update("a", -1, 7), update("b", -2, 7), message("n", 7)])
    claim = await queue.claim(10)
    assert ids(claim) == ["a", "n"], "only those with `also` wait"
    claim = await settle(queue, claim.leases, Release(60, "internal_error", "a bug", counts=True), want=10)
    assert ids(claim) == []
    waiting = await queue.why("b")
    assert waiting
    assert waiting.reason == "parent"


async def test_a_dead_one_that_is_handled_again_holds_both_lanes_again(queue: RedisQueue, redis: Redis) -> None:
    await queue.enqueue([update("a", -1, 7)])
    claim = await queue.claim(1)
    claim = await settle(queue, claim.leases, BLOCKED)
    await queue.enqueue([update("b", -2, 7), update("c", -1, 8)])
    claim = await queue.claim(10)
    assert ids(claim) == ["b", "c"]
    await queue.redrive(["a"], head=True)  # it comes last nevertheless: of two lanes it cannot be the first of both
    await queue.enqueue([update("d", -3, 7)])
    (b,) = (lease for lease in claim.leases if lease.message.id == "b")
    (c,) = (lease for lease in claim.leases if lease.message.id == "c")
    assert ids(await queue.claim(10, [Settlement(c, Ack())], [b])) == []
    claim = await queue.claim(10, [Settlement(b, Ack())])
    assert ids(claim) == ["a"]
    assert ids(await settle(queue, claim.leases, Ack(), want=10)) == ["d"]


async def test_an_update_that_was_committed_is_not_handled_again(start: Start, redis: Redis) -> None:
    """Its process died between the commit and the acknowledgement."""
    dead, queue = await start(), await start()
    await queue.enqueue([update("a", -1, 7), update("b", -2, 7)])
    assert ids(await dead.claim(1)) == ["a"]
    waiting = await redis.hget(f"{P}open", "a")
    assert await queue.claim(1)
    await redis.hset(f"{P}open", "a", f"committed {waiting}")
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    assert [(taken.recovered, taken.held) for taken in await queue.reap()] == [(0, 0)]
    claim = await queue.claim(5)
    while claim.next_due == 0 and not claim.leases:
        claim = await queue.claim(5)
    assert ids(claim) == ["b"]
    status = await queue.status("a")
    assert status
    assert status.state == "sent"
    assert await redis.hget(f"{P}totals", "sent") == "1"
    await settle(queue, claim.leases, Ack())
    assert not await redis.exists(f"{P}tails", f"{P}open")
