"""Where messages wait that are in no lane yet, within one process: the same as lua/drain.lua."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from queueing.message import Message, Priority

LOOK_AHEAD = 1000
"""Bulk messages in lanes at most; the others wait at a door of their own, so that nobody stands behind them."""

_SCHEDULED_MOST = 100
"""Messages that are due, taken in one call."""


class _Door(asyncio.Queue[Message]):
    """What waits in it can be looked at."""

    _queue: deque[Message]

    def __iter__(self) -> Iterator[Message]:
        return iter(self._queue)

    def take(self, most: int) -> list[Message]:
        return [self.get_nowait() for _ in range(min(most, self.qsize()))]


class Doors:
    """The front door, the door of bulk, and what is for later. Times: Unix seconds."""

    def __init__(self) -> None:
        self._front = _Door()
        self._bulk = _Door()
        self._later: list[tuple[float, int, Message]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return self.waiting + self.scheduled

    @property
    def waiting(self) -> int:
        return self._front.qsize() + self._bulk.qsize()

    @property
    def scheduled(self) -> int:
        return len(self._later)

    @property
    def more(self) -> bool:
        """Whether anything stands at the front door."""
        return not self._front.empty()

    def __iter__(self) -> Iterator[Message]:
        """What is not for later, in its order."""
        return itertools.chain(self._front, self._bulk)

    def next_due(self, wall: float) -> float | None:
        """Seconds until the next message is due."""
        return max(0.0, self._later[0][0] - wall) if self._later else None

    def put(self, message: Message) -> None:
        # What is for later must not stand behind a backlog of bulk until then.
        bulk = message.priority is Priority.BULK and message.send_at is None
        (self._bulk if bulk else self._front).put_nowait(message)

    def put_off(self, message: Message) -> None:
        """It is for later."""
        # The number keeps what is due at the same time in its order.
        heapq.heappush(self._later, (message.send_at or 0.0, next(self._numbers), message))

    def drain(self, most: int, laned_bulk: int, wall: float) -> list[Message]:
        """What goes into lanes now, in this order: at most `most` from the doors, and what is due.

        laned_bulk: bulk messages that are in lanes already.
        """
        front = self._front.take(most)
        into_lanes: list[Message] = []
        for message in (*self._take_due(wall), *front):
            if is_later(message, wall):
                self.put_off(message)
            elif message.priority is Priority.BULK:
                self._bulk.put_nowait(message)
            else:
                into_lanes.append(message)
        room = min(LOOK_AHEAD - laned_bulk, most - len(front))
        return into_lanes + self._bulk.take(max(0, room))

    def _take_due(self, wall: float) -> Iterator[Message]:
        for _ in range(_SCHEDULED_MOST):
            if not self._later or self._later[0][0] > wall:
                return
            _, _, message = heapq.heappop(self._later)
            # For the order it counts as accepted now.
            yield replace(message, accepted=max(message.accepted or 0.0, message.send_at or 0.0))

    def empty(self) -> tuple[list[Message], list[Message]]:
        """Takes everything. → what waits, then what is for later; each in its order."""
        waiting = self._front.take(self._front.qsize()) + self._bulk.take(self._bulk.qsize())
        later, self._later = [message for _, _, message in sorted(self._later, key=lambda entry: entry[:2])], []
        return waiting, later


def is_later(message: Message, wall: float) -> bool:
    return message.send_at is not None and message.send_at > wall
