"""Subscribers: the chats that get a bot's broadcasts. Whoever cannot be reached any more is none from then on."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, cast

from redis.asyncio import Redis

from bot.store import QUEUE
from queueing.events import Buried, Event
from queueing.keys import Keys
from queueing.message import canonical_chat
from queueing.scripts import mapped_errors

UNREACHABLE: Final = frozenset({"blocked", "chat_not_found", "forbidden"})
"""Classes of errors (bot/outcomes.py) after which nothing will ever arrive in a chat."""


class Subscribers:
    """Those of one bot, for all processes; an observer of the queue.

    Every other method raises QueueUnavailable and, while Redis has no memory left, QueueFull. A chat is given by any of
    its names; MalformedMessage for what is none.
    """

    def __init__(self, redis: "Redis", bot: str) -> None:
        self._redis = redis
        self._bot = bot
        self._keys = Keys(QUEUE)
        self._gone: set[tuple[str, str]] = set()
        self._someone_gone = asyncio.Event()

    async def add(self, chat: int | str) -> bool:
        """Whether it was none before."""
        with mapped_errors():
            return bool(await self._redis.sadd(self._key(self._bot), canonical_chat(chat)))

    async def remove(self, chat: int | str) -> bool:
        """Whether it was one."""
        with mapped_errors():
            return bool(await self._redis.srem(self._key(self._bot), canonical_chat(chat)))

    async def has(self, chat: int | str) -> bool:
        """Whether it is one."""
        with mapped_errors():
            found = self._redis.sismember(self._key(self._bot), canonical_chat(chat))
            return bool(await cast(Awaitable[int], found))

    async def count(self) -> int:
        """How many there are."""
        with mapped_errors():
            return await self._redis.scard(self._key(self._bot))

    def __call__(self, event: Event, /) -> None:
        """Observes the queue: remembers who cannot be reached, whatever was sent, until `remove_gone`."""
        match event:
            case Buried(message, reason) if message is not None and reason in UNREACHABLE:
                self._gone.add((message.bot, message.chat))
                self._someone_gone.set()

    async def remove_gone(self) -> None:
        """Unsubscribes those that turned out to be out of reach."""
        while self._gone:
            gone = list(self._gone)[:1000]
            with mapped_errors():
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for bot, chat in gone:
                        pipeline.srem(self._key(bot), chat)
                    await pipeline.execute()
            self._gone.difference_update(gone)

    async def wait_for_gone(self, timeout: float) -> None:
        """Returns once `remove_gone` has something to do, and after `timeout` seconds if it had and could not. So it is
        done at once: a process that dies before forgets who was gone, until the next message to them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout if self._gone else None):
                await self._someone_gone.wait()
        self._someone_gone.clear()

    def _key(self, bot: str) -> str:
        return self._keys.subscribers(bot)
