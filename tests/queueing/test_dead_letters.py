"""Dead letters: shown by pages, sent after all, dropped, and never too many. Each test runs on both queues."""

import asyncio
import time

import pytest

from queueing import memory_records, redis_desk
from queueing.contract import Queue, Settlement
from queueing.events import Event, Trimmed
from queueing.maintenance import Maintenance
from queueing.message import Message, MessageState
from queueing.retry import Ack, Release
from tests.conftest import wait_until
from tests.queueing.both import make_queue, queue, start
from tests.queueing.desk import BLOCKED, drained, kill, message, settle, state

__all__ = ["make_queue", "queue", "start"]


async def test_dead_letters_are_shown_newest_first_and_by_pages(queue: Queue) -> None:
    names = [f"m{n}" for n in range(7)]
    await kill(queue, *names)
    seen: list[str] = []
    page = await queue.dead_page(3)
    seen += [letter.id for letter in page.letters]
    while page.next:
        page = await queue.dead_page(3, page.next)
        seen += [letter.id for letter in page.letters]
    assert seen == names[::-1]
    letter = await queue.dead_letter("m3")
    assert letter
    assert (letter.reason, letter.error, letter.bot, letter.chat) == ("blocked", "by the user", "1", "42")
    assert [line["reason"] for line in letter.history] == ["blocked"]
    assert await queue.dead_letter("never") is None


async def test_a_page_after_one_that_is_gone_leaves_none_out(queue: Queue) -> None:
    await kill(queue, *(f"m{n}" for n in range(6)))
    page = await queue.dead_page(3)
    await queue.drop([page.letters[-1].id])
    after = [letter.id for letter in (await queue.dead_page(10, page.next)).letters]
    assert after[-3:] == ["m2", "m1", "m0"]


@pytest.mark.parametrize("before", ["", "x", "5", "5:", "²:a", ":a"])
async def test_a_page_after_nonsense_is_refused(queue: Queue, before: str) -> None:
    with pytest.raises(ValueError, match="before"):
        await queue.dead_page(3, before)


async def test_redrive_sends_again_at_the_tail_with_no_tries_behind_it(queue: Queue) -> None:
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], Release(0, "network", "refused", counts=True))
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], BLOCKED)
    await queue.enqueue([message("b")])
    await queue.claim(0)
    assert await queue.redrive(["a", "never"]) == 1
    status = await queue.status("a")
    assert status
    assert (status.state, status.attempts, status.error) == (MessageState.PENDING, 0, None)
    first = (await queue.claim(1)).leases
    (second,) = (await settle(queue, first, Ack(), want=1)).leases
    assert ([first[0].message.id, second.message.id], second.attempts) == (["b", "a"], 0)
    assert second.message.body == {"text": "a"}
    assert not await queue.dead_letters()


async def test_redrive_to_the_head_stands_behind_what_is_sent_or_tried(queue: Queue) -> None:
    await kill(queue, "d1", "d2")
    await kill(queue, "e", chat=43)
    await queue.enqueue([message("a"), message("b"), message("x", 43), message("y", 43)])
    (lease,) = [lease for lease in (await queue.claim(2)).leases if lease.message.chat == "42"]
    await queue.claim(0, held=[lease])  # the other is given back
    assert await queue.redrive(["d1", "d2", "e"], head=True) == 3
    claim = await queue.claim(1, held=[lease])
    assert [each.message.id for each in claim.leases] == ["e"]
    await queue.claim(0, [Settlement(lease, Ack()), Settlement(claim.leases[0], Ack())])
    names = await drained(queue)
    assert [name for name in names if name in "d1 d2 b"] == ["d1", "d2", "b"]
    assert [name for name in names if name in "xy"] == ["x", "y"]


async def test_redrive_to_the_head_takes_no_tries_over(queue: Queue) -> None:
    await kill(queue, "d")
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], Release(0, "network", "refused", counts=True))
    await queue.redrive(["d"], head=True)
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.attempts) == ("a", 1)
    (lease,) = (await settle(queue, [lease], Ack(), want=1)).leases
    assert (lease.message.id, lease.attempts) == ("d", 0)


async def test_rule_16_redrive_wakes_a_waiting_process(queue: Queue) -> None:
    await kill(queue, "a")
    await queue.claim(1)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.redrive(["a"])
    await asyncio.wait_for(waiting, 10)


async def test_drop_forgets(queue: Queue) -> None:
    await kill(queue, "a", "b", "c")
    assert await queue.drop(["b", "never"]) == 1
    assert [letter.id for letter in await queue.dead_letters()] == ["c", "a"]
    assert await queue.drop_all() == 2
    assert await queue.drop_all() == 0
    assert await state(queue, "a") is MessageState.DEAD


async def test_too_many_dead_letters_are_dropped_and_told(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    await kill(queue, "a", "b", "c")
    assert await queue.trim() == 0
    for module in (redis_desk, memory_records):
        monkeypatch.setattr(module, "DEAD_MOST", 2)
    events: list[Event] = []
    maintenance = Maintenance(queue, events.append)
    await maintenance.start()
    await wait_until(lambda: events == [Trimmed(1)], "the trimming to be told")
    await maintenance.stop()
    assert [letter.id for letter in await queue.dead_letters()] == ["c", "b"]


@pytest.mark.parametrize("head", [False, True])
async def test_all_are_sent_again_in_their_order(queue: Queue, head: bool) -> None:
    names = [f"m{n}" for n in range(5)]
    await kill(queue, *names)
    assert await queue.redrive_all(head=head) == 5
    assert await drained(queue) == names
    assert not await queue.dead_letters()


async def test_letters_of_two_messages_with_one_id_are_two(queue: Queue) -> None:
    same = [Message(bot="1", chat="42", id="same", body={"text": text}) for text in ("one", "two")]
    await queue.enqueue(same)
    for _ in same:
        await settle(queue, (await queue.claim(1)).leases, BLOCKED)
    assert {letter.id for letter in await queue.dead_letters()} == {"same", "same~2"}
    assert await queue.redrive(["same~2"]) == 1
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.message.body) == ("same~2", {"text": "two"})


async def test_old_dead_letters_are_dropped(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    await kill(queue, "old")
    for module in (redis_desk, memory_records):
        monkeypatch.setattr(module, "DEAD_DAYS", 0)
    (letter,) = await queue.dead_letters()
    await wait_until(lambda: time.time() > letter.died_at + 0.002, "it to be older than that")
    assert await queue.trim() == 1
    assert not await queue.dead_letters()
