"""Turns: what one of a machine's processes does every so often, for all of them.

Six idle processes that all look do six times the work of one, and find no more. They share a page of memory that is
made before they are forked. One, the first to come, does it in time; a second watches that it does, and is the first as
soon as it does not. The others look at the two once in a while. Nobody holds anything: a process that is stopped, or
dead, takes no turn, and is replaced in time; only if both are, some turns are missed. One that took its turn in vain
says so, and steps back.
"""

import asyncio
import mmap
import os
import time

from queueing.clock import CLOCK

_OWN, _LATE = 0.9, 1.0
"""Of the time between two turns: when the first takes the next, and when it is late."""

_OTHERS = 4
"""Turns after which the others look."""

_LAST, _FIRST, _SECOND, _WATCHED = range(4)
"""When the last turn was; the processes; when the second looked."""


class Turn:
    """Of those who have it from before the fork; made later, it is of one process, whose turn it is every time."""

    def __init__(self) -> None:
        self._page = memoryview(mmap.mmap(-1, 4 * 8)).cast("d")
        self.took()

    def took(self) -> None:
        """What would be done was done now, by whomever."""
        self._page[_LAST] = time.clock_gettime(CLOCK)

    def failed(self) -> None:
        """The caller took it and could not do it: its next turn is another's, as long as there is one."""
        if self._page[_FIRST] == os.getpid():
            self._page[_FIRST] = 0

    def take(self, every: float) -> bool:
        """Whether it is the caller's now. It is done every so many seconds, or a little more often."""
        page, me, now = self._page, os.getpid(), time.clock_gettime(CLOCK)
        is_first = page[_FIRST] == me
        if not 0 <= now - page[_LAST] < every * (_OWN if is_first else _LATE):
            page[_LAST], page[_FIRST] = now, me
            if page[_SECOND] == me:
                page[_SECOND] = 0
            return True
        if not is_first and (page[_SECOND] == me or not 0 <= now - page[_WATCHED] < 2 * every):
            page[_SECOND], page[_WATCHED] = me, now
        return False

    def wake_in(self, every: float) -> float:
        """Seconds after which the caller is to try to take it."""
        page, me = self._page, os.getpid()
        age = time.clock_gettime(CLOCK) - page[_LAST]
        if page[_FIRST] == me:
            return max(0.0, every * _OWN - age)
        if page[_SECOND] in (me, 0) or age > every:
            return max(0.0, every * _LATE - age)
        return aligned(every * _OTHERS)

    async def wait(self, every: float) -> None:
        """Returns when it is the caller's turn."""
        while True:
            await asyncio.sleep(self.wake_in(every))
            if self.take(every):
                return


def aligned(seconds: float) -> float:
    """Seconds, a little fewer where they are many: so that what a process does every second or seldomer it does at one
    go, and sleeps in between."""
    if seconds < 1:
        return seconds
    now = time.monotonic()
    shorter = seconds - (now + seconds - os.getpid() * 0.618) % 1.0
    return shorter if shorter > 0.01 else shorter + 1.0
