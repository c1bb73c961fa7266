"""Slots: of several processes that wait for the same time one asks, in time, and is replaced when it is stopped."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from struct import Struct

import pytest
from redis.asyncio import Redis

from queueing.limits import Rate, RateLimits
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import RetryPolicy, Sent
from queueing.slots import Slots
from queueing.turns import Turn
from queueing.worker import MayWrite, Worker
from tests.conftest import wait_until

EVERY = 0.02
ROW = Struct("qd")
Fork = Callable[..., int]
Asked = Callable[[int], list[tuple[int, float]]]


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Runs a coroutine in a process of its own; killed in the end. → its id"""
    children: list[int] = []

    def fork(run: Callable[..., object], *args: object) -> int:
        child = os.fork()
        if not child:
            try:
                asyncio.run(run(*args))  # type: ignore[arg-type]
            finally:
                os._exit(1)
        children.append(child)
        return child

    yield fork
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def asked(log: tuple[int, int]) -> Asked:
    """The next times that somebody asks: who and when."""
    return lambda many: [ROW.unpack(os.read(log[0], ROW.size)) for _ in range(many)]


async def ask(slots: Slots, log: int, *, full: bool = False) -> None:
    """Asks whenever it is to, and is told that something is due soon. full: what it holds is why it gets nothing."""
    slots.told(EVERY, has_room=True, may_take=True)
    is_seen_to = True
    while True:
        await asyncio.sleep(slots.wake_in() if is_seen_to else EVERY)
        if is_seen_to and not slots.take():
            continue
        slots.ask()
        os.write(log, ROW.pack(os.getpid(), time.monotonic()))
        is_seen_to = slots.told(None if full else EVERY, has_room=True, may_take=not full)


def test_one_of_six_processes_asks(fork: Fork, asked: Asked, log: tuple[int, int]) -> None:
    slots = Slots()
    for _ in range(6):
        fork(ask, slots, log[1])
    times = asked(60)[-40:]
    # Whoever is kept from its slot for a few milliseconds is replaced. Six that ask would be 240.
    assert times[-1][1] - times[0][1] >= 39 * EVERY * 0.5


@pytest.mark.parametrize("stopped", [1, 2, 5])
def test_whoever_is_stopped_is_replaced(fork: Fork, asked: Asked, log: tuple[int, int], stopped: int) -> None:
    slots = Slots()
    running = {fork(ask, slots, log[1]) for _ in range(6)}
    for _ in range(stopped):
        first = asked(20)[-1][0]
        os.kill(first, signal.SIGSTOP)
        running.discard(first)
    assert {process for process, _ in asked(40)[-20:]} <= running


def test_whoever_may_have_no_more_of_what_is_due_keeps_it_from_nobody(
    fork: Fork, asked: Asked, log: tuple[int, int]
) -> None:
    slots = Slots()
    one = fork(ask, slots, log[1])
    asked(5)
    full = fork(lambda: ask(slots, log[1], full=True))
    assert Counter(process for process, _ in asked(60))[one] >= 20
    os.kill(one, signal.SIGSTOP)
    assert full in {process for process, _ in asked(60)[-20:]}, "it asks for itself"


def test_one_that_is_alone_asks_every_time() -> None:
    slots = Slots()
    assert slots.told(5.0, has_room=True, may_take=True)
    assert 4.9 < slots.wake_in() < 5.1
    assert not slots.take()
    slots.told(0.0, has_room=True, may_take=True)
    assert slots.wake_in() < 0.1


def test_with_hands_full_nobody_is_the_first() -> None:
    slots = Slots()
    slots.told(5.0, has_room=True, may_take=True)
    slots.told(1.0, has_room=False, may_take=True)
    assert 1.0 < slots.wake_in() < 1.1, "a moment later than one that is first"


MESSAGES = 40
LIMITS = RateLimits(bot=Rate(20, 1.0), chat=Rate(0, 1.0), group=Rate(0, 1.0))


async def work(url: str, slots: Slots | None, looks: Turn, log: int) -> None:
    async def deliver(_message: Message, may_write: MayWrite) -> Sent:
        may_write()
        os.write(log, ROW.pack(os.getpid(), time.monotonic()))
        return Sent()

    queue = RedisQueue(url, limits=LIMITS, looks=looks, slots=slots)
    await queue.start()
    worker = Worker(queue, deliver, workers=10, policy=RetryPolicy(), observe=lambda _: None)
    await worker.start()
    await asyncio.Event().wait()


async def claims(redis: "Redis") -> int:
    stats = await redis.info("commandstats")
    return int(stats["cmdstat_fcall"]["calls"])


async def test_a_backlog_at_its_limit_is_asked_for_by_one_of_six(
    redis: "Redis", redis_url: str, fork: Fork, asked: Asked, log: tuple[int, int]
) -> None:
    slots, looks = Slots(), Turn()
    for _ in range(6):
        fork(work, redis_url, slots, looks, log[1])
    await wait_until(lambda: _are_there(redis, 6), "six processes")
    elements = [f'{{"bot_token": "8081:x", "chat_id": {n + 1}, "text": "{n}"}}' for n in range(MESSAGES)]
    await redis.rpush("telegram_messages", *elements)
    await asyncio.to_thread(asked, 10)
    before = await claims(redis)
    await asyncio.to_thread(asked, MESSAGES - 10)
    # One that takes it and one that confirms it, for each; when all six asked for each slot, it were seven.
    assert (await claims(redis) - before) / (MESSAGES - 10) < 4.5


async def test_the_slots_of_a_stopped_process_are_used(
    redis: "Redis", redis_url: str, fork: Fork, asked: Asked, log: tuple[int, int]
) -> None:
    slots, looks = Slots(), Turn()
    for _ in range(3):
        fork(work, redis_url, slots, looks, log[1])
    await wait_until(lambda: _are_there(redis, 3), "three processes")
    elements = [f'{{"bot_token": "8081:x", "chat_id": {n + 1}, "text": "{n}"}}' for n in range(MESSAGES)]
    await redis.rpush("telegram_messages", *elements)
    first = (await asyncio.to_thread(asked, 10))[-1][0]
    os.kill(first, signal.SIGSTOP)
    # One or two it may have taken and not confirmed; another takes them when its lease ends.
    left = await asyncio.to_thread(asked, MESSAGES - 12)
    assert first not in {process for process, _ in left[-15:]}


async def _are_there(redis: "Redis", many: int) -> bool:
    return bool(await redis.zcard("{telegram_messages}:processes") == many)
