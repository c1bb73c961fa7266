"""Rule 13, one canonical chat: names that turn out to be one chat's share its lane, its order and its limit. On both
queues; each test waits for what it claims, since a merge may take several calls."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.limits import OFF, Rate, RateLimits
from queueing.message import Message, MessageState, Priority
from queueing.retry import Ack, Decision, Move, Release
from tests.queueing.both import MakeQueue, make_queue  # a fixture among them

__all__ = ["make_queue"]

OLD, NEW = "-5", "-1007"


@pytest.fixture
async def queue(make_queue: MakeQueue) -> Queue:
    queue = make_queue()
    await queue.start()
    return queue


def message(name: str, chat: str = OLD, **fields: object) -> Message:
    return Message(bot="1", chat=chat, id=name, body={"text": name}, **fields)  # type: ignore[arg-type]


async def accept(queue: Queue, *messages: Message) -> None:
    """Each a moment after the one before, and all of them in their lanes."""
    for one in messages:
        await queue.enqueue([one])
        await asyncio.sleep(0.002)  # orders are told apart by milliseconds
    await queue.claim(0)


def settled(leases: Sequence[Lease], decision: Decision, written: float | None = 0.0) -> list[Settlement]:
    return [Settlement(lease, decision, written) for lease in leases]


async def claimed(queue: Queue, done: Sequence[Settlement] = (), *, held: Sequence[Lease] = ()) -> Lease:
    """The next message, once there is one."""
    ends = time.monotonic() + 10
    claim = await queue.claim(1, done, held)
    while not claim.leases:
        assert time.monotonic() < ends, "nothing can be claimed"
        await queue.wait(min(0.05, claim.next_due or 0.001))
        claim = await queue.claim(1, held=held)
    (lease,) = claim.leases
    return lease


async def only(queue: Queue, name: str) -> Lease:
    """That one of what can be claimed now; the rest is given back unsent."""
    leases = (await queue.claim(10)).leases
    rest = [lease for lease in leases if lease.message.id != name]
    (lease,) = [lease for lease in leases if lease not in rest]
    await queue.claim(0, settled(rest, Release(), None), [lease])
    return lease


async def nothing_more(queue: Queue, done: Sequence[Settlement] = (), *, held: Sequence[Lease] = ()) -> Claim:
    """A few calls, so that anything which was put off is done, and none of them brings a message."""
    claim = await queue.claim(10, done, held)
    for _ in range(5):
        assert [lease.message.id for lease in claim.leases] == []
        claim = await queue.claim(10, (), held)
    return claim


async def all_of(queue: Queue, count: int) -> list[tuple[str, str]]:
    """Names and chats of what is sent, one after the other."""
    seen: list[tuple[str, str]] = []
    done: Sequence[Settlement] = ()
    for _ in range(count):
        lease = await claimed(queue, done)
        seen.append((lease.message.id, lease.message.chat))
        done = settled([lease], Ack())
    await nothing_more(queue, done)
    return seen


async def test_rule_13_two_lanes_become_one_by_order_of_acceptance(queue: Queue) -> None:
    await accept(queue, *(message(f"m{n}", NEW if n % 3 else OLD) for n in range(9)))
    await queue.alias("1", OLD, NEW)
    assert await all_of(queue, 9) == [(f"m{n}", NEW) for n in range(9)]


@pytest.mark.parametrize("waiting", [OLD, NEW])
async def test_rule_13_a_lane_whose_other_is_empty_goes_on(queue: Queue, waiting: str) -> None:
    await accept(queue, *(message(f"m{n}", waiting) for n in range(3)))
    await queue.alias("1", OLD, NEW)
    await accept(queue, message("m3", OLD), message("m4", NEW))
    assert await all_of(queue, 5) == [(f"m{n}", NEW) for n in range(5)]


async def test_rule_13_what_comes_later_by_either_name_stands_at_the_end_of_the_one_lane(queue: Queue) -> None:
    await queue.alias("1", OLD, NEW)
    await accept(queue, message("a", OLD), message("b", NEW), message("c", OLD))
    assert await all_of(queue, 3) == [("a", NEW), ("b", NEW), ("c", NEW)]


async def test_rule_13_other_bots_and_chats_are_left_alone(queue: Queue) -> None:
    await queue.alias("1", OLD, NEW)
    await queue.enqueue([Message(bot="2", chat=OLD, id="a", body={}), message("b", "-50"), message("c", "5")])
    chats = {lease.message.id: lease.message.chat for lease in (await queue.claim(10)).leases}
    assert chats == {"a": OLD, "b": "-50", "c": "5"}


async def test_rule_13_each_priority_is_merged_for_itself(queue: Queue) -> None:
    await accept(
        queue,
        message("b1", NEW, priority=Priority.BULK),
        message("n1", OLD),
        message("i1", NEW, priority=Priority.INTERACTIVE),
        message("b2", OLD, priority=Priority.BULK),
        message("n2", NEW),
        message("i2", OLD, priority=Priority.INTERACTIVE),
    )
    await queue.alias("1", OLD, NEW)
    assert [name for name, _ in await all_of(queue, 6)] == ["i1", "i2", "n1", "n2", "b1", "b2"]


async def test_rule_13_two_in_flight_are_settled_before_the_lanes_are_one(queue: Queue) -> None:
    await accept(queue, message("a1", OLD), message("b1", NEW), message("a2", OLD), message("b2", NEW))
    first, second = (await queue.claim(10)).leases
    assert {first.message.id, second.message.id} == {"a1", "b1"}
    await queue.alias("1", OLD, NEW)
    await accept_held(queue, [first, second], message("a3", OLD))
    await nothing_more(queue, held=[first, second])
    await nothing_more(queue, settled([first], Ack()), held=[second])
    lease = await claimed(queue, settled([second], Ack()))
    assert (lease.message.id, lease.message.chat) == ("a2", NEW)
    await nothing_more(queue, held=[lease])
    lease = await claimed(queue, settled([lease], Ack()))
    assert lease.message.id == "b2"
    assert (await claimed(queue, settled([lease], Ack()))).message.id == "a3"


async def accept_held(queue: Queue, held: Sequence[Lease], *messages: Message) -> None:
    await queue.enqueue(messages)
    await queue.claim(0, held=held)


@pytest.mark.parametrize("chat", [OLD, NEW])
async def test_rule_13_the_other_lane_waits_for_what_is_in_flight(queue: Queue, chat: str) -> None:
    other = NEW if chat == OLD else OLD
    await accept(queue, message("a", chat), message("b", other))
    lease = await only(queue, "a")
    await queue.alias("1", OLD, NEW)
    await nothing_more(queue, held=[lease])
    again = await claimed(queue, settled([lease], Release(0, "network", "refused", counts=True)))
    assert (again.message.id, again.message.chat, again.attempts) == ("a", NEW, 1)
    last = await claimed(queue, settled([again], Ack()))
    assert (last.message.id, last.message.chat) == ("b", NEW)


async def test_rule_13_what_is_given_back_keeps_its_place(queue: Queue) -> None:
    await accept(queue, message("a", OLD), message("b", NEW))
    lease = await only(queue, "a")
    await queue.alias("1", OLD, NEW)
    lease = await claimed(queue, settled([lease], Release(), written=None))
    assert (lease.message.id, lease.attempts) == ("a", 0)


async def test_rule_13_a_retry_of_the_head_is_overtaken_by_nothing_of_its_priority(queue: Queue) -> None:
    await accept(queue, message("a", OLD), message("b", NEW))
    lease = await only(queue, "a")
    claim = await queue.claim(0, settled([lease], Release(2, "network", "refused", counts=True)))
    await queue.alias("1", OLD, NEW)
    claim = await nothing_more(queue)
    assert claim.next_due is not None
    assert claim.next_due > 0
    lease = await claimed(queue)
    assert (lease.message.id, lease.message.chat, lease.attempts) == ("a", NEW, 1)


async def test_rule_13_a_retry_that_is_no_longer_the_first_holds_up_nobody(queue: Queue) -> None:
    await accept(queue, message("a", NEW), message("b", OLD))
    lease = await only(queue, "b")
    await queue.claim(0, settled([lease], Release(60, "network", "refused", counts=True)))
    await queue.alias("1", OLD, NEW)
    assert (await claimed(queue)).message.id == "a"


@pytest.mark.parametrize("pairs", [[("@n", OLD), (OLD, NEW)], [(OLD, NEW), ("@n", OLD)]], ids=str)
async def test_rule_13_a_chain_of_names_ends_in_one_chat(queue: Queue, pairs: list[tuple[str, str]]) -> None:
    await accept(queue, message("a", "@n"), message("b", OLD), message("c", NEW))
    for chat, other in pairs:
        await queue.alias("1", chat, other)
    await accept(queue, message("d", "@n"), message("e", OLD))
    assert await all_of(queue, 5) == [(name, NEW) for name in "abcde"]


async def test_rule_13_several_names_of_one_chat_are_merged_while_it_is_in_flight(queue: Queue) -> None:
    await accept(queue, message("a", NEW), message("b", "@n"), message("c", OLD), message("d", NEW))
    lease = await only(queue, "a")
    await queue.alias("1", OLD, NEW)
    await queue.alias("1", "@n", NEW)
    await nothing_more(queue, held=[lease])
    await queue.claim(0, settled([lease], Ack()))
    assert await all_of(queue, 3) == [(name, NEW) for name in "bcd"]


async def test_rule_13_the_newest_word_wins(queue: Queue) -> None:
    await queue.alias("1", OLD, NEW)
    await accept(queue, message("a", OLD))
    await queue.alias("1", NEW, OLD)
    await accept(queue, message("b", NEW), message("c", OLD))
    assert await all_of(queue, 3) == [(name, OLD) for name in "abc"]


async def test_rule_13_a_name_that_is_another_chats_now_is_that_ones(queue: Queue) -> None:
    await queue.alias("1", "@n", OLD)
    await queue.alias("1", "@n", NEW)
    await accept(queue, message("a", "@n"), message("b", OLD))
    chats = {lease.message.id: lease.message.chat for lease in (await queue.claim(10)).leases}
    assert chats == {"a": NEW, "b": OLD}


async def test_rule_13_said_again_or_of_itself_it_changes_nothing(queue: Queue) -> None:
    await accept(queue, message("a", OLD), message("b", NEW))
    await queue.alias("1", OLD, OLD)
    for _ in range(3):
        await queue.alias("1", OLD, NEW)
    assert await all_of(queue, 2) == [("a", NEW), ("b", NEW)]


# --- settlements


async def test_rule_13_a_moved_message_keeps_its_place_and_costs_no_attempt(queue: Queue) -> None:
    await accept(queue, message("a", OLD, track=True), message("b", NEW), message("c", OLD))
    lease = await only(queue, "a")
    again = await claimed(queue, settled([lease], Move(NEW, "upgraded")))
    assert (again.message.id, again.message.chat, again.attempts) == ("a", NEW, 0)
    status = await queue.status("a")
    assert status
    assert status.state is MessageState.SENDING
    await queue.claim(0, settled([again], Ack()))
    assert await all_of(queue, 2) == [("b", NEW), ("c", NEW)]


async def test_rule_13_a_stale_move_changes_nothing(queue: Queue) -> None:
    await accept(queue, message("a", OLD), message("b", OLD))
    lease = await claimed(queue)
    await queue.claim(0, settled([lease], Ack()))
    claim = await queue.claim(0, settled([lease], Move(NEW, "upgraded")))
    assert list(claim.stale) == [lease.token]
    assert await all_of(queue, 1) == [("b", OLD)]


async def test_rule_13_an_acknowledgement_may_tell_the_chats_real_name(queue: Queue) -> None:
    await accept(queue, message("a", "@n"), message("b", NEW), message("c", "@n"))
    lease = await only(queue, "a")
    await queue.claim(0, settled([lease], Ack("7", NEW)))
    assert await all_of(queue, 2) == [("b", NEW), ("c", NEW)]


# --- limits


async def test_rule_13_a_chat_has_one_limit_whatever_it_is_called(make_queue: MakeQueue) -> None:
    queue = make_queue(limits=RateLimits(group=Rate(2, 60)))
    await queue.start()
    await accept(queue, message("a", OLD), message("b", NEW), message("c", OLD), message("d", NEW))
    leases = (await queue.claim(10)).leases
    assert sorted(lease.message.id for lease in leases) == ["a", "b"]
    await queue.claim(0, settled(leases, Ack()))
    await queue.alias("1", OLD, NEW)
    claim = await nothing_more(queue)
    assert claim.next_due == pytest.approx(60, abs=5)


async def test_rule_13_a_migrated_request_counts_for_the_new_chat(make_queue: MakeQueue) -> None:
    queue = make_queue(limits=RateLimits(group=Rate(1, 60)))
    await queue.start()
    await accept(queue, message("a", OLD))
    lease = await claimed(queue)
    claim = await nothing_more(queue, settled([lease], Move(NEW, "upgraded")))
    assert claim.next_due == pytest.approx(60, abs=5)


async def test_rule_13_a_move_that_wrote_nothing_takes_nothing_of_a_limit(make_queue: MakeQueue) -> None:
    queue = make_queue(limits=RateLimits(bot=Rate(1, 60), group=Rate(1, 60)))
    await queue.start()
    await accept(queue, message("a", OLD))
    lease = await claimed(queue)
    again = await claimed(queue, settled([lease], Move(NEW, "upgraded"), written=None))
    assert (again.message.id, again.message.chat) == ("a", NEW)


async def test_rule_13_a_single_chats_limit_is_that_of_all_its_names(make_queue: MakeQueue) -> None:
    queue = make_queue(limits=RateLimits(group=Rate(1, 60), chats={"@n": Rate(2, 60), OLD: OFF}))
    await queue.start()
    await queue.alias("1", "@n", NEW)
    await queue.alias("1", OLD, "-1008")
    await accept(queue, *(message(f"a{n}", NEW) for n in range(3)), *(message(f"b{n}", "-1008") for n in range(5)))
    seen: list[str] = []
    claim = await queue.claim(10)
    while claim.leases:
        seen += [lease.message.id for lease in claim.leases]
        claim = await queue.claim(10, settled(claim.leases, Ack()))
    assert sorted(seen) == ["a0", "a1", "b0", "b1", "b2", "b3", "b4"]
    assert claim.next_due == pytest.approx(60, abs=5)


async def test_a_single_chat_may_have_a_limit_of_its_own_or_none(make_queue: MakeQueue) -> None:
    queue = make_queue(limits=RateLimits(chat=Rate(1, 60), group=Rate(1, 60), chats={"42": Rate(3, 60), "@n": OFF}))
    await queue.start()
    await accept(queue, *(message(f"{chat}-{n}", chat) for chat in ("42", "@n", "43", "@m") for n in range(5)))
    seen: list[str] = []
    claim = await queue.claim(10)
    while claim.leases:
        seen += [lease.message.chat for lease in claim.leases]
        claim = await queue.claim(10, settled(claim.leases, Ack()))
    assert {chat: seen.count(chat) for chat in set(seen)} == {"42": 3, "@n": 5, "43": 1, "@m": 1}
