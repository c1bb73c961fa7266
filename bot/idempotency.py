"""What a client's `Idempotency-Key` was first given with, so that it cannot be given with something else."""

import hashlib
import time
from dataclasses import dataclass
from typing import Protocol, cast

import orjson
from redis.asyncio import Redis
from starlette.requests import Request

from bot.store import idempotency_key
from bot.submission import Invalid
from queueing.scripts import mapped_errors

_MOST = 100_000
"""Keys that one process remembers when there is no Redis: about 25 MB."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A call that may be made again: hashes of the client's `Idempotency-Key` and of the body that came with it."""

    key: str
    body: str

    @classmethod
    def of(cls, client: str, request: Request, content: object) -> "Repeat | None":
        """None without such a header. Raises Invalid if it is empty, or the body nested too deeply."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return None
        if not key:
            raise Invalid("Idempotency-Key is empty", "Idempotency-Key")
        try:
            return cls(_hash([client, key]), _hash(content))
        except orjson.JSONEncodeError:  # it reads a thousand levels and writes 254; a message may have 64
            raise Invalid("the body is nested too deeply", None) from None

    @property
    def id_prefix(self) -> str:
        """Of ids that are the same whenever this is repeated, and others for the body of a forgotten key's next use."""
        return "k-" + _hash([self.key, self.body])


def _hash(content: object) -> str:
    # Sorted, since the fields of an object have no order: a client's library may give them another the next time.
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


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
