"""Turns: of several processes one does it, in time, and is replaced when it is stopped."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from struct import Struct

import pytest

from queueing.turns import Turn, aligned

EVERY = 0.05
ROW = Struct("qd")
Fork = Callable[..., int]
Taken = Callable[[], list[tuple[int, float]]]


@pytest.fixture
def fork(log: tuple[int, int]) -> Iterator[Fork]:
    """Starts a process that takes its turns and logs them; killed in the end. → its id"""
    children: list[int] = []

    def fork(turn: Turn, *, fails: bool = False) -> int:
        child = os.fork()
        if not child:
            try:
                asyncio.run(_take_turns(turn, log[1], fails=fails))
            finally:
                os._exit(1)
        children.append(child)
        return child

    yield fork
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def _take_turns(turn: Turn, log: int, *, fails: bool) -> None:
    while True:
        await turn.wait(EVERY)
        os.write(log, ROW.pack(os.getpid(), time.monotonic()))
        if fails:
            turn.failed()


@pytest.fixture
def taken(log: tuple[int, int]) -> Taken:
    """The next ten turns that are taken: by whom and when."""
    return lambda: [ROW.unpack(os.read(log[0], ROW.size)) for _ in range(10)]


def test_one_of_six_processes_does_it(fork: Fork, taken: Taken) -> None:
    turn = Turn()
    for _ in range(6):
        fork(turn)
    turns = [turn for _ in range(3) for turn in taken()]
    # The first ones may be taken by several that came at once; and who is kept from its turn for 5 ms is replaced.
    assert Counter(process for process, _ in turns[-20:]).most_common(1)[0][1] > 20 / 3
    assert turns[-1][1] - turns[-11][1] >= 10 * EVERY * 0.5


@pytest.mark.parametrize("stopped", [1, 2, 5])
def test_whoever_is_stopped_is_replaced(fork: Fork, taken: Taken, stopped: int) -> None:
    turn = Turn()
    running = {fork(turn) for _ in range(6)}
    for _ in range(stopped):
        first = taken()[-1][0]
        os.kill(first, signal.SIGSTOP)
        running.discard(first)
    assert {process for process, _ in [*taken(), *taken()][-10:]} <= running


def test_whoever_fails_is_replaced(fork: Fork, taken: Taken) -> None:
    turn = Turn()
    failing = fork(turn, fails=True)
    assert {process for process, _ in taken()} == {failing}, "while there is no other"
    other = fork(turn)
    turns = [process for _ in range(4) for process, _ in taken()]
    assert turns[-20:].count(other) > 10


def test_one_that_is_alone_does_it_every_time(fork: Fork, taken: Taken) -> None:
    fork(Turn())
    assert len(taken()) == 10


async def test_what_was_done_needs_not_be_done_again() -> None:
    turn = Turn()
    assert not turn.take(60)
    assert turn.take(0)
    turn.took()
    assert 50 < turn.wake_in(60) <= 60


def test_a_turn_of_the_future_is_none() -> None:
    """Its clock is the machine's; yet nothing may wait for ever."""
    turn = Turn()
    turn._last[0] = time.clock_gettime(time.CLOCK_MONOTONIC) + 1e9
    assert turn.take(1.0)


def test_what_is_done_seldom_is_done_at_one_go() -> None:
    now = time.monotonic()
    ends = [now + aligned(seconds) for seconds in (1.0, 2.0, 3.4, 5.0)]
    assert all(0 < end - now <= seconds + 0.02 for end, seconds in zip(ends, (1.0, 2.0, 3.4, 5.0), strict=True))
    parts = [(end - ends[0]) % 1.0 for end in ends]
    assert all(min(part, 1 - part) < 0.01 for part in parts)
    assert aligned(0.25) == 0.25
