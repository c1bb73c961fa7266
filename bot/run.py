"""Run: one handling of an update, a job or a failed send: what its handlers sent, changed and raised.

Whoever is called by a handler finds the run in `current_run()`; code outside of any has none, and acts at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from queueing.errors import QueueFull, QueueUnavailable
from queueing.inbox import Conflict, Write
from queueing.message import Message
from queueing.tasks import end

NUMBER_BITS: Final = 52
"""Of the numbers that sends are known by: exact in a double, which is what Lua and JSON's readers have."""

Place = tuple[str, str]
"""A key and a field of it."""


@dataclass(slots=True)
class Run:
    """origin: names the update for ever and everywhere, such as "8081:u17:1767225600.000"; the same when it is run
    again, but for a replay by a person.
    quiet:   it will be run again if it fails: error handlers are not called, and no further handlers.
    sends:   what is held back until the commit, in order; None: nothing is held back, sends are queued at once.
    about:   what PTB's error handlers are told of it when one of its sends fails: see bot/failed.py. None: nothing.
    updates: jobs that it made, for the inbox itself.
    writes:  what else is to be stored with the commit, by key and field.
    seen:    what it read there. A write that names what was seen has a `merge`, which changes `writes` and `updates` to
             fit what others have written meanwhile.
    sending: held by whoever queues its sends before the commit, so that they stay in order.
    over:    it has ended. What its handlers left behind acts at once, and belongs to no update any more.
    """

    origin: str
    quiet: bool = False
    sends: list[Message] | None = None
    updates: list[Message] = field(default_factory=list)
    writes: dict[Place, Write] = field(default_factory=dict)
    seen: dict[Place, bytes | None] = field(default_factory=dict)
    merge: dict[Place, Callable[[Conflict], None]] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    tasks: list["asyncio.Task[Any]"] = field(default_factory=list)
    about: Mapping[str, Any] | None = None
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False
    _ordinal: int = 0

    def next_number(self) -> int:
        """The number of its next send: the same for the same send when it is run again."""
        self._ordinal += 1
        digest = blake2b(f"{self.origin}:{self._ordinal}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> (64 - NUMBER_BITS)) or 1

    def merges(self, conflict: Conflict) -> bool:
        """Whether the write is of its own `writes`, which fit what was found then."""
        merge = self.merge.get((conflict.write.key, conflict.write.field))
        if merge is not None:
            merge(conflict)
        return merge is not None

    def take_sends(self) -> Sequence[Message]:
        """What was held back, which is the caller's now."""
        taken = tuple(self.sends or ())
        if self.sends is not None:
            self.sends.clear()
        return taken


CURRENT: Final[ContextVar[Run | None]] = ContextVar("current_run", default=None)


def current_run() -> Run | None:
    """The run that the caller is part of, while it lasts."""
    run = CURRENT.get()
    return None if run is None or run.over else run


async def carry_out(run: Run, handle: Callable[[], Awaitable[None]]) -> None:
    """Runs the handlers, until they and the tasks that belong to the run have ended. What they raise is in
    `run.errors`. Cancelled, it cancels them, and waits for their end."""
    handlers = asyncio.create_task(_handle(run, handle), name=run.origin)
    try:
        await asyncio.wait({handlers})
    finally:
        if not handlers.done():
            await end(handlers, *run.tasks)
    if handlers.cancelled() and not any(map(is_of_the_queue, run.errors)):
        run.errors.append(RuntimeError("a handler was cancelled"))
    elif not handlers.cancelled() and isinstance(error := handlers.exception(), Exception):
        run.errors.append(error)


async def _handle(run: Run, handle: Callable[[], Awaitable[None]]) -> None:
    CURRENT.set(run)
    try:
        await handle()
    finally:
        for task in run.tasks:  # grows while it is walked through: a task may create another
            await asyncio.wait({task})


def is_of_the_queue(error: BaseException) -> bool:
    """Whether a handler failed for want of the queue: PTB may have wrapped the error into one of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (QueueFull, QueueUnavailable)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
