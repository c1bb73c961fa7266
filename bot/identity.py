"""Who the bot is: getMe's answer, asked for by one process and read by the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from redis.asyncio import Redis
from telegram.error import TelegramError

from bot.patience import explain, pause_after
from bot.queued_bot import GetMeCache
from bot.store import me_key
from queueing.errors import QueueError
from queueing.scripts import mapped_errors

_logger = logging.getLogger(__name__)

_KEPT = 24 * 3600
"""Seconds for which the answer is kept: so long may a new name of the bot go unnoticed."""

_LOOK_AGAIN = 0.2
"""Seconds between looks at what another process may have found out."""


def shared_get_me(redis: "Redis", bot: str) -> GetMeCache:
    """The answer in Redis. Its methods raise QueueUnavailable."""
    key = me_key(bot)

    async def load() -> str | None:
        with mapped_errors():
            answer = cast(bytes | None, await redis.get(key))
        return None if answer is None else answer.decode()

    async def save(answer: str) -> None:
        with mapped_errors():
            await redis.set(key, answer, ex=_KEPT)

    return GetMeCache(load, save)


def own_get_me() -> GetMeCache:
    """No cache: each process asks for itself."""

    async def load() -> str | None:
        return None

    async def save(_answer: str) -> None:
        pass

    return GetMeCache(load, save)


class Identity:
    """Finds out who the bot is, however long Telegram or Redis are away.

    initialize: the application's; needs getMe's answer, and asks Telegram for it when the cache has none.
    may_ask:    whether this process is the one that asks Telegram.
    problem:    why the bot is not known yet, in words; None once it is.
    """

    def __init__(
        self, initialize: Callable[[], Awaitable[None]], cache: GetMeCache, may_ask: Callable[[], bool]
    ) -> None:
        self.problem: str | None = "nobody has asked Telegram yet who the bot is"
        self._initialize = initialize
        self._cache = cache
        self._may_ask = may_ask

    async def learn(self) -> None:
        """Returns when the bot is known and the application initialized."""
        failures = 0
        while self.problem is not None:
            pause = _LOOK_AGAIN
            try:
                if self._may_ask() or await self._cache.load():
                    await self._initialize()
                    self.problem = None
                    return
            except TelegramError as error:
                failures += 1
                pause = pause_after(error, failures)
                self.problem = f"getMe does not work: {explain(error)}"
                _logger.warning("%s; next try in %.1f s", self.problem, pause)
            except QueueError as error:
                self.problem = f"it cannot be looked up who the bot is: {error}"
            await asyncio.sleep(pause)
