"""Messages at hand: taken for the coroutines that end next, and harmless when anything goes wrong."""

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from queueing import at_hand
from queueing.at_hand import MOST, AtHand
from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.events import Event, Released
from queueing.message import Message, MessageState, Priority, Uncertain
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Outcome, Release, RetryLater, RetryPolicy, Scope, Sent, Unsent
from queueing.worker import MayWrite, Worker
from tests.conftest import Server
from tests.queueing.both import make_queue
from tests.queueing.both import start as start_any
from tests.queueing.desk import P, Start, message, start, state

__all__ = ["make_queue", "start", "start_any"]

Eventually = Callable[..., Awaitable[None]]
WORKERS = 4
SECONDS = 0.03
"""Of an attempt: many times what a call takes, and a call is not nothing beside it."""


def chats(many: int, *, first: int = 0, **fields: object) -> list[Message]:
    return [message(f"{fields.get('bot', 1)}-{chat}", chat, **fields) for chat in range(first, first + many)]


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.message.id for lease in leases]


# --- how many


def measured(attempt: float, call: float, most: int = MOST) -> AtHand:
    hand = AtHand(most)
    for _ in range(100):
        hand.note_attempt(attempt)
        hand.note_call(call)
    return hand


@pytest.mark.parametrize(
    ("attempt", "call", "room"),
    [
        (0.05, 0.001, MOST),
        (0.15, 0.001, MOST),
        (0.003, 0.001, 0),  # many end within a call
        (0.25, 0.001, 0),  # it would wait for long
        (0.05, 0.00005, 0),  # nothing is saved
    ],
)
def test_there_are_some_only_where_they_save_time(attempt: float, call: float, room: int) -> None:
    assert measured(attempt, call).room == room
    assert measured(attempt, call, most=0).room == 0


# --- what the queue gives


async def full(queue: Queue, *, ahead: int = MOST, want: int = WORKERS) -> Claim:
    return await queue.claim(want, ahead=ahead)


async def test_what_is_ahead_is_given_after_what_is_wanted(start: Start) -> None:
    queue = await start()
    await queue.enqueue(chats(9))
    claim = await full(queue)
    assert ids(claim.leases) == [f"1-{chat}" for chat in range(WORKERS + MOST)]
    one, *held = claim.leases
    more = await queue.claim(0, [Settlement(one, Ack())], held, ahead=1, at_hand=1)
    assert ids(more.leases) == ["1-6"]


async def test_nothing_is_ahead_while_another_process_is_idle(start: Start) -> None:
    queue, other = await start(), await start()
    assert not (await other.claim(1)).leases
    await queue.enqueue(chats(9))
    claim = await full(queue)
    assert len(claim.leases) == WORKERS
    assert len((await other.claim(1)).leases) == 1
    assert len((await queue.claim(0, held=claim.leases, ahead=1)).leases) == 1, "now it is not"


async def test_a_queue_that_is_asked_at_no_cost_gives_none(start_any: Callable[..., Awaitable[Queue]]) -> None:
    """Both, so that whoever asks need not know which it is."""
    queue = await start_any()
    await queue.enqueue(chats(9))
    assert len((await full(queue)).leases) == WORKERS + (MOST if queue.backend == "redis" else 0)


async def test_the_share_that_bulk_leaves_to_people_stays(start: Start) -> None:
    queue = await start()
    await queue.enqueue(chats(30, priority=Priority.BULK))
    bulk = (await queue.claim(10, ahead=MOST)).leases
    assert len(bulk) == 8, "of ten coroutines, whatever is at hand"
    await queue.enqueue(chats(6, first=100))
    people = (await queue.claim(2, held=bulk, ahead=MOST)).leases
    assert ids(people) == ["1-100", "1-101", "1-102", "1-103"]
    one, *rest = bulk
    held = [*rest, *people]
    claim = await queue.claim(0, [Settlement(one, Ack())], held, ahead=1, at_hand=1)
    assert ids(claim.leases) == ["1-104"]
    more = await queue.claim(1, held=[*held, *claim.leases], at_hand=2)
    assert ids(more.leases) == ["1-105"], "people come first, and what is at hand adds nothing to bulk's share"


async def test_bulk_is_never_at_hand(start: Start) -> None:
    """It would take the next coroutine, before a person's message that comes meanwhile."""
    queue = await start()
    await queue.enqueue([*chats(9), *chats(20, first=100, priority=Priority.BULK)])
    people = (await queue.claim(9)).leases
    assert len(people) == 9
    (first,) = (await queue.claim(1, held=people, ahead=MOST)).leases
    assert first.message.priority is Priority.BULK
    assert not (await queue.claim(0, held=[*people, first], ahead=MOST)).leases


async def test_what_is_held_in_doubt_is_never_at_hand(start: Start) -> None:
    """If the process died a person would have to decide, though nobody began it."""
    queue = await start()
    await queue.enqueue(chats(10))
    leases = (await queue.claim(10)).leases
    await queue.enqueue(chats(1, first=100, uncertain=Uncertain.HOLD))
    assert not (await queue.claim(0, held=leases, ahead=MOST)).leases
    (only,) = (await queue.claim(1, held=leases[1:], settlements=[Settlement(leases[0], Ack())])).leases
    assert only.message.uncertain is Uncertain.HOLD


async def test_the_share_of_a_bot_is_of_coroutines(start: Start) -> None:
    queue = await start()
    await queue.enqueue([*chats(20, bot="1"), *chats(20, bot="2")])
    leases = (await queue.claim(10, ahead=MOST)).leases
    assert [sum(lease.message.bot == bot for lease in leases) for bot in ("1", "2")] == [5, 5]


async def test_what_goes_back_keeps_its_place_and_costs_no_attempt(start: Start) -> None:
    queue, other = await start(), await start()
    await queue.enqueue([message("a", 1), message("b", 2), message("c", 2)])
    first, second = (await full(queue, want=1, ahead=1)).leases
    assert ids([first, second]) == ["a", "b"]
    await queue.claim(0, [Settlement(second, Release(), None)], [first])
    assert await state(queue, "b") is MessageState.PENDING
    (again,) = (await other.claim(5)).leases
    assert (again.message.id, again.attempts, again.takeovers) == ("b", 0, 0)


async def test_the_same_call_again_brings_the_same(start: Start) -> None:
    queue = await start()
    await queue.enqueue(chats(9))
    claim = await full(queue)
    queue._call -= 1
    assert {lease.token for lease in (await full(queue)).leases} == {lease.token for lease in claim.leases}


async def test_rule_4_a_suspect_is_not_at_hand(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("suspect", 1)])
    for _ in range(2):
        dead = await start()
        assert len((await dead.claim(1)).leases) == 1
        await queue.claim(0)
        await redis.zadd(f"{P}processes", {dead.incarnation: 1})
        await queue.reap()
    await queue.enqueue(chats(9, first=10))
    other = await start()
    suspect = (await other.claim(1, ahead=MOST)).leases
    assert ids(suspect) == ["suspect"], "it runs alone"
    assert not (await other.claim(0, held=suspect, ahead=MOST)).leases


# --- what a worker does with them


class Receiver:
    """Takes SECONDS for each; with `hang`, until `go_on`. begun: how many; after: what comes of those that hang."""

    def __init__(self) -> None:
        self.arrived: dict[str, list[str]] = defaultdict(list)
        self.begun = 0
        self.refused: list[str] = []
        self.hang, self.hanging = False, 0
        self.go_on = asyncio.Event()
        self.after: Outcome = Sent("1")

    async def __call__(self, message: Message, may_write: MayWrite) -> Outcome:
        self.begun += 1
        if not may_write():
            self.refused.append(message.id)
            return Unsent()
        self.arrived[message.chat].append(message.id)
        if not self.hang:
            await asyncio.sleep(SECONDS)
            return Sent("1")
        self.hanging += 1
        await self.go_on.wait()
        return self.after

    @property
    def ids(self) -> set[str]:
        return {id for arrived in self.arrived.values() for id in arrived}


Run = Callable[..., Awaitable[Worker]]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def run(events: list[Event], receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """However slow the machine is, there may be some, and they stay."""
    monkeypatch.setattr(at_hand, "_TIMES_A_CALL", (0, 1e9))
    monkeypatch.setattr(at_hand, "_KEPT_FOR", 60.0)
    workers: list[Worker] = []

    async def run(queue: Queue) -> Worker:
        worker = Worker(queue, receiver, workers=WORKERS, policy=RetryPolicy(), observe=events.append)
        await worker.start()
        workers.append(worker)
        return worker

    yield run
    receiver.go_on.set()
    for worker in workers:
        await worker.stop(grace=0)


async def with_some_at_hand(queue: RedisQueue, run: Run, receiver: Receiver, eventually: Eventually) -> Worker:
    """All of its coroutines hang."""
    await queue.enqueue(chats(300))
    worker = await run(queue)

    def is_full() -> bool:
        receiver.hang = receiver.hang or bool(worker._at_hand)
        return receiver.hanging == WORKERS and len(worker._at_hand) == MOST

    await eventually(is_full, "some are at hand while all hang")
    return worker


async def takable(queue: Queue) -> set[str]:
    """What a process can take, all of it first attempts."""
    leases: list[Lease] = []
    while found := (await queue.claim(400 - len(leases), held=leases)).leases:
        leases += found
    assert {lease.attempts for lease in leases} == {0}
    return set(ids(leases))


async def inflight(queue: Queue) -> int:
    return (await queue.stats()).inflight


async def test_all_arrive_once_and_never_more_than_there_are_coroutines(
    start: Start, run: Run, receiver: Receiver, eventually: Eventually
) -> None:
    queue, most = await start(), 0
    await queue.enqueue([message(f"{chat}-{n}", chat) for n in range(10) for chat in range(12)])
    worker = await run(queue)

    def is_done() -> bool:
        nonlocal most
        most = max(most, len(worker._held))
        assert worker.busy <= WORKERS
        return sum(map(len, receiver.arrived.values())) == 120

    await eventually(is_done, "all arrived")
    assert most == WORKERS + MOST, "some were at hand"
    assert receiver.arrived == {str(chat): [f"{chat}-{n}" for n in range(10)] for chat in range(12)}


async def test_what_no_coroutine_comes_for_goes_back(
    start: Start,
    run: Run,
    receiver: Receiver,
    events: list[Event],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, other = await start(), await start()
    worker = await with_some_at_hand(queue, run, receiver, eventually)
    waiting = {lease.message.id for lease in worker._held.values()} - receiver.ids
    monkeypatch.setattr(at_hand, "_KEPT_FOR", 0.2)
    queue.notify()
    await eventually(lambda: sum(isinstance(event, Released) for event in events) == MOST, "they went back")
    assert not worker._at_hand
    assert await inflight(queue) == WORKERS
    assert not waiting & receiver.ids
    assert waiting <= await takable(other), "another may have them"


async def test_nothing_is_taken_for_coroutines_that_hang(
    start: Start, run: Run, receiver: Receiver, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await start()
    worker = await with_some_at_hand(queue, run, receiver, eventually)
    monkeypatch.setattr(at_hand, "_KEPT_FOR", 0.2)
    queue.notify()
    await eventually(lambda: not worker._at_hand, "they went back")
    calls = queue._call
    for _ in range(3):
        worker._queue.notify()
        await eventually(lambda calls=calls: queue._call > calls, "a call")
        calls = queue._call
        assert not worker._at_hand


async def test_stop_gives_back_at_once_what_is_at_hand(
    start: Start, run: Run, receiver: Receiver, eventually: Eventually
) -> None:
    queue = await start()
    worker = await with_some_at_hand(queue, run, receiver, eventually)
    begun = receiver.begun
    stopping = asyncio.create_task(worker.stop())
    await eventually(lambda: not worker._at_hand and not worker._confirming, "they went back")
    assert await inflight(queue) == WORKERS
    receiver.go_on.set()
    await stopping
    assert receiver.begun == begun, "nothing is begun after the stop"
    assert await inflight(queue) == 0


async def test_a_bot_that_is_refused_gets_nothing_more_from_what_is_at_hand(
    start: Start, run: Run, receiver: Receiver, eventually: Eventually
) -> None:
    queue = await start()
    worker = await with_some_at_hand(queue, run, receiver, eventually)
    begun = receiver.begun
    receiver.after = RetryLater("401", "unauthorized", after=60.0, scope=Scope.BOT)
    receiver.go_on.set()
    await eventually(lambda: not worker._held, "all was settled")
    assert receiver.begun == begun
    assert {pause.bot for pause in await queue.paused()} == {"1"}


async def test_what_is_at_hand_waits_for_a_server_that_is_away(
    own_server: Server, run: Run, receiver: Receiver, eventually: Eventually
) -> None:
    """It does not hear of those before, and would not know more of them than there are coroutines."""
    queue = RedisQueue(own_server.url)
    await queue.start()
    worker = await with_some_at_hand(queue, run, receiver, eventually)
    begun = receiver.begun
    own_server.kill()
    queue.notify()
    await eventually(lambda: not worker.available, "the server is away")
    receiver.hang = False
    receiver.go_on.set()
    await eventually(lambda: len(worker._done) == WORKERS, "all in hand ended")
    assert (receiver.begun, len(worker._at_hand)) == (begun, MOST)
    own_server.start()
    await eventually(lambda: receiver.begun > begun, "it goes on")
    own_server.kill()
    await eventually(lambda: worker.busy == 0, "all in hand ended")
    async with asyncio.timeout(10):
        await worker.stop(grace=0)
    await queue.close()


async def test_what_was_taken_over_meanwhile_is_not_sent(
    redis: Redis, start: Start, run: Run, receiver: Receiver, eventually: Eventually
) -> None:
    queue, other = await start(), await start()
    worker = await with_some_at_hand(queue, run, receiver, eventually)
    waiting = {lease.message.id for lease in worker._held.values()} - receiver.ids
    await other.claim(0)
    await redis.zadd(f"{P}processes", {queue.incarnation: 1})
    assert sum(one.recovered for one in await other.reap()) == WORKERS + MOST
    assert waiting <= await takable(other)
    queue.notify()
    await eventually(lambda: len(worker._lost) == WORKERS + MOST, "it heard of it")
    receiver.go_on.set()
    await eventually(lambda: not worker._held, "its hands are empty")
    assert set(receiver.refused) == waiting
    assert not waiting & receiver.ids


PROCESS = """
import asyncio, sys
from queueing import at_hand
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import RetryPolicy, Sent
from queueing.worker import Worker

at_hand._TIMES_A_CALL = (0, 1e9)

async def main(url, workers, seconds):
    queue = RedisQueue(url, workers=workers, lease_seconds=1.5)
    await queue.start()

    async def deliver(message, may_write):
        if may_write():
            await queue._patient.rpush("arrived", message.id)
            await asyncio.sleep(seconds)
        return Sent("1")

    await Worker(queue, deliver, workers=workers, policy=RetryPolicy(), observe=lambda event: None).start()
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


async def test_killed_with_some_at_hand_nothing_is_lost_and_few_arrive_twice(
    redis: Redis, redis_url: str, start: Start, eventually: Eventually
) -> None:
    queue = RedisQueue(redis_url, lease_seconds=1.5)
    await queue.start()
    await queue.enqueue([message(f"{chat}-{n}", chat) for n in range(4) for chat in range(50)])
    command = [sys.executable, "-c", PROCESS, redis_url, str(WORKERS), str(SECONDS)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        held = 0
        while held != WORKERS + MOST:
            assert process.returncode is None
            assert (await queue.stats()).depth, "some are at hand before all are sent"
            held = await inflight(queue)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    taken_over = 0
    while not taken_over:
        await queue.claim(0)
        taken_over = sum(one.recovered for one in await queue.reap())
        await asyncio.sleep(0.05)
    assert taken_over <= WORKERS + MOST
    while leases := (await queue.claim(50)).leases:
        for lease in leases:
            await redis.rpush("arrived", lease.message.id)
        await queue.claim(0, [Settlement(lease, Ack()) for lease in leases])
    arrived = await redis.lrange("arrived", 0, -1)
    await redis.delete("arrived")
    await queue.close()
    assert set(arrived) == {f"{chat}-{n}" for n in range(4) for chat in range(50)}, "nothing is lost"
    assert len(arrived) - 200 <= WORKERS, "of what was at hand, nothing was sent"
    for chat in range(50):
        firsts = list(dict.fromkeys(id for id in arrived if id.startswith(f"{chat}-")))
        assert firsts == [f"{chat}-{n}" for n in range(4)], "order"
