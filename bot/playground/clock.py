"""How far the server's timestamps can be off: the longest time its event loop did not look at its sockets."""

from __future__ import annotations

import asyncio
import time

TICK = 0.002  # seconds between two looks
VOID_ABOVE_MS = 10.0  # a run with a larger timestamp error says nothing about windows


class LagMeter:
    """A ticker in the event loop. Bytes that arrive between two ticks are stamped by the second at the latest, so the
    time between two ticks bounds the error. The worst of each second is kept, so that a run is judged by its own.
    """

    def __init__(self) -> None:
        self._worst: dict[int, int] = {}  # second of CLOCK_MONOTONIC → longest time between ticks, ns
        self._last = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._last = time.monotonic_ns()
        self._tick()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def error_ms(self, since_ns: int, until_ns: int) -> float:
        """The worst error of a stamp within this time, in milliseconds."""
        seconds = range(since_ns // 10**9, until_ns // 10**9 + 1)
        return max((self._worst.get(second, 0) for second in seconds), default=0) / 1e6

    def _tick(self) -> None:
        now = time.monotonic_ns()
        gap = now - self._last
        # a long gap is an error in each second it touches
        for second in range(self._last // 10**9, now // 10**9 + 1):
            if gap > self._worst.get(second, 0):
                self._worst[second] = gap
        self._last = now
        self._handle = asyncio.get_running_loop().call_later(TICK, self._tick)
