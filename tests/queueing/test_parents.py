"""Messages that need another's result, on both backends: `provisional`, `after`, and what becomes of those whose
parents were not sent."""

import time
from collections.abc import Sequence

import pytest

from queueing.contract import Claim, Queue
from queueing.message import Message, MessageState, Priority
from queueing.retry import Ack, Bury, Hold, Release
from tests.conftest import wait_until
from tests.queueing.both import make_queue, queue, start
from tests.queueing.desk import BLOCKED, message, settle, state

__all__ = ["make_queue", "queue", "start"]


def parent(name: str = "p1", chat: object = 42, **fields: object) -> Message:
    return message(name, chat, provisional=True, **fields)


def child(name: str, *parents: str, chat: object = 42, **fields: object) -> Message:
    return message(name, chat, after=parents or ("p1",), **fields)


def ids(claim: Claim) -> list[str]:
    return [lease.message.id for lease in claim.leases]


async def dead(queue: Queue) -> dict[str, str]:
    return {letter.id: letter.reason for letter in await queue.dead_letters()}


async def test_a_message_gets_its_parents_results(queue: Queue) -> None:
    await queue.enqueue([parent("p1"), parent("p2"), child("c", "p1", "p2")])
    claim = await queue.claim(5)
    assert ids(claim) == ["p1"]
    claim = await settle(queue, claim.leases, Ack("17"), want=5)
    claim = await settle(queue, claim.leases, Ack("18"), want=5)
    assert [(lease.message.id, lease.message.results) for lease in claim.leases] == [("c", {"p1": "17", "p2": "18"})]


async def test_rule_22_it_waits_for_its_parent_across_lanes_and_priorities(queue: Queue) -> None:
    await queue.enqueue([parent(priority=Priority.BULK)])
    await queue.enqueue([child("i", priority=Priority.INTERACTIVE), child("elsewhere", chat=43), message("n")])
    first = await queue.claim(1)
    assert ids(first) == ["n"], "what waits holds up no other priority of its chat"
    second = await settle(queue, first.leases, Ack(), want=5)
    assert ids(second) == ["p1"]
    assert ids(await queue.claim(5, held=second.leases)) == []
    third = await settle(queue, second.leases, Ack("17"), want=5)
    assert sorted(ids(third)) == ["elsewhere", "i"]
    assert {lease.message.results["p1"] for lease in third.leases} == {"17"}


@pytest.mark.parametrize("by_its_lane", [True, False])
@pytest.mark.parametrize("decision", [BLOCKED, Hold("no answer")])
async def test_rule_22_it_dies_with_its_parent_and_so_do_its_own_children(
    decision: Bury | Hold, by_its_lane: bool, queue: Queue
) -> None:
    chat = 42 if by_its_lane else 43
    family = [child("p2", "p1", chat=chat, provisional=True), child("c", "p2", chat=44), message("other", chat)]
    await queue.enqueue([parent(), *family])
    claim = await queue.claim(1)
    claim = await settle(queue, claim.leases, decision, want=5)
    seen, buried = ids(claim), list(claim.buried)
    while claim.next_due == 0:
        claim = await queue.claim(5, held=claim.leases)
        seen, buried = seen + ids(claim), buried + list(claim.buried)
    assert seen == ["other"]
    assert [reason for reason, _ in buried] == ["parent_dead", "parent_dead"]
    state_of_it = "uncertain" if isinstance(decision, Hold) else "dead"
    assert buried[0][1] == f"message p1, which had to be sent before it, is {state_of_it}"
    assert {name: reason for name, reason in (await dead(queue)).items() if name != "p1"} == {
        "p2": "parent_dead",
        "c": "parent_dead",
    }
    status = await queue.status("c")
    assert status
    assert (status.state, status.reason) == (MessageState.DEAD, "parent_dead")


async def test_it_dies_with_a_parent_that_is_cancelled_expired_or_unknown(queue: Queue) -> None:
    await queue.enqueue(
        [parent("p1"), parent("p2", 43, ttl=0.001), child("c1", "p1", chat=1), child("c2", "p2", chat=2)]
    )
    await queue.enqueue([child("c3", "p3", chat=3)])
    await queue.claim(0)
    accepted = time.time()
    await wait_until(lambda: time.time() > accepted + 0.005, "the ttl to pass")
    await queue.cancel("p1")

    async def all_dead() -> bool:
        assert ids(await queue.claim(5)) == []
        return len(await dead(queue)) == 3

    await wait_until(all_dead, "the children to die")
    errors = {letter.id: letter.error for letter in await queue.dead_letters()}
    assert errors == {
        "c1": "message p1, which had to be sent before it, is cancelled",
        "c2": "message p2, which had to be sent before it, is expired",
        "c3": "message p3, which had to be sent before it, is not known",
    }


async def test_rule_22_an_id_is_taken_once(queue: Queue) -> None:
    await queue.enqueue([parent()])
    await queue.enqueue([parent()])
    claim = await queue.claim(5)
    await queue.enqueue([parent()])
    await settle(queue, claim.leases, Ack("17"))
    await queue.enqueue([parent(), child("c")])
    claim = await queue.claim(5)
    assert [(lease.message.id, lease.message.results) for lease in claim.leases] == [("c", {"p1": "17"})]
    assert ids(await settle(queue, claim.leases, Ack(), want=5)) == []


async def test_a_parent_that_is_tried_again_is_still_waited_for(queue: Queue) -> None:
    await queue.enqueue([parent(), child("c", chat=43)])
    claim = await queue.claim(5)
    claim = await settle(queue, claim.leases, Release(0.01, "network", "refused", counts=True), want=5)
    assert ids(claim) == []

    async def again() -> Sequence[str]:
        nonlocal claim
        claim = await queue.claim(5)
        return ids(claim)

    await wait_until(again, "the parent's retry")
    assert ids(claim) == ["p1"]
    assert ids(await settle(queue, claim.leases, Ack("1"), want=5)) == ["c"]


async def test_why_says_that_it_waits_for_its_parent(queue: Queue) -> None:
    await queue.enqueue([parent(send_at=time.time() + 3600), child("c"), message("behind")])
    await queue.claim(5)
    for name, ahead in (("c", 0), ("behind", 1)):
        waiting = await queue.why(name)
        assert waiting
        assert (waiting.reason, waiting.until, waiting.ahead) == ("parent", None, ahead)


async def test_a_message_that_waits_can_be_cancelled_and_can_expire(queue: Queue) -> None:
    await queue.enqueue([parent(send_at=time.time() + 3600), child("c1"), child("c2", chat=43, ttl=0.05)])
    await queue.enqueue([message("n1"), message("n2", 43)])
    await queue.claim(0)
    assert await queue.cancel("c1") is MessageState.CANCELLED
    seen: list[str] = []

    async def both() -> bool:
        claim = await queue.claim(5)
        seen.extend(ids(claim))
        await settle(queue, claim.leases, Ack())
        return len(seen) == 2

    await wait_until(both, "those behind them")
    assert sorted(seen) == ["n1", "n2"]
    assert (await state(queue, "c1"), await state(queue, "c2")) == (MessageState.CANCELLED, MessageState.EXPIRED)


async def test_a_dead_parent_that_is_sent_again_is_waited_for_again(queue: Queue) -> None:
    await queue.enqueue([parent(), message("n"), child("c")])
    claim = await queue.claim(1)
    claim = await settle(queue, claim.leases, BLOCKED, want=1)
    assert ids(claim) == ["n"]
    assert await queue.redrive(["p1"]) == 1  # behind its child, which goes behind it then
    claim = await settle(queue, claim.leases, Ack(), want=1)
    assert ids(claim) == ["p1"]
    claim = await settle(queue, claim.leases, Ack("17"), want=1)
    assert [(lease.message.id, lease.message.results) for lease in claim.leases] == [("c", {"p1": "17"})]


async def test_those_that_wait_for_one_for_later_in_their_own_lane_go_behind_it(queue: Queue) -> None:
    await queue.enqueue([parent(send_at=time.time() + 0.2), child("c1"), child("c2"), message("n")])
    seen: list[str] = []

    async def all_four() -> bool:
        claim = await queue.claim(1)
        seen.extend(ids(claim))
        await settle(queue, claim.leases, Ack("1"))
        return len(seen) == 4

    await wait_until(all_four, "all four")
    assert [name for name in seen if name != "n"] == ["p1", "c1", "c2"]


async def test_lanes_that_become_one_let_a_parent_go_first(queue: Queue) -> None:
    await queue.enqueue([parent(chat=43), child("c", chat="@x"), message("n", "@x")])
    await queue.alias("1", "@x", "43")
    seen = []
    claim = await queue.claim(1)
    while claim.leases or claim.next_due == 0:
        seen += ids(claim)
        claim = await settle(queue, claim.leases, Ack("5"), want=1)
    assert seen.index("p1") < seen.index("c")
    assert len(seen) == 3


@pytest.mark.parametrize("head", [False, True])
async def test_a_family_that_died_can_be_sent_again(head: bool, queue: Queue) -> None:
    await queue.enqueue([parent(), child("c"), child("d", chat=43)])
    claim = await queue.claim(1)
    claim = await settle(queue, claim.leases, BLOCKED, want=5)
    while claim.next_due == 0:
        claim = await queue.claim(5)
    assert (await dead(queue)).keys() == {"p1", "c", "d"}
    assert await queue.redrive_all(head=head) == 3
    claim = await queue.claim(5)
    assert ids(claim) == ["p1"]
    claim = await settle(queue, claim.leases, Ack("17"), want=5)
    assert {lease.message.id: dict(lease.message.results) for lease in claim.leases} == {
        "c": {"p1": "17"},
        "d": {"p1": "17"},
    }
