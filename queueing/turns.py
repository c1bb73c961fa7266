"""Turns: what one of a machine's processes does every so often, for all of them.

Six idle processes that all look do six times the work of one, and find no more. They share pages of memory that are
made before they are forked. One, the first to come, does all of it in time, and at one go; a second watches that it
does, and is the first as soon as it does not. The others look at the two once in a while. Nobody holds anything: a
process that is stopped, or dead, takes no turn, and is replaced in time; only if both are, some turns are missed. One
that took its turn in vain says so, and steps back.
"""

import asyncio
import math
import mmap
import os
import time

from queueing.clock import CLOCK

_BEAT = 0.225
"""Seconds between two times at which the first does what is due, and at which all of its turns are."""

_OWN, _LATE = 0.9, 1 / 9
"""When the first takes the next turn, of the time between two; and how late that is late, of a beat."""

_OTHERS = 4
"""Turns after which the others look."""

_EARLY = 0.002
"""Seconds by which a timer may go off too soon."""

_FIRST, _SECOND, _WATCHED = range(3)
"""The processes; when the second looked."""


_pid = os.getpid()


def pid() -> int:
    """Of this process; to ask for it is a system call."""
    return _pid


def _note_fork() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


def shared(numbers: int) -> "memoryview[float]":
    """Numbers that all processes see that are forked from this one."""
    return memoryview(mmap.mmap(-1, numbers * 8)).cast("d")


class Duty:
    """Who takes the turns of a machine, and who watches that. Shared by several turns, so that a process which wakes up
    for one takes them all."""

    def __init__(self) -> None:
        self.page = shared(3)


class Turn:
    """Of those who have it from before the fork; made later, it is of one process, whose turn it is every time."""

    def __init__(self, duty: Duty | None = None) -> None:
        self._duty = (duty or Duty()).page
        self._last = shared(1)
        self.took()

    def took(self) -> None:
        """What would be done was done now, by whomever."""
        self._last[0] = time.clock_gettime(CLOCK)

    def failed(self) -> None:
        """The caller took it and could not do it: its next turn is another's, as long as there is one."""
        if self._duty[_FIRST] == pid():
            self._duty[_FIRST] = 0

    def take(self, every: float) -> bool:
        """Whether it is the caller's now. It is done every so many seconds, or a little more often."""
        duty, me, now = self._duty, pid(), time.clock_gettime(CLOCK)
        is_first = duty[_FIRST] == me
        late = 0.0 if is_first else _late(every)
        if now >= self._due(every) + late - _EARLY or now < self._last[0]:
            self._last[0], duty[_FIRST] = now, me
            if duty[_SECOND] == me:
                duty[_SECOND] = 0
            return True
        if not is_first and (duty[_SECOND] in (me, 0) or not 0 <= now - duty[_WATCHED] < 2 * every):
            duty[_SECOND], duty[_WATCHED] = me, now
        return False

    def wake_in(self, every: float) -> float:
        """Seconds after which the caller is to try to take it."""
        duty, me = self._duty, pid()
        left = self.due_in(every)
        if duty[_FIRST] == me:
            return max(0.0, left)
        left += _late(every)
        if duty[_SECOND] in (me, 0) or left < 0:
            return max(0.0, left)
        return aligned(every * _OTHERS)

    def due_in(self, every: float) -> float:
        """Seconds after which it is to be taken; negative: it is late."""
        return self._due(every) - time.clock_gettime(CLOCK)

    async def wait(self, every: float) -> None:
        """Returns when it is the caller's turn."""
        while True:
            await asyncio.sleep(self.wake_in(every))
            if self.take(every):
                return

    def _due(self, every: float) -> float:
        at, beat = self._last[0] + every * _OWN, _beat(every)
        return math.floor((at + 2 * _EARLY) / beat) * beat if beat else at


def _beat(every: float) -> float:
    return min(_BEAT, every * _OWN)


def _late(every: float) -> float:
    return _beat(every) * _LATE


def aligned(seconds: float) -> float:
    """Seconds, a little fewer where they are many: so that what a process does every second or seldomer it does at one
    go, and sleeps in between."""
    if seconds < 1:
        return seconds
    every, now = math.floor(seconds), time.monotonic()
    shorter = seconds - (now + seconds - pid() * 0.618) % every
    return shorter if shorter > 0.01 else shorter + every
