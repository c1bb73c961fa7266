"""Loads lua/, runs a script by its hash, and maps what comes back wrong to our errors. No redis exception gets past."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from queueing.errors import QueueError, QueueFull, QueueUnavailable

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


def _read(name: str) -> str:
    return (files("queueing") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class Script:
    """One of lua/*.lua, with the files that its `-- include:` line names put in that line's place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _INCLUDE.sub(lambda match: "\n".join(_read(part) for part in match[1].split(", ")), _read(name))
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: "Redis", key: str, args: Sequence[str | bytes | int]) -> Any:
        """Runs it, sending the source only when the server does not know it (first use, restart, failover)."""
        with mapped_errors():
            try:
                return await redis.evalsha(self.sha, 1, key, *args)
            except NoScriptError:
                return await redis.eval(self.source, 1, key, *args)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Redis's errors as ours. Raises QueueFull, QueueUnavailable or, for a mistake of ours, QueueError."""
    try:
        yield
    except OutOfMemoryError as error:
        raise QueueFull("the server's memory is full (maxmemory)") from error
    except ResponseError as error:
        text = str(error)
        if text.startswith("FULL "):
            raise QueueFull(text.removeprefix("FULL ")) from error
        if text.startswith("OUTDATED "):
            raise QueueError(text.removeprefix("OUTDATED ")) from error
        raise QueueUnavailable(f"the server refuses: {text}") from error
    except (RedisError, OSError) as error:
        raise QueueUnavailable(str(error) or type(error).__name__) from error
