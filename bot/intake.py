"""The one way of an update to the handlers, whether it was posted to the webhook or polled.

An update counts as handled when its handlers, those with `block=False` included, have ended and what they sent is in
the queue. A handler that failed because the queue did not take its answer leaves the update unhandled: it comes again.
A handler with a mistake of its own has had its chance: the traceback is logged, and the chat goes on, since trying it
again would hold up the chat and fail again.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from telegram import Update
from telegram.ext import Application

from bot.stateful import StatefulApplication
from bot.updates import HANDLING_LEASE, Standing, UpdateLog
from queueing.errors import QueueFull, QueueUnavailable

_logger = logging.getLogger(__name__)

_EXTEND_EVERY = HANDLING_LEASE / 3

AnyApplication = Application[Any, Any, Any, Any, Any, Any]


class Taken(StrEnum):
    """What became of an update; values of the label `result`. BUSY and UNAVAILABLE: it is to be given again."""

    HANDLED = "handled"
    FAILED = "failed"
    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"

    @property
    def settled(self) -> bool:
        """Whether Telegram may forget the update."""
        return self not in (Taken.BUSY, Taken.UNAVAILABLE)


@dataclass(slots=True)
class _Run:
    """What happened while the handlers of one update ran."""

    errors: list[Exception] = field(default_factory=list)
    tasks: list["asyncio.Task[Any]"] = field(default_factory=list)


_current: ContextVar[_Run | None] = ContextVar("current_run", default=None)


class IntakeApplication(StatefulApplication):
    """PTB's Application; it lets the intake know of the tasks that an update's handlers run in."""

    def create_task(
        self, coroutine: Any, update: object | None = None, *, name: str | None = None
    ) -> "asyncio.Task[Any]":
        """As PTB has it. A task that is given its update belongs to it: the update is not handled before it ends."""
        task = super().create_task(coroutine, update, name=name)
        run = _current.get()
        if run is not None and update is not None:
            run.tasks.append(task)
        return task


class Intake:
    """Gives updates to the application's handlers, each once."""

    def __init__(self, application: AnyApplication, updates: UpdateLog) -> None:
        self._application = application
        self._updates = updates
        application.add_error_handler(_note_error)

    async def take(self, update_id: int, fields: Mapping[str, Any]) -> Taken:
        """Handles one update, unless that was done or is being done. `fields`: the update's JSON. Raises nothing."""
        if not self._application.running:
            return Taken.UNAVAILABLE
        try:
            standing = await self._updates.begin(update_id)
            if standing is not Standing.NEW:
                return Taken.DUPLICATE if standing is Standing.DONE else Taken.BUSY
            taken = await self._handle(update_id, fields)
            await (self._updates.done(update_id) if taken.settled else self._updates.abandon(update_id))
        except (QueueFull, QueueUnavailable) as error:
            _logger.debug("update %d has to wait: %s", update_id, error)  # the outage itself is in the log
            return Taken.UNAVAILABLE
        return taken

    async def _handle(self, update_id: int, fields: Mapping[str, Any]) -> Taken:
        try:
            update = Update.de_json(dict(fields), self._application.bot)
        except Exception:  # PTB's parsers raise whatever a field of an unexpected shape leads to
            _logger.exception("update %d cannot be read and is left out: %.2000s", update_id, fields)
            return Taken.MALFORMED
        run = _Run()
        handlers = asyncio.create_task(self._run_handlers(update, run), name=f"update-{update_id}")
        try:
            while not (await asyncio.wait({handlers}, timeout=_EXTEND_EVERY))[0]:
                await self._keep(update_id)
        finally:
            handlers.cancel()
        if handlers.cancelled():
            run.errors.append(RuntimeError("a handler was cancelled"))
        elif isinstance(error := handlers.exception(), Exception):
            run.errors.append(error)
        return _verdict(update_id, run.errors)

    async def _run_handlers(self, update: Update, run: _Run) -> None:
        _current.set(run)
        await self._application.process_update(update)
        for task in run.tasks:  # grows while it is walked through: a task may create another
            await asyncio.wait({task})

    async def _keep(self, update_id: int) -> None:
        try:
            if not await self._updates.extend(update_id):
                _logger.warning("update %d took too long to keep hold of; another process may handle it too", update_id)
        except (QueueFull, QueueUnavailable) as error:
            _logger.warning("update %d takes long, and its lease could not be renewed: %s", update_id, error)


async def _note_error(_update: object, context: Any) -> None:
    run = _current.get()
    if run is not None:
        run.errors.append(context.error)
    else:
        _logger.error("a task of the application failed", exc_info=context.error)


def _verdict(update_id: int, errors: list[Exception]) -> Taken:
    mistakes = [error for error in errors if not _is_of_the_queue(error)]
    for error in mistakes:
        _logger.error("a handler failed on update %d", update_id, exc_info=error)
    if len(mistakes) < len(errors):
        _logger.warning("update %d has to come again: the queue did not take what its handler sent", update_id)
        return Taken.UNAVAILABLE
    return Taken.FAILED if mistakes else Taken.HANDLED


def _is_of_the_queue(error: BaseException) -> bool:
    """Whether a handler failed for want of the queue: PTB may have wrapped the error into one of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (QueueFull, QueueUnavailable)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
