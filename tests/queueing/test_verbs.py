"""The operator's verbs: pause, resume and cancel. Each test runs on both queues."""

import asyncio
import time

import pytest

from queueing.contract import Queue
from queueing.message import MessageState, Priority
from queueing.retry import Ack, Release, Scope
from tests.queueing.both import make_queue, queue, start
from tests.queueing.desk import REFUSED, drained, message, settle, state

__all__ = ["make_queue", "queue", "start"]


# --- pause and resume

PAUSES = [(None, None), ("1", None), ("1", "42")]


@pytest.mark.parametrize(("bot", "chat"), PAUSES)
async def test_rule_16_resuming_rings_for_what_a_pause_held(queue: Queue, bot: str | None, chat: str | None) -> None:
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


async def test_resuming_does_not_end_a_flood_wait_nor_another_pause(queue: Queue) -> None:
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


async def test_a_bot_does_not_wait_for_many_that_are_paused(queue: Queue) -> None:
    for bot in range(1, 31):
        await queue.pause(str(bot))
        await queue.enqueue([message(f"m{bot}", bot=str(bot))])
    await queue.enqueue([message("last", bot="31")])
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.id == "last"


async def test_a_chat_is_paused_for_a_bot(queue: Queue) -> None:
    with pytest.raises(ValueError, match="for a bot"):
        await queue.pause(None, "42")


# --- cancel


async def test_what_is_cancelled_is_not_sent_and_delays_nobody(queue: Queue) -> None:
    await queue.enqueue([message(name) for name in "abcde"])
    assert await queue.cancel("a") is MessageState.CANCELLED  # still at the door
    await queue.claim(0)
    assert await queue.cancel("c") is MessageState.CANCELLED
    assert await queue.cancel("c") is MessageState.CANCELLED
    assert await drained(queue) == ["b", "d", "e"]
    assert await state(queue, "a") is await state(queue, "c") is MessageState.CANCELLED
    assert (await queue.stats()).depth == 0


async def test_rule_16_a_cancelled_head_that_would_be_tried_later_makes_room_at_once(queue: Queue) -> None:
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


async def test_a_lane_whose_only_retry_is_cancelled_has_one_message_in_flight(queue: Queue) -> None:
    await queue.enqueue([message("retry", priority=Priority.INTERACTIVE)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], REFUSED)
    await queue.enqueue([message("next", priority=Priority.INTERACTIVE), message("last")])
    await queue.claim(0)
    assert await queue.cancel("retry") is MessageState.CANCELLED
    claim = await queue.claim(10)
    assert [lease.message.id for lease in claim.leases] == ["next"], "the lane was ready for `last` already"
    assert not (await queue.claim(9, held=claim.leases)).leases
    claim = await settle(queue, claim.leases, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["last"]


async def test_it_is_too_late_to_cancel_what_is_in_flight_or_ended(queue: Queue) -> None:
    assert await queue.cancel("never") is None
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    assert await queue.cancel("a") is MessageState.SENDING
    await settle(queue, [lease], Ack())
    assert await queue.cancel("a") is MessageState.SENT


async def test_a_thousand_cancelled_are_cleared_in_bounded_steps(queue: Queue) -> None:
    await queue.enqueue([message(f"m{n}") for n in range(300)])
    await queue.claim(0)
    for n in range(300):
        await queue.cancel(f"m{n}")
    await queue.enqueue([message("last")])
    assert (await queue.claim(1)).next_due == 0, "it is to be called again at once"
    assert await drained(queue) == ["last"]
