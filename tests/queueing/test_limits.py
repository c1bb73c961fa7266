"""What may leave, and who goes first: on both queues. Times are those at which a claim brought the message."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.limits import Rate, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Release, Scope

MakeQueue = Callable[..., Queue]
BACKENDS = ["redis", "memory"]


@pytest.fixture(params=BACKENDS)
async def make_queue(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[MakeQueue]:
    made: list[Queue] = []

    def make(**limits: Rate) -> Queue:
        rates = RateLimits(**limits)
        on_redis = request.param == "redis"
        queue: Queue = RedisQueue(redis_url, limits=rates) if on_redis else MemoryQueue(limits=rates)
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.close()


def message(n: int, chat: object = 42, bot: str = "1", priority: Priority = Priority.NORMAL) -> Message:
    return Message(bot=bot, chat=str(chat), body={"text": f"{chat}-{n}"}, priority=priority)


def texts(leases: Sequence[Lease]) -> list[str]:
    return [lease.message.body["text"] for lease in leases]


async def settle(queue: Queue, leases: Sequence[Lease], decision: Decision, want: int = 0) -> Claim:
    return await queue.claim(want, [Settlement(lease, decision) for lease in leases])


async def take(queue: Queue, want: int, *, seconds: float = 5.0) -> list[tuple[float, Lease]]:
    """Claims and acknowledges at once, as written then, until `want` came; with the time of each."""
    taken: list[tuple[float, Lease]] = []
    done: Sequence[Settlement] = ()
    ends = time.monotonic() + seconds
    while len(taken) < want:
        assert time.monotonic() < ends, f"only {len(taken)} of {want} came"
        claim = await queue.claim(10, done)
        at = queue.clock()
        taken += [(at, lease) for lease in claim.leases]
        done = [Settlement(lease, Ack(), at - lease.granted_at) for lease in claim.leases]
        if not done:
            await queue.wait(0.25 if claim.next_due is None else claim.next_due + 0.0005)
    await queue.claim(0, done)
    return taken


async def pass_time(queue: Queue, seconds: float) -> None:
    """`wait` alone may return at once: something was enqueued since the last."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        await queue.wait(left)


def worst(times: Sequence[float], period: float) -> int:
    """The most that came in any window of the period."""
    return max(sum(start <= at < start + period for at in times) for start in times)


@pytest.mark.parametrize(("chat", "scope"), [(42, "chat"), (-42, "group"), ("@news", "group")])
async def test_a_chats_limit_holds_in_every_window(make_queue: MakeQueue, chat: object, scope: str) -> None:
    queue = make_queue(**{scope: Rate(3, 0.3)})
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(10)])
    taken = await take(queue, 10)
    assert texts([lease for _, lease in taken]) == [f"{chat}-{n}" for n in range(10)]
    assert worst([at for at, _ in taken], 0.295) == 3
    assert all(lease.write_by is not None for _, lease in taken)


async def test_a_limit_of_private_chats_is_none_of_groups(make_queue: MakeQueue) -> None:
    queue = make_queue(chat=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(n, -42) for n in range(20)])
    taken = await take(queue, 20)
    assert all(lease.write_by is None for _, lease in taken)


async def test_a_chat_at_its_limit_holds_up_nobody_else(make_queue: MakeQueue) -> None:
    queue = make_queue(chat=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(n, 1) for n in range(50)] + [message(0, chat) for chat in range(2, 30)])
    taken = await take(queue, 29)
    assert sorted(lease.message.chat for _, lease in taken) == sorted(str(chat) for chat in range(1, 30))
    claim = await queue.claim(10)
    assert not claim.leases
    assert claim.next_due == pytest.approx(60, abs=5)
    stats = await queue.stats()
    assert (stats.ready, stats.waiting) == (0, 49)


async def test_rule_7_a_bots_limit_holds_in_every_window_and_is_used(make_queue: MakeQueue) -> None:
    queue = make_queue(bot=Rate(20, 0.5))
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(3) for chat in range(20)])
    taken = await take(queue, 60)
    times = [at for at, _ in taken]
    assert worst(times, 0.495) <= 20
    assert times[-1] - times[0] >= 0.98 * 2 * 0.5


async def test_rule_7_a_bots_messages_are_paced(make_queue: MakeQueue) -> None:
    queue = make_queue(bot=Rate(10, 1.0))
    await queue.start()
    await queue.enqueue([message(0, chat) for chat in range(10)])
    claim = await queue.claim(10)
    assert 1 <= len(claim.leases) <= 2
    assert claim.next_due == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(("count", "most"), [(1000, 51), (100, 6), (10, 2)])
async def test_rule_7_at_most_50_ms_or_one_slot_is_caught_up(make_queue: MakeQueue, count: int, most: int) -> None:
    queue = make_queue(bot=Rate(count, 1.0))
    await queue.start()
    await queue.enqueue([message(0, chat) for chat in range(100)])
    assert most - 1 <= len((await queue.claim(100)).leases) <= most


async def test_no_bot_waits_for_another(make_queue: MakeQueue) -> None:
    queue = make_queue(bot=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(n, chat, bot="1") for n in range(3) for chat in range(30)])
    await queue.enqueue([message(0, 1, bot=str(bot)) for bot in range(2, 12)])
    taken = await take(queue, 11)
    assert sorted(lease.message.bot for _, lease in taken) == sorted(str(bot) for bot in range(1, 12))


async def test_rule_11_the_lane_served_longest_ago_goes_first(make_queue: MakeQueue) -> None:
    queue = make_queue(group=Rate(1, 0.6))
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(3) for chat in (1, -7, 2)])
    await settle(queue, (await queue.claim(3)).leases, Ack())
    await pass_time(queue, 0.002)  # turns are ordered by the server's milliseconds
    await settle(queue, (await queue.claim(2)).leases, Ack())  # of the private chats: the group has to wait
    await pass_time(queue, 0.63)
    assert texts((await queue.claim(1)).leases) == ["-7-1"]


async def test_rule_11_a_lane_that_is_tried_again_was_served_when_it_was_tried(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(2) for chat in (1, 2)])
    leases = (await queue.claim(2)).leases
    refused, other = (next(lease for lease in leases if lease.message.chat == chat) for chat in ("1", "2"))
    await queue.claim(0, [Settlement(refused, Release(0.02, "network", "refused", counts=True))], [other])
    await pass_time(queue, 0.002)
    await settle(queue, [other], Ack())
    await pass_time(queue, 0.03)
    assert texts((await queue.claim(1)).leases) == ["1-0"]


async def test_rule_11_the_bot_served_longest_ago_goes_first(make_queue: MakeQueue) -> None:
    queue = make_queue(bot=Rate(1, 0.6))
    await queue.start()
    turns = ["3", "1", "2"]
    for bot in turns:
        await queue.enqueue([message(n, bot=bot) for n in range(2)])
        await settle(queue, (await queue.claim(1)).leases, Ack())
        await pass_time(queue, 0.002)
    assert not (await queue.claim(3)).leases, "all have to wait"
    await pass_time(queue, 0.63)
    seen = []
    for _ in turns:
        (lease,) = (await queue.claim(1)).leases
        await settle(queue, [lease], Ack())
        seen.append(lease.message.bot)
    assert seen == turns


async def test_one_bot_has_half_of_the_coroutines_while_others_have_something(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, chat, bot="1") for chat in range(30)])
    first = (await queue.claim(5)).leases
    assert len(first) == 5
    await queue.enqueue([message(0, chat, bot="2") for chat in range(3)])
    second = (await queue.claim(5, held=first)).leases
    assert [lease.message.bot for lease in second] == ["2", "2", "2"]


async def test_one_bot_has_half_at_most_if_another_was_served_within_an_hour(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, 1, bot="2")])
    await take(queue, 1)
    await queue.enqueue([message(0, chat, bot="1") for chat in range(30)])
    first = (await queue.claim(10)).leases
    assert len(first) == 5, "what hangs must not be in all hands when the others' messages come"
    assert not (await queue.claim(5, held=first)).leases
    await queue.enqueue([message(0, chat, bot="2") for chat in range(9)])
    assert [lease.message.bot for lease in (await queue.claim(5, held=first)).leases] == ["2"] * 5


async def test_of_a_bots_half_bulk_has_four_fifths(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, 1, bot="2")])
    await take(queue, 1)
    await queue.enqueue([message(0, chat, priority=Priority.BULK) for chat in range(30)])
    first = (await queue.claim(10)).leases
    assert len(first) == 4
    await queue.enqueue([message(0, 99, priority=Priority.INTERACTIVE)])
    assert texts((await queue.claim(6, held=first)).leases) == ["99-0"]


@pytest.mark.parametrize(("chat", "scope"), [(42, "chat"), (-42, "group"), ("@news", "group")])
async def test_a_claim_tells_what_had_to_wait_for_a_chats_limit(
    make_queue: MakeQueue, chat: object, scope: str
) -> None:
    queue = make_queue(chat=Rate(1, 60), group=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(2)])
    first = await queue.claim(10)
    assert first.limited == {}
    after = await settle(queue, first.leases, Ack(), want=10)
    assert not after.leases
    assert after.limited == {scope: 1}
    assert (await queue.claim(10)).limited == {}, "it is not looked at again before it can be eligible"


async def test_a_claim_tells_what_had_to_wait_for_the_bots_limit(make_queue: MakeQueue) -> None:
    queue = make_queue(bot=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(0, chat) for chat in range(2)])
    claim = await queue.claim(10)
    assert len(claim.leases) == 1
    assert claim.limited == {"bot": 1}
    assert (await queue.claim(10, held=claim.leases)).limited == {}


async def test_a_pause_is_no_limit(make_queue: MakeQueue) -> None:
    queue = make_queue(bot=Rate(100, 1))
    await queue.start()
    await queue.enqueue([message(0), message(1)])
    flood = Release(60, "flood", "Too Many Requests", scope=Scope.CHAT)
    assert (await settle(queue, (await queue.claim(1)).leases, flood, want=10)).limited == {}


async def test_interactive_goes_before_normal_before_bulk(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, chat, priority=Priority.BULK) for chat in range(3)])
    await queue.enqueue([message(1, chat, priority=Priority.NORMAL) for chat in range(3)])
    await queue.enqueue([message(2, chat, priority=Priority.INTERACTIVE) for chat in range(3)])
    taken = await take(queue, 9)
    assert [text[-1] for text in texts([lease for _, lease in taken])] == ["2", "2", "2", "1", "1", "1", "0", "0", "0"]


async def test_interactive_goes_before_a_backlog_of_its_own_chat(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(n) for n in range(5)])
    claim = await queue.claim(1)
    await queue.enqueue([message(9, priority=Priority.INTERACTIVE)])
    assert not (await queue.claim(1, held=claim.leases)).leases, "one of a chat is in flight, whatever its priority"
    claim = await settle(queue, claim.leases, Ack(), want=1)
    assert texts(claim.leases) == ["42-9"]
    assert texts((await settle(queue, claim.leases, Ack(), want=1)).leases) == ["42-1"]


async def test_rule_12_a_retry_holds_its_own_priority_of_its_chat(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0), message(1)])
    claim = await queue.claim(1)
    await settle(queue, claim.leases, Release(60, "network", "refused", counts=True))
    assert not (await queue.claim(1)).leases
    await queue.enqueue([message(9, priority=Priority.INTERACTIVE)])
    assert texts([lease for _, lease in await take(queue, 1)]) == ["42-9"]
    assert not (await queue.claim(1)).leases


async def test_rule_12_a_retry_goes_before_the_bulk_of_its_chat_as_soon_as_it_is_due(make_queue: MakeQueue) -> None:
    """Though the lane stands in the turn of bulk meanwhile."""
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, priority=Priority.INTERACTIVE)])
    bulk = [message(n, priority=Priority.BULK) for n in range(1, 3)]
    await settle(queue, (await queue.claim(1)).leases, Release(0.05, "network", "refused", counts=True))
    await queue.enqueue(bulk)
    assert not (await queue.claim(0)).leases
    taken = [text for _, lease in await _after(queue, 0.1, 3) for text in texts([lease])]
    assert taken == ["42-0", "42-1", "42-2"]


async def _after(queue: Queue, seconds: float, want: int) -> list[tuple[float, Lease]]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await queue.wait(ends - time.monotonic())
    return await take(queue, want)


async def test_rule_12_a_limit_holds_the_whole_chat(make_queue: MakeQueue) -> None:
    queue = make_queue(chat=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(0)])
    await settle(queue, (await queue.claim(1)).leases, Ack())
    await queue.enqueue([message(n, priority=priority) for n, priority in enumerate(Priority)])
    claim = await queue.claim(3)
    assert not claim.leases
    assert claim.next_due == pytest.approx(60, abs=5)


async def test_bulk_holds_at_most_eight_of_ten(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, chat, priority=Priority.BULK) for chat in range(30)])
    bulk = (await queue.claim(10)).leases
    assert len(bulk) == 8
    await queue.enqueue([message(1, chat) for chat in range(50, 60)])
    assert len((await queue.claim(2, held=bulk)).leases) == 2


async def test_rule_12_a_flood_wait_holds_the_whole_chat_and_costs_no_attempt(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, 1), message(0, 2)])
    claim = await queue.claim(2)
    one = [lease for lease in claim.leases if lease.message.chat == "1"]
    two = [lease for lease in claim.leases if lease.message.chat == "2"]
    flood = Release(0.3, "flood", "retry after", scope=Scope.CHAT)
    await queue.claim(0, [Settlement(one[0], flood), Settlement(two[0], Ack())])
    paused = time.monotonic()
    await queue.enqueue([message(9, 1, priority=Priority.INTERACTIVE), message(1, 2)])
    taken = await take(queue, 3)
    assert texts([lease for _, lease in taken]) == ["2-1", "1-9", "1-0"]
    assert taken[1][0] - paused >= 0.28
    assert taken[2][1].attempts == 0


async def test_rule_8_three_flooded_chats_at_once_are_the_bot_two_are_not(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, chat, bot=bot) for chat in range(3) for bot in ("1", "2")])
    claim = await queue.claim(10)
    by_bot = defaultdict(list)
    for lease in claim.leases:
        by_bot[lease.message.bot].append(lease)
    flood = Release(30, "flood", "retry after 30", scope=Scope.CHAT)
    floods = [Settlement(lease, flood) for lease in (*by_bot["1"], *by_bot["2"][:2])]
    await queue.claim(0, [*floods, Settlement(by_bot["2"][2], Ack())])
    await queue.enqueue([message(1, 77, bot=bot) for bot in ("1", "2")])
    assert [lease.message.bot for lease in (await queue.claim(10)).leases] == ["2"]


async def flooded(queue: Queue, floods: Sequence[tuple[float, float]]) -> bool:
    """Chats that are refused: seconds to wait, then seconds until the next is. → whether their bot is paused."""
    await queue.enqueue([message(0, chat) for chat in range(len(floods))])
    leases = (await queue.claim(len(floods))).leases
    for n, (delay, apart) in enumerate(floods):
        flood = Release(delay, "flood", "retry after", scope=Scope.CHAT)
        await queue.claim(0, [Settlement(leases[n], flood)], leases[n + 1 :])
        await pass_time(queue, apart)
    await queue.enqueue([message(0, 77)])
    return not (await queue.claim(1)).leases


async def test_rule_8_floods_that_end_apart_are_the_chats(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    assert not await flooded(queue, [(30, 0), (32, 0), (34, 0)])


async def test_rule_8_floods_that_come_apart_are_the_chats(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    assert not await flooded(queue, [(30, 0.7), (29.3, 0.7), (28.6, 0)])


async def test_two_pauses_combine_by_the_later_deadline(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(0, chat) for chat in range(2)])
    leases = (await queue.claim(2)).leases
    await queue.claim(
        0,
        [
            Settlement(leases[0], Release(60, "unauthorized", "401", scope=Scope.BOT)),
            Settlement(leases[1], Release(0.05, "unauthorized", "401", scope=Scope.BOT)),
        ],
    )
    await pass_time(queue, 0.1)
    claim = await queue.claim(2)
    assert not claim.leases
    assert claim.next_due == pytest.approx(60, abs=5)


async def fail(queue: Queue, chats: int, *, decision: Decision) -> Claim:
    await queue.enqueue([message(0, chat) for chat in range(chats)])
    leases = (await queue.claim(chats)).leases
    assert len(leases) == chats
    return await settle(queue, leases, decision, want=10)


REFUSED = Release(0.01, "network", "refused", counts=True, scope=Scope.RECEIVER)


async def test_rule_9_failures_of_several_chats_are_an_outage_with_one_probe_at_a_time(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    assert not (await fail(queue, 5, decision=REFUSED)).leases, "the bot is paused"
    started = time.monotonic()
    probes: list[Lease] = []
    while len(probes) < 2:
        claim = await queue.claim(10, held=probes[1:])
        assert len(claim.leases) <= 1, "one probe at a time"
        for lease in claim.leases:
            probes.append(lease)
            if len(probes) == 1:
                assert time.monotonic() - started >= 0.9
                await settle(queue, [lease], REFUSED)
        if not claim.leases:
            await queue.wait(0.05 if claim.next_due is None else min(claim.next_due, 0.25))
    assert time.monotonic() - started >= 2.8, "1 s, then 2 s"
    claim = await settle(queue, probes[1:], Ack(), want=10)
    assert len(claim.leases) == 4, "the outage is over, all go on"
    assert all(lease.attempts <= 1 for lease in claim.leases)


async def test_rule_9_attempts_that_run_out_in_an_outage_bury_nothing(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    last = Bury("attempts", "refused (after 5 attempts)", scope=Scope.RECEIVER)
    claim = await fail(queue, 5, decision=last)
    assert len(claim.kept) == 3, "the first two were not known to be part of it"
    stats = await queue.stats()
    assert (stats.dead, stats.depth) == (2, 3)


async def test_rule_9_failures_while_others_get_through_are_no_outage(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(2) for chat in range(6)])
    leases = (await queue.claim(6)).leases
    await queue.claim(0, [Settlement(lease, REFUSED if lease is leases[0] else Ack()) for lease in leases])
    claim = await queue.claim(5)
    assert len(claim.leases) == 5
    await queue.claim(0, [Settlement(lease, REFUSED if lease is claim.leases[0] else Ack()) for lease in claim.leases])
    await pass_time(queue, 0.02)
    assert [lease.attempts for lease in (await queue.claim(10)).leases] == [1, 1]


async def test_what_was_granted_and_not_written_costs_nothing_of_a_limit(make_queue: MakeQueue) -> None:
    queue = make_queue(chat=Rate(1, 60))
    await queue.start()
    await queue.enqueue([message(0)])
    claim = await queue.claim(1)
    assert texts((await settle(queue, claim.leases, Release(), want=1)).leases) == ["42-0"]


async def test_a_probe_that_was_not_written_is_no_probe(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.start()
    await fail(queue, 5, decision=REFUSED)
    while not (claim := await queue.claim(10)).leases:
        await queue.wait(claim.next_due or 0.01)
    claim = await settle(queue, claim.leases, Release(), want=10)
    assert len(claim.leases) == 1, "another goes out at once"


async def test_a_departure_counts_from_when_it_was_written(redis_url: str) -> None:
    queue = RedisQueue(redis_url, limits=RateLimits(chat=Rate(1, 60)))
    await queue.start()
    await queue.enqueue([message(n, chat) for n in range(2) for chat in range(2)])
    leases = (await queue.claim(2)).leases
    assert [lease.write_by is not None for lease in leases] == [True, True]
    await asyncio.sleep(0.5)  # what is told to have left later than now left now
    await queue.claim(0, [Settlement(lease, Ack(), written) for lease, written in zip(leases, (0.0, 0.4), strict=True)])
    lanes = [lease.lane for lease in leases]
    due = await queue._patient.zmscore("{telegram_messages}:due", lanes)
    assert due[1] - due[0] == pytest.approx(400, abs=50)
    await queue.close()


async def test_what_wrote_nothing_takes_nothing_of_a_limit(redis_url: str) -> None:
    queue = RedisQueue(redis_url, limits=RateLimits(chat=Rate(1, 60)))
    await queue.start()
    await queue.enqueue([message(0), message(1)])
    (lease,) = (await queue.claim(1)).leases
    claim = await queue.claim(1, [Settlement(lease, Bury("forbidden_method", "refused here"), None)])
    assert texts(claim.leases) == ["42-1"]
    await queue.close()
