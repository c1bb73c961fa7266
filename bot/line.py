"""The line of those who ask the chat backend: a few are answered at once, by all processes together; the others wait.

A place is kept by asking for it again: that of a process that died is free after GONE seconds. It is held by a ticket,
and whoever comes again with the same ticket, in another process too, has its place again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, Protocol, Self

from redis.asyncio import Redis

from bot.store import line_keys
from queueing.errors import QueueFull, QueueUnavailable
from queueing.scripts import mapped_errors
from queueing.tasks import end

_logger = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""Questions that are answered at the same time: about what a server with one model does well."""

LONGEST: Final = 28
"""Those that wait. Each of them occupies one of a process's handlers: there are to be some for everything else."""

GONE: Final = 10.0
_LOOK_EVERY: Final = 1.0  # seconds


class Line(Protocol):
    """The methods raise QueueUnavailable, and QueueFull while Redis has no memory left."""

    async def place(self, ticket: str) -> int | None:
        """Takes a place, or keeps it: 0: it is its turn; 1: it is the first of those that wait; None: too many do."""

    async def leave(self, ticket: str) -> None:
        """Gives the place up. One that has none is fine, too."""

    async def length(self) -> int:
        """How many have a place, those that are being answered included."""


class MemoryLine:
    """That of one process."""

    def __init__(self) -> None:
        self._tickets: dict[str, None] = {}

    async def place(self, ticket: str) -> int | None:
        if ticket not in self._tickets and len(self._tickets) >= AT_ONCE + LONGEST:
            return None
        self._tickets.setdefault(ticket)
        return _waiting(list(self._tickets), ticket)

    async def leave(self, ticket: str) -> None:
        self._tickets.pop(ticket, None)

    async def length(self) -> int:
        return len(self._tickets)


class RedisLine:
    """That of all processes of a bot: tickets by when they came, and when each was last heard of."""

    def __init__(self, redis: "Redis", bot: str) -> None:
        self._redis = redis
        self._came, self._heard = line_keys(bot)

    async def place(self, ticket: str) -> int | None:
        with mapped_errors():
            now = await self._now()
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.zadd(self._came, {ticket: now}, nx=True)
                pipeline.zadd(self._heard, {ticket: now})
                for key in (self._came, self._heard):
                    pipeline.expire(key, 60)
                await pipeline.execute()
        tickets = await self._tickets(now)
        if ticket not in tickets[: AT_ONCE + LONGEST]:
            await self.leave(ticket)
            return None
        return _waiting(tickets, ticket)

    async def leave(self, ticket: str) -> None:
        with mapped_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.zrem(self._came, ticket)
                pipeline.zrem(self._heard, ticket)
                await pipeline.execute()

    async def length(self) -> int:
        with mapped_errors():
            now = await self._now()
        return len(await self._tickets(now))

    async def _now(self) -> float:
        seconds, microseconds = await self._redis.time()
        return seconds + microseconds / 1e6

    async def _tickets(self, now: float) -> list[str]:
        """Those that are held, in order. The others go."""
        with mapped_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.zrange(self._came, 0, -1)
                pipeline.zrange(self._heard, now - GONE, "+inf", byscore=True)
                came, heard = await pipeline.execute()
            held = set(heard)
            if gone := [ticket for ticket in came if ticket not in held]:
                await self._redis.zrem(self._came, *gone)
        return [ticket.decode() for ticket in came if ticket in held]


class Place:
    """A place in a line, kept while this is entered. ahead: as Line.place says; None: there was none to be had."""

    def __init__(self, line: Line, ticket: str) -> None:
        self.ahead: int | None = None
        self._line = line
        self._ticket = ticket
        self._moved = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.ahead = await self._line.place(self._ticket)
        if self.ahead is not None:
            self._keeping = asyncio.create_task(self._keep(), name=f"place-{self._ticket}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._keeping)
        with suppress(QueueUnavailable, QueueFull):  # it is free soon in any case
            await self._line.leave(self._ticket)

    async def moves(self) -> AsyncIterator[int]:
        """Each place that it has after this, down to 0."""
        while self.ahead:
            self._moved.clear()
            await self._moved.wait()
            yield self.ahead or 0

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                ahead = await self._line.place(self._ticket)
            except (QueueUnavailable, QueueFull) as error:
                _logger.debug("a place in the line could not be renewed: %s", error)
                continue
            # None: it was away for too long, and too many came meanwhile. Whoever was let in once is not sent away.
            if ahead is not None and ahead != self.ahead:
                self.ahead = ahead
                self._moved.set()


def _waiting(tickets: list[str], ticket: str) -> int:
    return max(0, tickets.index(ticket) - AT_ONCE + 1)
