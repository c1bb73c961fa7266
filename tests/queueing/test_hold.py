"""Messages of which nobody knows whether they were delivered, held for a person (rule 12, G8)."""

from redis.asyncio import Redis

from queueing.contract import TakenOver
from queueing.message import MessageState, Uncertain
from queueing.redis_queue import RedisQueue
from queueing.retry import Hold, Scope
from tests.queueing.desk import P, Start, drained, message, settle, start, state

__all__ = ["start"]

DOUBT = Hold("no answer within 10 s", Scope.RECEIVER)


async def lapse(redis: Redis, dead: RedisQueue, alive: RedisQueue) -> list[TakenOver]:
    await alive.claim(0)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    return list(await alive.reap())


async def test_rule_12_a_held_message_leaves_its_lane_which_goes_on(start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("a"), message("b")])
    (lease,) = (await queue.claim(1)).leases
    claim = await settle(queue, [lease], DOUBT, want=1)
    assert [lease.message.id for lease in claim.leases] == ["b"]
    assert await state(queue, "a") is MessageState.UNCERTAIN
    letter = await queue.dead_letter("a")
    assert letter
    assert (letter.reason, letter.error) == ("uncertain", "no answer within 10 s")


async def test_rule_12_sending_a_held_message_later_is_a_replay(start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("a")])
    await settle(queue, (await queue.claim(1)).leases, DOUBT)
    assert await queue.redrive(["a"]) == 1
    assert await state(queue, "a") is MessageState.PENDING
    assert await drained(queue) == ["a"]


async def test_in_an_outage_too_it_is_held(start: Start) -> None:
    queue = await start()
    await queue.enqueue([message(str(chat), chat) for chat in range(5)])
    await settle(queue, (await queue.claim(4)).leases, DOUBT)
    assert {letter.reason for letter in await queue.dead_letters()} == {"uncertain"}
    assert not (await queue.claim(1)).leases, "three chats in a row are an outage"


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
