"""Slots: of a machine's processes that wait for the same time, one asks when it has come.

Whoever asks is told when something is due next: a limit's next slot, a retry, a schedule. Six that all ask then are one
that gets it and five that ask in vain, at every slot. They share a page of memory that is made before they are forked:
who was told last asks, a second is awake a few milliseconds later and sees whether it did, the others look seldom. As
with turns, nobody holds anything. A page is of one machine: another has its own, and asks, too.
"""

import math
import time

from queueing.clock import CLOCK
from queueing.turns import pid, shared

AFTER = 0.001
"""Seconds after what is due at which it is surely so."""

_LATE, _VERY_LATE = 0.004, 1.0
"""Seconds after which a slot that nobody asked for is the second's, and any other's."""

_ASKED, _DUE, _FIRST, _SECOND, _WATCHED = range(5)
"""When somebody asked who is not answered yet; what is due next; the processes; when the second looked."""


class Slots:
    """Of those who have it from before the fork; made later, it is of one process, which always asks."""

    def __init__(self) -> None:
        self._page = shared(5)
        self._page[_DUE] = math.inf

    def ask(self) -> None:
        """The caller asks now, and has room for what it may be given."""
        self._page[_ASKED] = time.clock_gettime(CLOCK)

    def told(self, due: float | None, *, has_room: bool, may_take: bool) -> bool:
        """It was answered that something is due after so many seconds; None: nothing is.

        has_room: it would have taken more. may_take: it was given something, or holds nothing. Another may have reached
        what it may have of one bot, or of bulk: that it was given nothing says nothing to others.
        → whether one of those who wait will ask in time. If not, the caller has to, for itself.
        """
        page, me, now = self._page, pid(), time.clock_gettime(CLOCK)
        page[_ASKED] = 0
        at = math.inf if due is None else now + due + AFTER
        is_news = may_take or at < page[_DUE]
        if is_news:
            page[_DUE] = at
        is_seen_to = is_news or page[_DUE] > now
        if has_room and is_news:
            page[_FIRST] = me
        elif page[_FIRST] == me and not (has_room and is_seen_to):
            page[_FIRST] = 0
        if page[_SECOND] == me:
            page[_SECOND] = 0
        return is_seen_to

    def wake_in(self) -> float:
        """Seconds after which the caller is to try to take what is due."""
        page, me, now = self._page, pid(), time.clock_gettime(CLOCK)
        if page[_FIRST] == me:
            return max(0.0, page[_DUE] - now)
        late = _LATE if page[_SECOND] in (me, 0) else _VERY_LATE
        return max(0.0, max(page[_DUE], page[_ASKED]) + late - now)

    def take(self) -> bool:
        """Whether the caller is to ask."""
        page, me, now = self._page, pid(), time.clock_gettime(CLOCK)
        if page[_FIRST] == me:
            return now >= page[_DUE]
        if page[_SECOND] in (me, 0) or not 0 <= now - page[_WATCHED] < _VERY_LATE:
            page[_SECOND], page[_WATCHED] = me, now
        late = _LATE if page[_SECOND] == me else _VERY_LATE
        return now >= max(page[_DUE], page[_ASKED]) + late
