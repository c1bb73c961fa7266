"""How many left in the last period, exactly; and how evenly. Pure: the time is given with every call.

Times are seconds on one clock that never goes back.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence

from queueing.limits import Rate

CATCH_UP = 0.050
"""Seconds of slots that a pace may catch up when nobody asked in time; one slot at least."""


class SlidingLog:
    """At most `rate.count` in any window of `rate.period` seconds, and as many as that.

    It keeps when the last `count` left; the next may leave a period after the first of them. A window takes in its
    beginning and not its end.
    """

    def __init__(self, rate: Rate) -> None:
        self._period = rate.period
        self._times: deque[float] = deque(maxlen=rate.count)

    @property
    def free_at(self) -> float:
        """When one more may leave; -inf: at any time."""
        return self._times[0] + self._period if len(self._times) == self._times.maxlen else -math.inf

    @property
    def over_at(self) -> float:
        """When all of it is past, and the log says nothing any more."""
        return self._times[-1] + self._period if self._times else -math.inf

    def add(self, now: float) -> None:
        """One leaves; not before `free_at`."""
        self._times.append(now)

    def take_back(self, at: float) -> None:
        """One that was to leave at this time did not."""
        for place in reversed(range(len(self._times))):
            if self._times[place] == at:
                del self._times[place]
                return

    @property
    def times(self) -> Sequence[float]:
        """When the last ones left."""
        return self._times

    def merge(self, others: Iterable[float]) -> None:
        """What left at these times left by this log, too."""
        times = sorted([*self._times, *others])
        self._times.clear()
        self._times.extend(times)


class Pace:
    """Spreads what a log lets through: a slot every `period / count` seconds, so that the next one is never far.

    Slots that nobody took are lost but for the last ones, of CATCH_UP seconds or one.
    """

    def __init__(self, rate: Rate) -> None:
        self._slot = rate.period / rate.count
        self.free_at = -math.inf

    def add(self, now: float) -> None:
        self.free_at = max(self.free_at, now - max(CATCH_UP, self._slot)) + self._slot

    def take_back(self) -> None:
        """The slot taken last, or any other: they are alike."""
        self.free_at -= self._slot
