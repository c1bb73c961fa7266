"""The operator's verbs on the shared queue: pause, resume and cancel; and poison."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from queueing.contract import Desk
from queueing.message import MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Release, Scope
from tests.queueing.desk import (  # fixtures among them
    REFUSED,
    P,
    Start,
    drained,
    message,
    queue,
    settle,
    start,
    state,
    total,
)

__all__ = ["queue", "start"]


def test_the_shared_queue_is_a_desk(redis_url: str) -> None:
    assert isinstance(RedisQueue(redis_url), Desk)


# --- pause and resume

PAUSES = [(None, None), ("1", None), ("1", "42")]


@pytest.mark.parametrize(("bot", "chat"), PAUSES)
async def test_rule_16_resuming_rings_for_what_a_pause_held(
    queue: RedisQueue, bot: str | None, chat: str | None
) -> None:
    await queue.pause(bot, chat, "a line\nor two")
    (pause,) = await queue.paused()
    assert (pause.bot, pause.chat, pause.reason, pause.until) == (bot, chat, "a line or two", None)
    assert pause.since == pytest.approx(time.time(), abs=5)
    await queue.enqueue([message("a"), message("b", 43), message("c", 42, bot="2")])
    held = {"a"} | ({"b"} if chat is None else set()) | ({"c"} if bot is None else set())
    assert set(await drained(queue)) == {"a", "b", "c"} - held
    claim = await queue.claim(1)
    assert (claim.leases, claim.next_due) == ([], None)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.resume(bot, chat)
    await asyncio.wait_for(waiting, 10)
    assert set(await drained(queue)) == held
    assert await queue.paused() == []


async def test_resuming_does_not_end_a_flood_wait_nor_another_pause(queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b")])
    (lease,) = (await queue.claim(1)).leases
    await queue.pause("1", "42")
    await settle(queue, [lease], Release(30, "flood", "retry after 30", scope=Scope.CHAT))
    await queue.pause()
    await queue.pause("1")
    assert len(await queue.paused()) == 4
    for scope in PAUSES:
        await queue.resume(*scope)
        assert not await drained(queue)
    (pause,) = await queue.paused()
    assert (pause.bot, pause.chat, pause.reason, pause.since) == ("1", "42", "flood", None)
    assert pause.until == pytest.approx(time.time() + 30, abs=5)
    assert (await queue.claim(1)).next_due == pytest.approx(30, abs=5)


async def test_a_chat_is_paused_for_a_bot(queue: RedisQueue) -> None:
    with pytest.raises(ValueError, match="for a bot"):
        await queue.pause(None, "42")


# --- cancel


async def test_what_is_cancelled_is_not_sent_and_delays_nobody(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message(name) for name in "abcde"])
    assert await queue.cancel("a") is MessageState.CANCELLED  # still at the door
    await queue.claim(0)
    assert await queue.cancel("c") is MessageState.CANCELLED
    assert await queue.cancel("c") is MessageState.CANCELLED
    assert await drained(queue) == ["b", "d", "e"]
    assert await state(queue, "a") is await state(queue, "c") is MessageState.CANCELLED
    assert 0 < await redis.ttl(f"{P}msg:a") <= 86_400, "it ended: its status is kept as long as of others"
    assert await total(redis, "cancelled") == 2
    assert (await queue.stats()).depth == 0


async def test_rule_16_a_cancelled_head_that_would_be_tried_later_makes_room_at_once(queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], REFUSED)
    assert not await drained(queue)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    assert await queue.cancel("a") is MessageState.CANCELLED
    await asyncio.wait_for(waiting, 10)
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.attempts) == ("b", 0)


async def test_it_is_too_late_to_cancel_what_is_in_flight_or_ended(queue: RedisQueue) -> None:
    assert await queue.cancel("never") is None
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    assert await queue.cancel("a") is MessageState.SENDING
    await settle(queue, [lease], Ack())
    assert await queue.cancel("a") is MessageState.SENT


async def test_what_a_process_gave_back_can_be_cancelled(start: Start, queue: RedisQueue) -> None:
    leaving = await start()
    await leaving.enqueue([message("a")])
    await leaving.claim(1)
    await leaving.close()
    assert await queue.cancel("a") is MessageState.CANCELLED
    assert await drained(queue) == []


async def test_a_thousand_cancelled_are_cleared_in_bounded_steps(queue: RedisQueue) -> None:
    await queue.enqueue([message(f"m{n}") for n in range(300)])
    await queue.claim(0)
    for n in range(300):
        await queue.cancel(f"m{n}")
    await queue.enqueue([message("last")])
    assert (await queue.claim(1)).next_due == 0, "it is to be called again at once"
    assert await drained(queue) == ["last"]


# --- poison


async def die(redis: Redis, dead: RedisQueue, alive: RedisQueue) -> None:
    await alive.claim(0)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    await alive.reap()


async def test_rule_4_what_kills_three_processes_is_poison(redis: Redis, start: Start) -> None:
    alive = await start()
    await alive.enqueue([message("a"), message("b")])
    for n in range(3):
        dead = await start()
        (lease,) = (await dead.claim(1)).leases
        assert (lease.message.id, lease.takeovers) == ("a", n)
        await die(redis, dead, alive)
    claim = await alive.claim(1)
    assert [lease.message.id for lease in claim.leases] == ["b"]
    assert [reason for reason, _ in claim.buried] == ["poison"]
    letter = await alive.dead_letter("a")
    assert letter
    assert letter.reason == "poison"
    assert [line["reason"] for line in letter.history] == ["taken_over"] * 3 + ["poison"]
    assert await state(alive, "a") is MessageState.DEAD


async def taken_over_twice(redis: Redis, start: Start, name: str = "a") -> None:
    alive = await start()
    await alive.enqueue([message(name)])
    for _ in range(2):
        dead = await start()
        assert [lease.message.id for lease in (await dead.claim(1)).leases] == [name]
        await die(redis, dead, alive)


async def test_rule_4_after_two_take_overs_a_message_runs_alone_in_its_process(redis: Redis, start: Start) -> None:
    await taken_over_twice(redis, start)
    queue = await start()
    await queue.enqueue([message(str(chat), chat) for chat in range(3)])
    alone = await queue.claim(10)
    assert [lease.message.id for lease in alone.leases] == ["a"], "it was served longest ago"
    assert not (await queue.claim(9, held=alone.leases)).leases
    other = await start()
    assert len((await other.claim(10)).leases) == 3, "others go on"
    await other.close()
    assert len((await settle(queue, alone.leases, Ack(), want=10)).leases) == 3


async def test_rule_4_it_waits_for_empty_hands_and_nothing_else_is_taken_meanwhile(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    await queue.enqueue([message("later", 9)])
    for _ in range(2):
        assert not (await queue.claim(9, held=busy)).leases
    claim = await settle(queue, busy, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["a"]
    claim = await settle(queue, claim.leases, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["later"]


@pytest.mark.parametrize("end", ["leave", "reap"])
async def test_rule_4_what_was_set_aside_goes_back_with_its_process(redis: Redis, start: Start, end: str) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    assert not (await queue.claim(9, held=busy)).leases
    other = await start()
    if end == "leave":
        await queue.close()
    else:
        await die(redis, queue, other)
    (lease,) = (await other.claim(1)).leases
    assert lease.message.id == "busy"
    (lease,) = (await settle(other, [lease], Ack(), want=1)).leases
    assert (lease.message.id, lease.takeovers) == ("a", 2), "it was in nobody's hands"


async def test_rule_4_what_is_paused_holds_up_no_process(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    assert not (await queue.claim(9, held=busy)).leases
    await queue.pause("1", "42")
    await queue.enqueue([message("later", 9)])
    claim = await settle(queue, busy, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["later"]


async def test_rule_4_clean_stops_are_no_poison(start: Start) -> None:
    for _ in range(4):
        queue = await start()
        await queue.enqueue([message("a")])
        (lease,) = (await queue.claim(1)).leases
        assert lease.takeovers == 0
        await queue.close()
