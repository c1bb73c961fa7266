"""Precedence: to take updates in goes before handling them: Telegram waits for the one, and the other is safe in Redis.

Both need the same event loops, cores and server. How much of these is left shows in the time that it takes to take an
update in: as long as that is longer than it has been at best, a process begins no more updates than it must.

Where it is the way to the server that takes now longer, now shorter, that would hold up handling for ever, and to
nobody's good. A process that is held up for long, and yet wakes up in time, begins as many as come in.
"""

import asyncio
import time
from contextlib import AbstractContextManager
from typing import Final

from bot.runner import AT_ONCE

_FEW: Final = 2
"""Updates that are begun at a time while others come in: about two milliseconds of a core."""

_LATELY: Final = 0.5
"""Seconds after one came in for which more are expected."""

_TIMES: Final = 10
"""For as many times what one took too long, no handling is begun."""

_LONGEST: Final = 0.05
"""Seconds after which one is begun whatever comes in: handling slows down, and never stands still."""

_LATE: Final = 0.002
"""Seconds by which a process that has a core to itself when it needs one wakes up too late at most."""

_FORGET: Final = 1.0001
"""By how much the best time grows with each that comes in: the server may have moved away."""


class Precedence:
    """Of one process."""

    def __init__(self) -> None:
        self._best = 1.0
        self._last = -_LATELY
        self._quiet_until = 0.0
        self._came_in = 0
        self._behind = 0
        self._even = time.monotonic()
        self._late = -_LATELY

    def taking_in(self) -> "_TakingIn":
        """To be entered while an update is being taken in."""
        return _TakingIn(self)

    def note(self, begun: float) -> None:
        """One has been taken in, or not, that was begun at this time.monotonic()."""
        before, self._last = self._last, time.monotonic()
        self._came_in += 1
        took = self._last - begun
        self._best = min(took, self._best * _FORGET)
        if begun < before + _LATELY:  # a single one has nobody to let pass
            quiet = min(_TIMES * (took - self._best), _LATELY)
            self._quiet_until = max(self._quiet_until, self._last + quiet)

    async def turn(self) -> int:
        """Waits until updates may be begun. → how many at most"""
        begun = now = time.monotonic()
        while (ends := min(self._quiet_until, begun + _LONGEST)) > now:
            await asyncio.sleep(ends - now)
            now = time.monotonic()
            if now > ends + _LATE:
                self._late = now
        most = self._most(now)
        self._behind = max(0, self._behind + self._came_in - most)
        self._came_in = 0
        if not self._behind:
            self._even = now
        return most

    def _most(self, now: float) -> int:
        if now > self._last + _LATELY:
            return AT_ONCE
        if now >= self._quiet_until:
            return _FEW
        if now < max(self._even, self._late) + _LATELY:
            return 1
        return min(self._came_in + _FEW, AT_ONCE)


class _TakingIn(AbstractContextManager[None]):
    """Of contextlib's decorator, half of the time would be its own."""

    __slots__ = ("_begun", "_precedence")

    def __init__(self, precedence: Precedence) -> None:
        self._precedence = precedence
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._precedence.note(self._begun)
