"""Which updates were handled: Telegram may deliver one twice, and to two processes at once.

An update is first *handling*, under a lease that its process renews, then *done* for 25 hours (Telegram itself repeats
an update for 24). What happens when a process dies in the middle: before `done`, the lease ends by itself, at most
15 s later; until then Telegram's repetition is told to come again, and after that the update is handled anew, from its
beginning. What its handlers had queued by then is queued a second time. After `done`, it is never handled again.
"""

import contextlib
from enum import Enum, auto
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockNotOwnedError

from bot.store import update_key, updates_key
from queueing.scripts import mapped_errors

HANDLING_LEASE = 15.0
"""Seconds until an update whose process died may be handled by another."""

_REMEMBERED = 25 * 3600
_BLOCK = 4096
"""Telegram numbers a bot's updates one after the other, so a bitmap of 512 bytes holds a block of them."""

_MOST = 100_000
"""Updates that one process remembers when there is no Redis: about 10 MB."""


class Standing(Enum):
    """What `begin` found: NEW is ours to handle now, HANDLING is in some process's hands, DONE was handled."""

    NEW = auto()
    HANDLING = auto()
    DONE = auto()


class UpdateLog(Protocol):
    """The updates of one bot. All methods raise QueueUnavailable, and QueueFull while Redis has no memory left."""

    async def begin(self, update_id: int) -> Standing:
        """Takes the update, if nobody has it."""

    async def extend(self, update_id: int) -> bool:
        """Renews the lease on an update that takes long. False: it was ours too long ago, and may be another's."""

    async def done(self, update_id: int) -> None:
        """The update was handled, and everything that came of it is safe."""

    async def abandon(self, update_id: int) -> None:
        """The update was not handled; whoever gets it next may try at once."""


class RedisUpdateLog:
    """Shared by all processes: a lock for what is being handled, a bit for what is done."""

    def __init__(self, redis: "Redis", bot: str) -> None:
        self._redis = redis
        self._bot = bot
        self._held: dict[int, Lock] = {}

    async def begin(self, update_id: int) -> Standing:
        lock = self._redis.lock(update_key(self._bot, update_id), timeout=HANDLING_LEASE, thread_local=False)
        block, bit = divmod(update_id, _BLOCK)
        with mapped_errors():
            if not await lock.acquire(blocking=False):
                return Standing.HANDLING
            # Looked at under the lock, so that `done` of another process cannot come in between.
            if await self._redis.getbit(updates_key(self._bot, block), bit):
                await lock.release()
                return Standing.DONE
        self._held[update_id] = lock
        return Standing.NEW

    async def extend(self, update_id: int) -> bool:
        with mapped_errors():
            try:
                return bool(await self._held[update_id].reacquire())
            except LockNotOwnedError:
                return False

    async def done(self, update_id: int) -> None:
        lock = self._held.pop(update_id)
        key = updates_key(self._bot, update_id // _BLOCK)
        with mapped_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.setbit(key, update_id % _BLOCK, 1)
                pipeline.expire(key, _REMEMBERED)
                await pipeline.execute()
        await self._release(lock)

    async def abandon(self, update_id: int) -> None:
        await self._release(self._held.pop(update_id))

    async def _release(self, lock: Lock) -> None:
        # Not owned: the lease had ended, so there is nothing to give back.
        with mapped_errors(), contextlib.suppress(LockNotOwnedError):
            await lock.release()


class MemoryUpdateLog:
    """The same within one process; it remembers the newest 100,000 updates."""

    def __init__(self) -> None:
        self._handling: set[int] = set()
        self._done: dict[int, None] = {}

    async def begin(self, update_id: int) -> Standing:
        if update_id in self._handling:
            return Standing.HANDLING
        if update_id in self._done:
            return Standing.DONE
        self._handling.add(update_id)
        return Standing.NEW

    async def extend(self, update_id: int) -> bool:
        return update_id in self._handling

    async def done(self, update_id: int) -> None:
        self._handling.discard(update_id)
        self._done[update_id] = None
        if len(self._done) > _MOST:
            del self._done[next(iter(self._done))]

    async def abandon(self, update_id: int) -> None:
        self._handling.discard(update_id)
