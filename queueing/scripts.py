"""Loads lua/, runs a script by its hash, and maps what comes back wrong to our errors. No redis exception gets past."""

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, RedisError, ResponseError

from queueing.errors import QueueError, QueueFull, QueueUnavailable

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


_texts: dict[str, str] = {}


def _read(name: str) -> str:
    return _texts.get(name) or (files("queueing") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def read_all() -> None:
    """Reads every file now. To be called before a fork: processes share what was read."""
    for file in (files("queueing") / "lua").iterdir():
        name = file.name.removesuffix(".lua")
        _texts[name] = _read(name)


def _included(names: str) -> str:
    return "\n".join(_read(name) for name in names.split(", "))


def _started(names: str) -> str:
    """The call that sets what is known of this run alone (lua/keys.lua)."""
    return "start(KEYS)" if names.startswith("keys") else ""


class Script:
    """One of lua/*.lua, with the files that its `-- include:` line names put in that line's place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._head, names, body = _INCLUDE.split(_read(name), maxsplit=1)
        body = _INCLUDE.sub(lambda match: f"{_included(match[1])}\n{_started(match[1])}", body)
        # In a function of its own, since each has room for 200 local names.
        self._run = f"{_included(names)}\nlocal function run(KEYS, ARGV)\n{_started(names)}{body}\nend\n"
        self.source = f"{self._head}{self._run}return run(KEYS, ARGV)\n"
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: "Redis", key: str, args: Sequence[str | bytes | int]) -> Any:
        """Runs it, sending the source only when the server does not know it (first use, restart, failover)."""
        with mapped_errors():
            try:
                return await redis.evalsha(self.sha, 1, key, *args)
            except NoScriptError:
                return await redis.eval(self.source, 1, key, *args)


_LIBRARY = "telequeue_"
_TRIES = 3
"""Times that a function is called, and loaded in between: while a slot moves, another server may answer each time."""

_AGAIN = 1.0
"""Seconds after which a server that was too full for one is asked again: each time costs it 100 kB to read."""

_ours: set[str] = set()
"""The functions of this version."""


class Function(Script):
    """A script whose functions the server makes once, where it may keep them: a script makes them at each run, which
    takes longer than most runs do. See docs/decisions/0022-redis-cpu.md.

    Its library's name holds the hash, as that of a script does, so processes of two versions do not meet; one that the
    server does not know is loaded as a script is. A server that does not let us is asked for the script.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.function = f"{_LIBRARY}{self.sha}"
        _ours.add(self.function)
        flags = ", ".join(f"'{flag}'" for flag in re.findall(r"flags=(\S+)", self._head))
        self.library = (
            f"#!lua name={self.function}\n{self._run}"
            f"redis.register_function{{ function_name = '{self.function}', callback = run, flags = {{ {flags} }} }}\n"
        )
        self._refused = self._loaded = False
        self._not_before = 0.0

    async def run(self, redis: "Redis", key: str, args: Sequence[str | bytes | int]) -> Any:
        is_tried = not self._refused and time.monotonic() >= self._not_before
        for _ in range(_TRIES if is_tried else 0):
            with mapped_errors():
                try:
                    return await redis.execute_command("FCALL", self.function, 1, key, *args)  # type: ignore[no-untyped-call]
                except ResponseError as error:
                    self._refused = _is_refusal(error)
                    if not self._refused and "Function not found" not in str(error):
                        raise
            if not await self._load(redis):
                break
        return await super().run(redis, key, args)

    async def _load(self, redis: "Redis") -> bool:
        """→ whether the server has it now"""
        if self._refused:
            return False
        with mapped_errors():
            try:
                await _function(redis, "LOAD", "REPLACE", self.library)
            except ResponseError as error:  # it may be full
                self._refused = _is_refusal(error)
                self._not_before = time.monotonic() + _AGAIN
                return False
            if not self._loaded:
                await self._forget_others(redis)
        self._loaded = True
        return True

    async def _forget_others(self, redis: "Redis") -> None:
        """Takes away what other versions left. One that still runs brings its own again, and takes nothing away."""
        with suppress(ResponseError):  # not allowed, or another was faster
            found = await _function(redis, "LIST", "LIBRARYNAME", f"{_LIBRARY}*")
            for library in found:
                fields = library if isinstance(library, dict) else dict(zip(library[::2], library[1::2], strict=True))
                if (name := fields[b"library_name"].decode()) not in _ours:
                    await _function(redis, "DELETE", name)


async def _function(redis: "Redis", *words: str) -> Any:
    """In words, unlike redis-py's own: so it goes to the server that was just asked, not on a connection of its own."""
    return await redis.execute_command("FUNCTION", *words)  # type: ignore[no-untyped-call]


def _is_refusal(error: ResponseError) -> bool:
    """Whether the server has no functions, or not for us."""
    return isinstance(error, NoPermissionError) or "unknown command" in str(error)


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
