"""What a message may ask for: to expire, to be sent at a time, to be taken once. Each test runs on both queues."""

import time

import pytest

from queueing.contract import Lease, Queue, Settlement
from queueing.message import MessageState, Priority
from queueing.retry import Ack
from tests.conftest import wait_until
from tests.queueing.both import MakeQueue, make_queue, queue, start
from tests.queueing.desk import BLOCKED, REFUSED, drained, message, settle, state

__all__ = ["make_queue", "queue", "start"]


async def test_what_was_not_sent_in_time_expires(queue: Queue) -> None:
    await queue.enqueue([message("a", ttl=0.05), message("b", ttl=60), message("c", 43, ttl=0.05)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], REFUSED)
    accepted = lease.message.accepted or 0.0
    await wait_until(lambda: time.time() > accepted + 0.06, "the ttl to pass")
    assert await drained(queue) == ["b"]
    assert await state(queue, "a") is await state(queue, "c") is MessageState.EXPIRED


async def test_rule_14_what_is_scheduled_is_accepted_when_it_is_due(queue: Queue) -> None:
    at = time.time() + 0.4
    await queue.enqueue([message("later", send_at=at), message("bulk", 43, priority=Priority.BULK, send_at=at)])
    await queue.enqueue([message("now"), message("past", send_at=5)])
    assert await drained(queue) == ["now", "past"]
    stats = await queue.stats()
    assert (stats.scheduled, stats.depth) == (2, 2)
    claim = await queue.claim(1)
    assert claim.next_due == pytest.approx(at - time.time(), abs=0.1)
    await queue.enqueue([message("before")])
    await queue.claim(0)
    leases: list[Lease] = []
    while len(leases) < 3:
        claim = await queue.claim(4, [Settlement(lease, Ack()) for lease in claim.leases])
        leases += claim.leases
        if not claim.leases:
            await queue.wait(0.25 if claim.next_due is None else claim.next_due + 0.001)
    names = [lease.message.id for lease in leases]
    assert [name for name in names if name != "bulk"] == ["before", "later"]
    (later,) = [lease.message for lease in leases if lease.message.id == "later"]
    assert later.accepted == pytest.approx(at, abs=0.002)
    assert time.time() >= at


async def test_rule_14_the_order_is_that_of_due_times_and_none_is_early(queue: Queue) -> None:
    now = time.time()
    due = {"c": now + 0.3, "a": now + 0.1, "b": now + 0.2}
    await queue.enqueue([message(name, send_at=at) for name, at in due.items()])
    came: dict[str, float] = {}
    while len(came) < len(due):
        claim = await queue.claim(1)
        came |= {lease.message.id: time.time() for lease in claim.leases}
        await settle(queue, claim.leases, Ack())
        await queue.wait(0.01)
    assert list(came) == ["a", "b", "c"]
    assert all(came[name] >= at - 0.001 for name, at in due.items()), "the queue's clock has milliseconds"


async def test_a_scheduled_message_can_be_cancelled(queue: Queue) -> None:
    at = time.time() + 0.2
    await queue.enqueue([message("a", send_at=at), message("b", send_at=at)])
    await queue.claim(0)
    assert await queue.cancel("a") is MessageState.CANCELLED
    await wait_until(lambda: _is_empty(queue), "the schedule to be empty")
    assert await drained(queue) == ["b"]


async def _is_empty(queue: Queue) -> bool:
    await queue.claim(0)
    return (await queue.stats()).scheduled == 0


async def test_a_redriven_message_is_not_its_own_duplicate(queue: Queue) -> None:
    await queue.enqueue([message("a", dedup_key="k", ttl=60, send_at=5)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], BLOCKED)
    await queue.redrive(["a"])
    assert await drained(queue) == ["a"]


async def test_of_a_dedup_key_the_first_is_taken(queue: Queue) -> None:
    await queue.enqueue([message("a", dedup_key="k"), message("b", dedup_key="k"), message("c", 43, dedup_key="l")])
    await queue.enqueue([message("d", 44, bot="2", dedup_key="k")])
    assert await queue.first_with("1", "k") == "a"
    assert await queue.first_with("1", "z") is None
    assert await queue.status("b") is None
    assert sorted(await drained(queue)) == ["a", "c", "d"]
    await queue.enqueue([message("e", dedup_key="k")])
    assert not await drained(queue), "not even after it was sent"


async def test_what_brings_no_ttl_gets_the_queues(make_queue: MakeQueue) -> None:
    queue = make_queue(ttl=0.05)
    await queue.start()
    await queue.enqueue([message("a"), message("b", ttl=60)])
    accepted = time.time()
    await wait_until(lambda: time.time() > accepted + 0.06, "the ttl to pass")
    assert await drained(queue) == ["b"]
    assert await state(queue, "a") is MessageState.EXPIRED
