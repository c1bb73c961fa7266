"""What is told of the ends of messages, on both backends: to those that await one, and in the counts of a group."""

import time

import pytest

from queueing.contract import Queue, Settlement
from queueing.message import MessageState
from queueing.retry import Ack, Bury, Decision, Hold, Release
from tests.conftest import wait_until
from tests.queueing.both import MakeQueue, make_queue, queue, start
from tests.queueing.desk import BLOCKED, message, settle, state

__all__ = ["make_queue", "queue", "start"]


async def heard_by(queue: Queue) -> list[str]:
    """The ends that it hears of from now on; it does hear."""
    heard: list[str] = []
    queue.hear_ends(heard.append)

    async def hears() -> bool:
        await queue.enqueue([message(awaited=True, name=f"probe{len(heard)}")])
        claim = await queue.claim(1)
        await settle(queue, claim.leases, Ack())
        return bool(heard)

    await wait_until(hears, "it to hear of an end")
    return heard


@pytest.mark.parametrize("decision", [Ack("17"), Bury("blocked", "by the user"), Hold("no answer")])
async def test_those_that_wait_hear_of_an_end_however_it_is(decision: Decision, queue: Queue) -> None:
    heard = await heard_by(queue)
    await queue.enqueue([message("silent"), message("a", awaited=True)])
    claim = await queue.claim(1)
    claim = await settle(queue, claim.leases, Ack(), want=1)
    claim = await settle(queue, claim.leases, Release(0, "network", "refused"), want=1)
    assert "a" not in heard
    await settle(queue, claim.leases, decision)
    await wait_until(lambda: "a" in heard, "the end of a")
    assert heard.count("a") == 1
    assert "silent" not in heard
    status = await queue.status("a")
    assert status
    match decision:
        case Ack(result):
            assert (status.state, status.result, status.reason) == (MessageState.SENT, result, None)
        case Bury(reason, error):
            assert (status.state, status.error, status.reason) == (MessageState.DEAD, error, reason)
        case _:
            assert (status.state, status.reason) == (MessageState.UNCERTAIN, "uncertain")


async def test_those_that_wait_hear_of_a_message_that_is_cancelled_or_expires(queue: Queue) -> None:
    heard = await heard_by(queue)
    await queue.enqueue([message("a", 1, awaited=True), message("b", 2, awaited=True, ttl=0.001)])
    await queue.claim(0)
    await queue.cancel("a")

    async def both_are() -> bool:
        await queue.claim(1)
        return {"a", "b"} <= {*heard}

    await wait_until(both_are, "both ends")
    assert (await state(queue, "a"), await state(queue, "b")) == (MessageState.CANCELLED, MessageState.EXPIRED)


async def test_ends_are_heard_of_by_a_queue_that_began_before_it_was_started(make_queue: MakeQueue) -> None:
    queue = make_queue()
    heard: list[str] = []
    queue.hear_ends(heard.append)
    await queue.start()

    async def hears() -> bool:
        await queue.enqueue([message(f"a{len(heard)}", awaited=True)])
        await settle(queue, (await queue.claim(1)).leases, Ack())
        return bool(heard)

    await wait_until(hears, "it to hear of an end")


async def test_a_group_counts_how_its_messages_ended(queue: Queue) -> None:
    names = ("sent1", "sent2", "blocked", "held", "cancelled", "waits")
    await queue.enqueue([message(name, n, group="g") for n, name in enumerate(names, 1)])
    await queue.enqueue([message("expired", 8, group="g", ttl=0.001), message("other", 9)])
    assert await queue.group("g") == {}
    await queue.claim(0)
    accepted = time.time()
    await wait_until(lambda: time.time() > accepted + 0.005, "the ttl to pass")
    await queue.cancel("cancelled")
    await queue.pause("1", "6")

    decisions: dict[str, Decision] = {"blocked": BLOCKED, "held": Hold("no answer")}

    async def all_are_out() -> bool:
        claim = await queue.claim(10)
        await queue.claim(0, [Settlement(one, decisions.get(one.message.id, Ack())) for one in claim.leases])
        return sum((await queue.group("g")).values()) == 6

    await wait_until(all_are_out, "six to end")
    counts = {"sent": 2, "dead:blocked": 1, "dead:uncertain": 1, "cancelled": 1, "expired": 1}
    assert await queue.group("g") == counts
    assert await queue.group("unheard of") == {}
    await queue.redrive(["blocked"])
    claim = await queue.claim(1)
    assert await queue.group("g") == {field: count for field, count in counts.items() if field != "dead:blocked"}
    await settle(queue, claim.leases, Ack())
    assert (await queue.group("g"))["sent"] == 3


async def test_of_a_cancelled_group_nothing_is_sent_any_more(queue: Queue) -> None:
    await queue.enqueue([message(f"{n}", n % 3 + 1, group="g").changed(track=n % 2 == 0) for n in range(9)])
    await queue.enqueue([message("other", 1)])
    claim = await queue.claim(1)
    await queue.cancel_group("g")
    claim = await settle(queue, claim.leases, Ack(), want=5)
    seen = [lease.message.id for lease in claim.leases]
    while claim.next_due == 0:
        claim = await queue.claim(5, held=claim.leases)
        seen += [lease.message.id for lease in claim.leases]
    assert seen == ["other"]
    assert await queue.group("g") == {"sent": 1, "cancelled": 8}
    await queue.cancel_group("g")
    await queue.enqueue([message("late", 7, group="g")])
    assert not (await queue.claim(5, held=claim.leases)).leases
    assert await state(queue, "late") is MessageState.CANCELLED
