"""Names by time, the earliest first: what a sorted set is on the server, within a process."""

import heapq
import itertools
from collections.abc import Iterator

_STALE = 64
"""Entries that may be out of date, beside as many as are good, before they are cleared away."""


class Schedule:
    """Every name has one time (seconds on any clock). Equal times: in the order in which they were put.

    `put`, `discard` and `pop` cost O(log n): an entry that was replaced or discarded stays in the heap until it gets to
    its top, or until such entries are the larger part.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def put(self, name: str, at: float) -> None:
        """The name with this time, whatever it had before."""
        order = next(self._order)
        self._entries[name] = (at, order)
        heapq.heappush(self._heap, (at, order, name))
        if len(self._heap) > 2 * len(self._entries) + _STALE:
            self._heap = [(at, order, name) for name, (at, order) in self._entries.items()]
            heapq.heapify(self._heap)

    def discard(self, name: str) -> None:
        self._entries.pop(name, None)

    def first(self) -> tuple[float, str] | None:
        """The earliest time and its name; None if there is no name."""
        while self._heap:
            at, order, name = self._heap[0]
            if self._entries.get(name) == (at, order):
                return at, name
            heapq.heappop(self._heap)
        return None

    def rank(self, name: str) -> int:
        """How many come before this one; O(n)."""
        own = self._entries.get(name)
        return sum(entry < own for entry in self._entries.values()) if own else 0

    def pop(self) -> tuple[float, str] | None:
        """As `first`, and takes it away."""
        first = self.first()
        if first:
            heapq.heappop(self._heap)
            del self._entries[first[1]]
        return first

    def pop_due(self, now: float) -> str | None:
        """Takes the first name away whose time has come."""
        first = self.first()
        if first is None or first[0] > now:
            return None
        self.pop()
        return first[1]
