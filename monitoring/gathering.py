"""Gathering: what is counted for each message is added up here, and written to prometheus_client's numbers together.

One of its numbers takes half a microsecond to 1.5 to change, and a message changes seven of them; to add here takes a
tenth. A scrape that another process of the host answers reads what is written, and so may lack what happened since.
"""

import asyncio
from bisect import bisect_left

from prometheus_client import Counter, Histogram

WITHIN = 0.05
"""Seconds after which at the latest a number is written."""


class GatheredCounter:
    """counter: with its labels, if it has any."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._more = 0

    def inc(self) -> None:
        self._more += 1

    def write(self) -> None:
        if self._more:
            self._counter.inc(self._more)
            self._more = 0


class GatheredHistogram:
    """histogram: with its labels, if it has any."""

    def __init__(self, histogram: Histogram) -> None:
        self._bounds: list[float] = histogram._upper_bounds  # noqa: SLF001
        self._buckets = histogram._buckets  # noqa: SLF001
        self._all = histogram._sum  # noqa: SLF001
        self._more = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        self._sum += amount
        self._more[bisect_left(self._bounds, amount)] += 1

    def write(self) -> None:
        for index, more in enumerate(self._more):
            if more:
                self._buckets[index].inc(more)
                self._more[index] = 0
        if self._sum:
            self._all.inc(self._sum)
            self._sum = 0.0


class Gathering:
    """The gathered numbers of a process."""

    def __init__(self) -> None:
        self._numbers: list[GatheredCounter | GatheredHistogram] = []
        self._timer: asyncio.TimerHandle | None = None

    def counter(self, counter: Counter) -> GatheredCounter:
        self._numbers.append(gathered := GatheredCounter(counter))
        return gathered

    def histogram(self, histogram: Histogram) -> GatheredHistogram:
        self._numbers.append(gathered := GatheredHistogram(histogram))
        return gathered

    def note(self) -> None:
        """Something was added: it is written soon or, where no event loop runs, at once."""
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(WITHIN, self.write)
            except RuntimeError:
                self.write()

    def write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for number in self._numbers:
            number.write()
