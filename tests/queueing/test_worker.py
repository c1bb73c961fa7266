"""The worker on both queues: order, balance, settlement, and what it does when things go wrong."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from queueing.contract import Queue, TakenOver
from queueing.events import Acked, Available, Buried, Claimed, Event, Fenced, Released, Unavailable
from queueing.maintenance import Maintenance
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, encode
from queueing.redis_queue import RedisQueue
from queueing.retry import Outcome, Rejected, RetryLater, RetryPolicy, Sent, Unsent
from queueing.worker import Deliver, MayWrite, Worker
from tests.conftest import Server

Eventually = Callable[..., Awaitable[None]]
Run = Callable[..., Awaitable[Worker]]

FAST = RetryPolicy(max_attempts=3, base=0.01)


@pytest.fixture(params=["redis", "memory"])
async def queue(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Queue]:
    queue: Queue = RedisQueue(redis_url) if request.param == "redis" else MemoryQueue()
    await queue.start()
    yield queue
    await queue.close()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def run(events: list[Event]) -> AsyncIterator[Run]:
    """Starts workers, and stops them at the end."""
    workers: list[Worker] = []

    async def run(queue: Queue, deliver: Deliver, *, count: int = 10, policy: RetryPolicy = FAST) -> Worker:
        worker = Worker(queue, deliver, workers=count, policy=policy, observe=events.append)
        await worker.start()
        workers.append(worker)
        return worker

    yield run
    for worker in workers:
        await worker.stop(grace=0)


def message(n: int, chat: int = 42, **fields: object) -> Message:
    return Message(bot="123", chat=str(chat), body={"text": f"{chat}-{n}"}, **fields)  # type: ignore[arg-type]


class Receiver:
    """Delivers by writing down what came, in the order it came."""

    def __init__(self) -> None:
        self.arrived: dict[str, list[str]] = defaultdict(list)
        self.at_once = self.most_at_once = 0
        self.busy_chats: set[str] = set()

    async def __call__(self, message: Message, may_write: MayWrite) -> Outcome:
        assert message.chat not in self.busy_chats, "two of one chat at once"
        assert may_write()
        self.busy_chats.add(message.chat)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.busy_chats.remove(message.chat)
        self.arrived[message.chat].append(message.body["text"])
        return Sent("1")

    @property
    def count(self) -> int:
        return sum(map(len, self.arrived.values()))


async def test_everything_arrives_once_in_order_and_ten_at_a_time(
    queue: Queue, run: Run, events: list[Event], eventually: Eventually
) -> None:
    receiver = Receiver()
    await queue.enqueue([message(n, chat) for n in range(20) for chat in range(30)])
    worker = await run(queue, receiver)
    await eventually(lambda: len([event for event in events if isinstance(event, Acked)]) == 600, "600 sent")
    assert receiver.arrived == {str(chat): [f"{chat}-{n}" for n in range(20)] for chat in range(30)}
    assert receiver.most_at_once == 10
    assert worker.busy == 0
    assert sum(isinstance(event, Claimed) for event in events) == 600


async def test_a_message_that_comes_later_is_taken_at_once(queue: Queue, run: Run, eventually: Eventually) -> None:
    receiver = Receiver()
    await run(queue, receiver)
    for n in range(3):
        await queue.enqueue([message(n)])
        await eventually(lambda n=n: receiver.count == n + 1, "the message arrived")


async def test_a_call_that_took_long_keeps_no_settlement_back_for_long(
    run: Run, events: list[Event], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settlement waits for others half as long as the last call took; but that may have been an outage."""
    queue, release = MemoryQueue(), asyncio.Event()
    await queue.start()
    claim, ended = queue.claim, list[float]()

    async def late(*args: Any) -> Any:
        if len(ended) < 2:
            await asyncio.sleep(2.0)
            ended.append(time.monotonic())
        return await claim(*args)

    async def deliver(message: Message, _may_write: MayWrite) -> Outcome:
        if message.chat == "1":
            await release.wait()
        return Sent("1")

    monkeypatch.setattr(queue, "claim", late)
    await queue.enqueue([message(0, 1), message(0, 2)])
    await run(queue, deliver, count=2)
    await eventually(lambda: any(isinstance(event, Acked) for event in events), "the quick one to be settled")
    took = time.monotonic() - ended[1]
    release.set()
    assert took < 0.7
    await queue.close()


async def test_rule_16_an_idle_process_looks_at_least_every_250_ms(
    redis_url: str, run: Run, eventually: Eventually
) -> None:
    """Where others of its machine look, it looks whether they do: see test_turns.py."""
    queue, receiver = RedisQueue(redis_url), Receiver()
    await queue.start()
    worker = await run(queue, receiver)
    loop, naps = asyncio.get_running_loop(), list[float]()
    for n in range(5):
        # As if a process that was stopped meanwhile had swallowed the bell.
        await queue._patient.rpush("{telegram_messages}:handoff", encode(message(n)))

        def found(n: int = n) -> bool:
            if timer := queue._waiting._timer:
                naps.append(timer.when() - loop.time())
            return receiver.count == n + 1

        await eventually(found, "it was found")
    assert 0.1 < max(naps) <= 0.25
    await worker.stop()
    await queue.close()


async def test_a_failing_head_keeps_its_place_and_holds_up_nobody_else(
    queue: Queue, run: Run, eventually: Eventually
) -> None:
    receiver, failures = Receiver(), 2

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        nonlocal failures
        if message.body["text"] == "1-0" and failures:
            failures -= 1
            return RetryLater("refused", "network")
        return await receiver(message, may_write)

    await queue.enqueue([message(n, chat) for n in range(3) for chat in (1, 2)])
    await run(queue, deliver)
    await eventually(lambda: receiver.count == 6, "all arrived")
    assert receiver.arrived == {"1": ["1-0", "1-1", "1-2"], "2": ["2-0", "2-1", "2-2"]}
    assert failures == 0


async def test_attempts_run_out_into_the_dead_letters(
    queue: Queue, run: Run, events: list[Event], eventually: Eventually
) -> None:
    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        return RetryLater("refused", "network", uncertain=True)

    await queue.enqueue([message(1)])
    await run(queue, deliver)
    await eventually(lambda: any(isinstance(event, Buried) for event in events), "it is dead")
    (letter,) = await queue.dead_letters()
    assert (letter.reason, letter.error) == ("attempts", "refused (after 3 attempts)")
    assert [line["reason"] for line in letter.history] == ["network", "network", "attempts"]
    assert [type(event) for event in events] == [Claimed, Released, Claimed, Released, Claimed, Buried]


async def test_rejected_is_dead_at_once_and_the_lane_goes_on(queue: Queue, run: Run, eventually: Eventually) -> None:
    receiver = Receiver()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        if message.body["text"] == "42-0":
            return Rejected("can't parse entities", "bad_request")
        return await receiver(message, may_write)

    await queue.enqueue([message(0), message(1)])
    await run(queue, deliver)
    await eventually(lambda: receiver.count == 1, "the next arrived")
    assert [letter.reason for letter in await queue.dead_letters()] == ["bad_request"]


async def test_a_crash_inside_delivery_is_an_attempt_and_the_coroutine_lives(
    queue: Queue, run: Run, eventually: Eventually
) -> None:
    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        raise ZeroDivisionError

    await queue.enqueue([message(1)])
    worker = await run(queue, deliver, count=1)

    async def dead() -> bool:
        return (await queue.stats()).dead == 1

    await eventually(dead, "it is dead")
    assert worker.running
    assert "ZeroDivisionError" in (await queue.dead_letters())[0].error


async def test_stop_lets_what_is_in_hand_end_and_takes_no_more(queue: Queue, run: Run, eventually: Eventually) -> None:
    started, finish, receiver = asyncio.Event(), asyncio.Event(), Receiver()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        started.set()
        await finish.wait()
        return await receiver(message, may_write)

    await queue.enqueue([message(n) for n in range(3)])
    worker = await run(queue, deliver)
    await started.wait()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    finish.set()
    await stopping
    assert receiver.count == 1
    stats = await queue.stats()
    assert (stats.processed, stats.ready, stats.inflight) == (1, 2, 0)


async def test_rule_2_the_lease_is_asked_for_before_writing(redis_url: str, run: Run, eventually: Eventually) -> None:
    """What has less than a second of its lease left is not written, and goes back."""
    queue = RedisQueue(redis_url)
    await queue.start()
    answers: list[bool] = []

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        if not answers:  # as if the process had been stopped until shortly before its lease ends
            queue._expires -= 14.5
        answers.append(may_write())
        return Sent() if answers[-1] else Unsent()

    await queue.enqueue([message(1)])
    worker = await run(queue, deliver)
    await eventually(lambda: len(answers) == 2, "it was tried again")
    assert answers == [False, True]
    await worker.stop()
    await queue.close()


async def test_redis_away_and_back_loses_nothing(
    own_server: Server, run: Run, events: list[Event], eventually: Eventually
) -> None:
    queue = RedisQueue(own_server.url)
    await queue.start()
    receiver, gate = Receiver(), asyncio.Event()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await gate.wait()
        return await receiver(message, may_write)

    await queue.enqueue([message(n, chat) for n in range(5) for chat in range(20)])
    worker = await run(queue, deliver)
    await eventually(lambda: worker.busy == 10, "ten in hand")
    own_server.kill()
    await eventually(lambda: not worker.available, "the worker noticed")
    gate.set()
    await eventually(lambda: worker.busy == 0, "what was in hand is sent")
    own_server.start()
    await eventually(lambda: receiver.count == 100, "all arrived")
    assert all(arrived == [f"{chat}-{n}" for n in range(5)] for chat, arrived in receiver.arrived.items())
    assert any(isinstance(event, Unavailable) for event in events)
    assert any(isinstance(event, Available) for event in events)
    assert not any(isinstance(event, Fenced) for event in events)
    await worker.stop()
    await queue.close()


async def test_stop_does_not_wait_for_ever_for_a_server_that_is_away(own_server: Server, run: Run) -> None:
    queue = RedisQueue(own_server.url)
    await queue.start()
    worker = await run(queue, Receiver())
    own_server.kill()
    await asyncio.wait_for(worker.stop(grace=0.2), 10)
    await queue.close()


async def test_stop_waits_for_no_server_if_everything_is_settled(
    own_server: Server, run: Run, eventually: Eventually
) -> None:
    queue = RedisQueue(own_server.url)
    await queue.start()
    worker = await run(queue, Receiver())
    own_server.kill()
    await eventually(lambda: not worker.available, "the worker noticed")
    await asyncio.wait_for(worker.stop(grace=60), 10)
    await queue.close()


async def test_stop_waits_for_a_server_that_is_to_hear_of_a_settlement(
    own_server: Server, run: Run, eventually: Eventually
) -> None:
    queue = RedisQueue(own_server.url)
    await queue.start()
    gate, receiver = asyncio.Event(), Receiver()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await gate.wait()
        return await receiver(message, may_write)

    await queue.enqueue([message(1)])
    worker = await run(queue, deliver)
    await eventually(lambda: worker.busy == 1, "in hand")
    own_server.kill()
    await eventually(lambda: not worker.available, "the worker noticed")
    gate.set()
    await eventually(lambda: worker.busy == 0, "it is sent")
    stopping = asyncio.create_task(worker.stop(grace=60))
    await asyncio.to_thread(own_server.start)
    await stopping
    assert (await queue.stats()).processed == 1
    await queue.close()


async def test_a_dead_process_is_taken_over_by_another_within_its_lease(
    redis_url: str, run: Run, events: list[Event], eventually: Eventually
) -> None:
    dead, alive = RedisQueue(redis_url, lease_seconds=1.5), RedisQueue(redis_url, lease_seconds=1.5)
    receiver = Receiver()
    for queue in (dead, alive):
        await queue.start()
    await dead.enqueue([message(n, chat) for n in range(2) for chat in range(5)])
    await dead.claim(3)  # and never heard again
    died = time.monotonic()
    maintenance = Maintenance(alive, events.append)
    await maintenance.start()
    worker = await run(alive, receiver)
    await eventually(lambda: receiver.count == 10, "all arrived")
    assert time.monotonic() - died >= 1.4, "not before the lease ended"
    assert all(arrived == [f"{chat}-0", f"{chat}-1"] for chat, arrived in receiver.arrived.items())
    await worker.stop()
    await maintenance.stop()
    for queue in (dead, alive):
        await queue.close()


async def test_a_worker_whose_lease_was_taken_over_is_fenced(
    redis_url: str, run: Run, events: list[Event], eventually: Eventually
) -> None:
    slow, quick = RedisQueue(redis_url, lease_seconds=30), RedisQueue(redis_url, lease_seconds=30)
    for queue in (slow, quick):
        await queue.start()
    gate, may_still_write = asyncio.Event(), []

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await gate.wait()
        may_still_write.append(may_write())
        return Sent()

    await slow.enqueue([message(1)])
    worker = await run(slow, deliver)
    await eventually(lambda: worker.busy == 1, "in hand")
    await quick.claim(0)
    await slow._patient.zadd("{telegram_messages}:processes", {slow.incarnation: 1})
    assert await quick.reap() == [TakenOver(slow.incarnation, 1)]
    (lease,) = (await quick.claim(1)).leases
    await eventually(
        lambda: lease.token is not None and bool(worker._lost), "the worker learned that it lost its lease"
    )
    gate.set()
    await eventually(lambda: any(isinstance(event, Fenced) for event in events), "its settlement was refused")
    assert may_still_write == [False]
    assert (await quick.stats()).processed == 0
    await worker.stop()
    for queue in (slow, quick):
        await queue.close()


async def test_a_turn_says_how_many_are_taken_and_there_is_another_at_once(
    queue: Queue, eventually: Eventually
) -> None:
    over = asyncio.Event()
    in_hand: list[int] = []

    async def turn() -> int:
        in_hand.append(worker.busy)
        return 2

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await over.wait()
        return Sent("1")

    await queue.enqueue([message(1, chat) for chat in range(20)])
    worker = Worker(queue, deliver, workers=9, policy=FAST, observe=lambda event: None, turn=turn)
    await worker.start()
    try:
        await eventually(lambda: worker.busy == 9, "all hands to be full")
        assert in_hand[:5] == [0, 2, 4, 6, 8]
    finally:
        over.set()
        await worker.stop()
