"""Where messages wait that are in no lane yet, within one process: the same as lua/drain.lua."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from queueing.message import Message, Priority

LOOK_AHEAD = 1000
"""Bulk messages of a bot in lanes, while any of them could be served; the others wait at a door of their bot's own, so
that nobody stands behind them."""

_DOORS_LOOKED_AT = 10
"""Of bulk, in one call."""

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
    """The front door, a door of bulk for each bot that has any, and what is for later. Times: Unix seconds."""

    def __init__(self) -> None:
        self._front = _Door()
        # The one that was looked at longest ago comes first; a new one stands behind those that wait already.
        self._bulk: dict[str, _Door] = {}
        self._bulk_waiting = 0
        self._later: list[tuple[float, int, Message]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return self.waiting + self.scheduled

    @property
    def waiting(self) -> int:
        return self._front.qsize() + self._bulk_waiting

    @property
    def scheduled(self) -> int:
        return len(self._later)

    @property
    def more(self) -> bool:
        """Whether anything stands at the front door."""
        return not self._front.empty()

    def before(self, bot: str) -> tuple[Iterable[Message], Iterable[Message]]:
        """What is not for later, in its order: at the front door, and of this bot's bulk."""
        return self._front, self._bulk.get(bot, ())

    def next_due(self, wall: float) -> float | None:
        """Seconds until the next message is due."""
        return max(0.0, self._later[0][0] - wall) if self._later else None

    def put(self, message: Message) -> None:
        # What is for later must not stand behind a backlog of bulk until then.
        bulk = message.priority is Priority.BULK and message.send_at is None
        if bulk:
            self._put_bulk(message)
        else:
            self._front.put_nowait(message)

    def _put_bulk(self, message: Message) -> None:
        self._bulk.setdefault(message.bot, _Door()).put_nowait(message)
        self._bulk_waiting += 1

    def put_off(self, message: Message) -> None:
        """It is for later."""
        # The number keeps what is due at the same time in its order.
        heapq.heappush(self._later, (message.send_at or 0.0, next(self._numbers), message))

    def drain(self, most: int, ahead: Callable[[str], int], wall: float) -> Iterator[Message]:
        """What goes into lanes now, in this order: at most `most` from the doors, and what is due. Each has to be in
        its lane before the next is asked for.

        ahead: bot → its bulk messages that are in lanes; 0 while none of them could be served, whatever the bot may.
        """
        front = self._front.take(most)
        for message in (*self._take_due(wall), *front):
            if is_later(message, wall):
                self.put_off(message)
            elif message.priority is Priority.BULK:
                self._put_bulk(message)
            else:
                yield message
        yield from self._take_bulk(most - len(front), ahead)

    def _take_bulk(self, most: int, ahead: Callable[[str], int]) -> Iterator[Message]:
        for bot in list(itertools.islice(self._bulk, _DOORS_LOOKED_AT)):
            if not most:
                return
            door = self._bulk[bot]
            while most and not door.empty() and ahead(bot) < LOOK_AHEAD:
                most -= 1
                self._bulk_waiting -= 1
                yield door.get_nowait()
            del self._bulk[bot]
            if not door.empty():
                self._bulk[bot] = door

    def _take_due(self, wall: float) -> Iterator[Message]:
        for _ in range(_SCHEDULED_MOST):
            if not self._later or self._later[0][0] > wall:
                return
            _, _, message = heapq.heappop(self._later)
            # For the order it counts as accepted now.
            yield message.changed(accepted=max(message.accepted or 0.0, message.send_at or 0.0))

    def empty(self) -> tuple[list[Message], list[Message]]:
        """Takes everything. → what waits, then what is for later; each in its order."""
        waiting = [message for door in (self._front, *self._bulk.values()) for message in door.take(door.qsize())]
        self._bulk, self._bulk_waiting = {}, 0
        later, self._later = [message for _, _, message in sorted(self._later, key=lambda entry: entry[:2])], []
        return waiting, later


def is_later(message: Message, wall: float) -> bool:
    return message.send_at is not None and message.send_at > wall
