"""Which process speaks to Telegram about updates: one of all that serve a bot, and another soon after it died.

A process holds the *seat* and renews it; the others try for it. In Redis the seat is a lock that expires, so a killed
or stopped process loses it within 3 s and another has it a second later. Without Redis it is a file lock, which the
operating system gives up when the process ends.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import LockError, LockNotOwnedError

from queueing.clock import CLOCK
from queueing.errors import QueueError
from queueing.scripts import mapped_errors
from queueing.turns import Turn

_log = logging.getLogger(__name__)

TERM = 3.0
"""Seconds for which a seat is held without renewal."""

_RENEW_EVERY, _TRY_EVERY = 0.75, 1.0
"""Seconds between renewals, and between tries: three renewals may fail before the seat is lost."""


class Seat(Protocol):
    """Held by one process at a time. The methods raise QueueError when Redis does not answer, or is full."""

    async def take(self) -> bool:
        """Whether it is ours now."""

    async def renew(self) -> bool:
        """Whether it is still ours."""

    async def leave(self) -> None:
        """Gives it up, if it is ours."""

    def held(self) -> bool:
        """Whether it is surely ours, also after this process was stopped and came back. No I/O."""


class RedisSeat:
    """A lock in Redis with a token, an expiry and renewal."""

    def __init__(self, redis: "Redis", key: str) -> None:
        self._lock = redis.lock(key, timeout=TERM, thread_local=False)
        self._until = 0.0

    async def take(self) -> bool:
        asked = time.clock_gettime(CLOCK)
        with mapped_errors():
            if await self._lock.acquire(blocking=False, token=_name()):
                self._until = asked + TERM
        return self.held()

    async def renew(self) -> bool:
        asked = time.clock_gettime(CLOCK)
        with mapped_errors():
            try:
                await self._lock.reacquire()
            except LockNotOwnedError:
                self._until = 0.0
                return False
        self._until = asked + TERM
        return self.held()

    async def leave(self) -> None:
        self._until = 0.0
        with mapped_errors(), contextlib.suppress(LockError):
            await self._lock.release()

    def held(self) -> bool:
        return time.clock_gettime(CLOCK) < self._until


def _name() -> str:
    """What the lock holds: who leads, for a person who looks, and a part that makes it unique."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"


class FileSeat:
    """A file lock: for the processes of one machine that have no Redis in common. Never lost but by ending."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._complained = False

    async def take(self) -> bool:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if not self._complained:
                _log.error("nobody can lead: the lock file cannot be opened: %s", error)
            self._complained = True
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    async def renew(self) -> bool:
        return self.held()

    async def leave(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def held(self) -> bool:
        return self._file is not None


class Election:
    """Tries for the seat, does its duty while holding it, and tries again when it lost it.

    duty: runs as long as this process leads, and is cancelled when it does not any more. If it raises, the seat is
    given up and the election goes on. turn: shared by processes of this machine that try for this seat.
    """

    def __init__(self, seat: Seat, duty: Callable[[], Awaitable[None]], turn: Turn | None = None) -> None:
        self._seat = seat
        self._duty = duty
        self._turn = turn or Turn()
        self._campaign: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        self._campaign = asyncio.create_task(self._run(), name="election")

    async def stop(self) -> None:
        """Ends the duty, then gives up the seat, so that another process has it within a second. Twice is as once."""
        if not self._campaign:
            return
        self._stopping = True  # redis-py may lose the cancellation, see queueing/tasks.py
        if not self._campaign.cancelling():  # a second time would interrupt the end of the duty
            self._campaign.cancel()
        await asyncio.wait({self._campaign})

    async def _run(self) -> None:
        while not self._stopping:
            try:
                if await self._asked(self._seat.take):
                    await self._lead()
            except Exception:  # noqa: BLE001  whatever it was, somebody has to lead
                _log.exception("the election failed, and begins anew")
            await self._turn.wait(_TRY_EVERY)

    async def _lead(self) -> None:
        _log.info("this process now leads: it is the one that speaks to Telegram about updates")
        duty = asyncio.ensure_future(self._duty())
        try:
            while not self._stopping and not duty.done() and self._seat.held():
                self._turn.took()  # nobody on this machine has to try, as long as the one who leads does
                await asyncio.wait({duty}, timeout=self._turn.due_in(_RENEW_EVERY))
                await self._asked(self._seat.renew)
            if not self._seat.held():
                _log.warning("this process no longer leads: it could not renew its seat in time")
        finally:
            duty.cancel()
            while not duty.done():  # it may have something to bring to an end, and should still lead meanwhile
                await asyncio.wait({duty}, timeout=_RENEW_EVERY)
                await self._asked(self._seat.renew)
            ended = await asyncio.gather(duty, return_exceptions=True)
            if isinstance(ended[0], Exception):
                _log.error("the leader's duty failed", exc_info=ended[0])
            await self._asked(self._seat.leave)

    async def _asked(self, ask: Callable[[], Awaitable[object]]) -> bool:
        """Whether the seat says yes, soon enough for a renewal to be repeated within the term. Never raises. Where it
        says nothing, the next try is another's."""
        try:
            async with asyncio.timeout(TERM / 3):
                return bool(await ask())
        except (QueueError, TimeoutError) as error:
            _log.debug("the seat does not answer: %r", error)  # the outage itself is in the log
        except Exception:  # noqa: BLE001  it must not keep a duty from being ended
            _log.exception("the seat failed")
        self._turn.failed()
        return False
