"""What a client's `Idempotency-Key` was first given with, so that it cannot be given with something else."""

import time
from typing import Protocol, cast

from redis.asyncio import Redis

from bot.store import idempotency_key
from queueing.scripts import mapped_errors

_MOST = 100_000
"""Keys that one process remembers when there is no Redis: about 25 MB."""


class FirstBodies(Protocol):
    """Bodies of keys, as fingerprints. A key is forgotten some time after its last use."""

    async def first(self, key: str, body: str) -> str:
        """The body that the key was first given with: this one, unless another came before.

        Raises QueueUnavailable, and QueueFull while Redis has no memory left.
        """


class RedisFirstBodies:
    """Shared by all processes. keep: seconds for which an unused key is remembered."""

    def __init__(self, redis: "Redis", keep: float) -> None:
        self._redis = redis
        self._keep_ms = round(keep * 1000)

    async def first(self, key: str, body: str) -> str:
        name = idempotency_key(key)
        with mapped_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(name, body, nx=True)
                pipeline.getex(name, px=self._keep_ms)
                _, first = await pipeline.execute()
        return cast(bytes, first).decode()


class MemoryFirstBodies:
    """The same within one process; it remembers the 100,000 keys used last."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._bodies: dict[str, tuple[str, float]] = {}

    async def first(self, key: str, body: str) -> str:
        now = time.monotonic()
        first, until = self._bodies.pop(key, (body, now + self._keep))
        if until <= now:
            first = body
        self._bodies[key] = (first, now + self._keep)
        if len(self._bodies) > _MOST:
            del self._bodies[next(iter(self._bodies))]
        return first
