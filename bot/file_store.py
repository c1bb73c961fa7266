"""Where files wait that are to be sent: once each, whatever the number of messages that send them, by their SHA-256.

They go in and out in pieces, so that none is held whole on the way. Which messages need a file is known by its *uses*:
a use that was sent is let go of, and with the last one the file has an hour left, for a message that is in doubt and
sent again. What was not sent stays for a week from when it was queued last or, if it is for later, from then: dead
letters can be replayed as long. In Redis:

| key                | type | holds                                                                | TTL         |
|--------------------|------|----------------------------------------------------------------------|-------------|
| {Q}:file:KEY       | hash | 0, 1, 2 …: pieces of 512 KiB; size: bytes, once all of them are there | as above    |
| {Q}:file:KEY:uses  | set  | the uses that were not let go of                                      | as the file |
"""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import WatchError

from bot.store import file_key, file_uses_key
from queueing.errors import QueueError, QueueFull, QueueUnavailable
from queueing.scripts import mapped_errors

PIECE = 512 * 1024
"""Bytes that are read or written at once: 0.05 ms of a server that everybody waits for (measured; without network)."""

KEEP = 7 * 86_400.0
"""Seconds for which a file is kept that was not sent."""

KEEP_SENT = 3_600.0
"""Seconds for which it is kept once nobody needs it."""

_KEEP_PARTS = 60.0  # seconds from piece to piece, while it is not whole
_TRIES = 3
_SWEEP_EVERY = 3_600.0


class FileGone(QueueError):
    """The file is not in the store any more, or never was."""


class FileStore(Protocol):
    """Files by key. Methods raise QueueUnavailable, and QueueFull while the server has no memory left."""

    async def put(self, key: str, content: bytes, use: str, until: float) -> None:
        """Keeps the content, whose SHA-256 `key` is, for this use, and until KEEP after `until` (Unix seconds)."""

    async def size(self, key: str) -> int:
        """Bytes. Raises FileGone."""

    def read(self, key: str, size: int) -> AsyncIterator[bytes]:
        """The content of a file of this size, in pieces. Raises FileGone."""

    async def let_go(self, key: str, use: str) -> None:
        """This use of it is over."""


class RedisFiles:
    """Shared by all processes."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def put(self, key: str, content: bytes, use: str, until: float) -> None:
        keep_ms = round((max(0.0, until - time.time()) + KEEP) * 1000)
        with mapped_errors():
            for _ in range(_TRIES):
                if await self._claim(key, len(content), use, keep_ms):
                    return
                await self._write(key, content)
        raise QueueUnavailable("a file's pieces go as soon as they come")

    async def _claim(self, key: str, size: int, use: str, keep_ms: int) -> bool:
        """Whether it is there, and now is for this use too."""
        name, uses = file_key(key), file_uses_key(key)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.sadd(uses, use)
            for each in (name, uses):
                pipeline.pexpire(each, keep_ms, nx=True)
                pipeline.pexpire(each, keep_ms, gt=True)
            pipeline.hget(name, "size")
            pipeline.hlen(name)
            *_, stored, fields = await pipeline.execute()
        return stored is not None and int(stored) == size and fields == -(-size // PIECE) + 1

    async def _write(self, key: str, content: bytes) -> None:
        """Others may write the same at the same time: it is the same. Who counts the pieces at the end is `_claim`."""
        name, view = file_key(key), memoryview(content)
        for number, start in enumerate(range(0, len(content), PIECE)):
            await self._set(name, str(number), view[start : start + PIECE])
        await self._set(name, "size", len(content))

    async def _set(self, name: str, field: str, value: "memoryview | int") -> None:
        ms = round(_KEEP_PARTS * 1000)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(name, field, value)  # a memoryview goes out as it is
            pipeline.pexpire(name, ms, nx=True)
            pipeline.pexpire(name, ms, gt=True)
            await pipeline.execute()

    async def size(self, key: str) -> int:
        with mapped_errors():
            size: Any = await self._redis.hget(file_key(key), "size")
        if size is None:
            raise FileGone
        return int(size)

    async def read(self, key: str, size: int) -> AsyncIterator[bytes]:
        for number in range(-(-size // PIECE)):
            with mapped_errors():
                piece: Any = await self._redis.hget(file_key(key), str(number))
            if piece is None or len(piece) != min(PIECE, size - number * PIECE):
                raise FileGone
            yield piece

    async def let_go(self, key: str, use: str) -> None:
        name, uses = file_key(key), file_uses_key(key)
        with mapped_errors():
            await self._redis.srem(uses, use)
            async with self._redis.pipeline(transaction=True) as pipeline:
                await pipeline.watch(uses)
                if await pipeline.exists(uses):
                    return
                pipeline.multi()  # type: ignore[no-untyped-call]
                pipeline.pexpire(name, round(KEEP_SENT * 1000), lt=True)
                with suppress(WatchError):  # somebody needs it again
                    await pipeline.execute()


class DiskFiles:
    """Those of queues within processes, below one directory. A file's time of change is when it may go: uses are not
    counted here, where a week of files costs no memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._swept = 0.0

    async def put(self, key: str, content: bytes, use: str, until: float) -> None:
        with _mapped_os_errors():
            await asyncio.to_thread(self._put, key, content, max(until, time.time()) + KEEP)

    def _put(self, key: str, content: bytes, until: float) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()
        path = self._directory / key
        with suppress(FileNotFoundError):
            known = path.stat()
            if known.st_size == len(content):
                os.utime(path, (until, max(until, known.st_mtime)))
                return
        partial = self._directory / f"{key}.{secrets.token_hex(4)}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        os.utime(partial, (until, until))
        partial.rename(path)

    def _sweep(self) -> None:
        now = time.time()
        if now < self._swept + _SWEEP_EVERY:
            return
        self._swept = now
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # another process was quicker
                left = path.stat().st_mtime - now
                if left < (-_SWEEP_EVERY if path.suffix == ".partial" else 0.0):
                    path.unlink()

    async def size(self, key: str) -> int:
        with _mapped_os_errors():
            return (self._directory / key).stat().st_size

    async def read(self, key: str, size: int) -> AsyncIterator[bytes]:
        with _mapped_os_errors(), (self._directory / key).open("rb") as file:
            for start in range(0, size, PIECE):
                piece = await asyncio.to_thread(file.read, PIECE)
                if len(piece) != min(PIECE, size - start):
                    raise FileGone
                yield piece

    async def let_go(self, key: str, use: str) -> None:
        """Nothing: see above."""


@contextmanager
def _mapped_os_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileGone from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise QueueFull("the disk is full") from error
        raise QueueUnavailable(f"the files on disk: {error.strerror}") from error
