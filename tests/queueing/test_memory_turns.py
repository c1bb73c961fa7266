"""Whose turn it is in the in-process queue, by a clock that the test moves."""

from collections.abc import Sequence

import pytest

from queueing.contract import Claim, Lease, Settlement
from queueing.limits import MARGIN, WRITE_AT_ONCE, Rate, RateLimits
from queueing.memory_queue import DRAIN_MOST, MemoryQueue
from queueing.message import Message, Priority
from queueing.retry import Ack, Decision, Release, Scope

REFUSED = Release(0.5, "network", "refused", counts=True, scope=Scope.RECEIVER)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, **limits: Rate) -> MemoryQueue:
    return MemoryQueue(limits=RateLimits(**limits), clock=clock)


def message(n: int, chat: object = 42, bot: str = "1", priority: Priority = Priority.NORMAL) -> Message:
    return Message(bot=bot, chat=str(chat), body={"text": f"{chat}-{n}"}, priority=priority)


def texts(leases: Sequence[Lease]) -> list[str]:
    return [lease.message.body["text"] for lease in leases]


async def settle(queue: MemoryQueue, leases: Sequence[Lease], decision: Decision, want: int = 0) -> Claim:
    return await queue.claim(want, [Settlement(lease, decision) for lease in leases])


async def test_rule_7_a_limit_is_used_to_the_millisecond(clock: Clock) -> None:
    queue = make(clock, group=Rate(3, 60.0))
    await queue.enqueue([message(n, -42) for n in range(7)])
    left: list[float] = []
    done: Sequence[Lease] = ()
    while len(left) < 7:
        claim = await settle(queue, done, Ack(), want=1)
        done = claim.leases
        left += [clock.now] * len(done)
        if not done:
            clock.now += claim.next_due or 0.0
    period = 60.0 + MARGIN
    assert left == pytest.approx([1000.0] * 3 + [1000.0 + period] * 3 + [1000.0 + 2 * period])


async def test_a_limited_message_has_to_be_written_soon(clock: Clock) -> None:
    queue = make(clock, chat=Rate(1, 1.0))
    await queue.enqueue([message(0), message(0, -42)])
    write_by = {lease.message.chat: lease.write_by for lease in (await queue.claim(2)).leases}
    assert write_by == {"42": 1000.0 + WRITE_AT_ONCE, "-42": None}


async def test_rule_7_a_grant_that_was_not_written_frees_the_bots_slot(clock: Clock) -> None:
    queue = make(clock, bot=Rate(1, 60.0))
    await queue.enqueue([message(0, 1), message(0, 2)])
    claim = await queue.claim(2)
    assert len(claim.leases) == 1
    assert not (await queue.claim(1, held=claim.leases)).leases
    assert texts((await settle(queue, claim.leases, Release(), want=1)).leases) == ["2-0"], "its turn is over"


async def test_rule_11_the_lane_served_longest_ago_goes_first(clock: Clock) -> None:
    queue = make(clock, group=Rate(1, 60.0))
    await queue.enqueue([message(n, chat) for chat in (-7, 1, 2) for n in range(3)])
    await settle(queue, (await queue.claim(3)).leases, Ack())
    for _ in range(2):  # the private chats are served again, the group has to wait
        clock.now += 40.0
        claim = await queue.claim(1)
        await settle(queue, claim.leases, Ack())
    assert texts((await queue.claim(1)).leases) == ["-7-1"]


async def test_a_new_chat_goes_before_the_busy_but_not_before_those_that_wait_long(clock: Clock) -> None:
    queue = make(clock)
    await queue.enqueue([message(0, 1)])
    await queue.claim(0)
    clock.now += 5.0
    await queue.enqueue([message(0, 2)])
    assert texts((await queue.claim(1)).leases) == ["1-0"]


async def test_rule_12_a_retry_goes_before_the_bulk_of_its_chat_when_its_time_comes(clock: Clock) -> None:
    queue = make(clock)
    bulk = [message(n, chat, priority=Priority.BULK) for n in range(3) for chat in (1, 42)]
    await queue.enqueue([message(9), *bulk])
    leases = (await queue.claim(1)).leases
    claim = await settle(queue, leases, Release(5.0, "network", "refused", counts=True), want=1)
    assert texts(claim.leases) == ["1-0"], "the lane goes on with what it has besides"
    clock.now += 5.0
    claim = await settle(queue, claim.leases, Ack(), want=1)
    assert texts(claim.leases) == ["42-9"]
    assert claim.leases[0].attempts == 1


async def test_bots_that_have_only_bulk_do_not_hide_those_that_have_more(clock: Clock) -> None:
    queue = make(clock)
    await queue.enqueue(
        [message(n, chat, str(bot), Priority.BULK) for bot in range(30) for chat in (1, 2) for n in (0,)]
    )
    held = (await queue.claim(10)).leases
    assert len(held) == 8
    clock.now += 1.0
    await queue.enqueue([message(0, 1, "99")])
    assert [lease.message.bot for lease in (await queue.claim(2, held=held)).leases] == ["99"]


async def test_rule_11_bots_take_turns_whatever_they_have_waiting(clock: Clock) -> None:
    queue = make(clock)
    await queue.enqueue([message(0, chat, "1") for chat in range(50)])
    await queue.enqueue([message(0, chat, bot) for bot in ("2", "3") for chat in range(4)])
    seen = []
    done: Sequence[Lease] = ()
    for _ in range(12):
        clock.now += 0.01
        claim = await settle(queue, done, Ack(), want=1)
        done = claim.leases
        seen += [lease.message.bot for lease in done]
    assert sorted(seen[:3]) == sorted(seen[3:6]) == sorted(seen[6:9]) == ["1", "2", "3"]


async def outage(queue: MemoryQueue, clock: Clock) -> Lease:
    """Five chats fail together. → the first probe, a second later."""
    await queue.enqueue([message(0, chat) for chat in range(5)])
    claim = await settle(queue, (await queue.claim(5)).leases, REFUSED, want=5)
    assert (list(claim.leases), claim.next_due) == ([], pytest.approx(0.5))
    clock.now += 1.0
    (probe,) = (await queue.claim(5)).leases
    return probe


async def test_rule_9_a_probe_that_was_not_written_is_replaced_at_once(clock: Clock) -> None:
    queue = make(clock)
    probe = await outage(queue, clock)
    assert len((await settle(queue, [probe], Release(), want=5)).leases) == 1


async def test_rule_9_pauses_double_and_any_answer_ends_them(clock: Clock) -> None:
    queue = make(clock)
    probe = await outage(queue, clock)
    for pause in (2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        claim = await settle(queue, [probe], REFUSED, want=5)
        clock.now += pause - 0.001
        assert not claim.leases
        assert not (await queue.claim(5)).leases
        clock.now += 0.002
        (probe,) = (await queue.claim(5)).leases
    flood = Release(60.0, "flood", "retry after 60", scope=Scope.CHAT)
    assert len((await settle(queue, [probe], flood, want=5)).leases) == 4, "Telegram answers, if only with a 429"


async def test_rule_9_a_lost_probe_is_followed_by_another(clock: Clock) -> None:
    queue = make(clock)
    probe = await outage(queue, clock)
    clock.now += 19.0
    assert not (await queue.claim(5, held=[probe])).leases
    clock.now += 1.1
    assert len((await queue.claim(5, held=[probe])).leases) == 1


async def test_rule_8_floods_that_are_far_apart_are_the_chats(clock: Clock) -> None:
    queue = make(clock)
    await queue.enqueue([message(0, chat) for chat in range(4)])
    leases = (await queue.claim(4)).leases
    flood = Release(30.0, "flood", "429", scope=Scope.CHAT)
    for n in range(3):
        await queue.claim(0, [Settlement(leases[n], flood)], held=leases[n + 1 :])
        clock.now += 0.6
    await queue.enqueue([message(0, 9)])
    assert texts((await queue.claim(5, held=leases[3:])).leases) == ["9-0"]


async def test_a_claim_takes_a_bounded_number_from_the_door(clock: Clock) -> None:
    queue = make(clock)
    await queue.enqueue([message(n) for n in range(DRAIN_MOST + 1)])
    assert (await queue.claim(0)).more
    assert not (await queue.claim(0)).more
    stats = await queue.stats()
    assert (stats.ready, stats.depth) == (DRAIN_MOST + 1, DRAIN_MOST + 1)


async def test_nothing_is_kept_of_chats_that_are_done(clock: Clock) -> None:
    queue = make(clock, bot=Rate(1000, 1.0), chat=Rate(1, 1.0), group=Rate(20, 60.0))
    await queue.enqueue([message(0, sign * chat) for chat in range(1, 11) for sign in (1, -1)])
    done: Sequence[Lease] = ()
    while (await queue.stats()).depth:
        done = (await settle(queue, done, Ack(), want=10)).leases
        clock.now += 0.001
    clock.now += 61.0
    await queue.claim(0)
    assert not queue._gate._scopes
    assert not queue._turns._lanes
    assert not queue._held


async def test_nothing_is_kept_of_bots_whose_bulk_is_done(clock: Clock) -> None:
    queue = make(clock)
    bots = [str(bot) for bot in range(1, 13)]
    await queue.enqueue([message(n, 40 + n, bot, Priority.BULK) for n in range(30) for bot in bots])
    assert (await queue.stats()).depth == 360
    done: Sequence[Lease] = ()
    for _ in range(60):  # 8 of 10 are for bulk
        done = (await settle(queue, done, Ack(), want=10)).leases
    assert (await queue.stats()).depth == len(queue._doors) == 0
    assert not queue._doors._bulk
    assert not queue._turns._laned_bulk


async def test_stats_stay_right_through_every_move(clock: Clock) -> None:
    queue = make(clock, bot=Rate(3, 1.0), chat=Rate(1, 1.0))
    await queue.enqueue([message(n, chat, bot) for bot in ("1", "2") for chat in range(4) for n in range(3)])
    done: Sequence[Lease] = ()
    left = 24
    for step in range(400):
        claim = await settle(queue, done, Ack() if step % 3 else Release(0.2, "network", "x", counts=True), want=10)
        left -= len(done) if step % 3 else 0
        done = claim.leases
        stats = await queue.stats()
        assert stats.depth == left
        assert min(stats.ready, stats.waiting, stats.inflight) >= 0
        clock.now += 0.05
    assert left == 0
    assert queue._turns.waiting == 0
