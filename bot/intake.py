"""The one way of an update into the bot, whether it was posted to the webhook or polled.

With Redis it is taken into the inbox, which is safe at once; a worker of any process handles it (bot/runner.py). Within
one process it is handled where it arrives (InlineIntake): then it counts as handled when its handlers, those with
`block=False` included, have ended and what they sent is in the queue. A handler that failed because the queue did not
take its answer leaves the update unhandled: it comes again. A handler with a mistake of its own has had its chance: the
traceback is logged, and the chat goes on, since trying it again would hold up the chat and fail again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any, Protocol

from telegram import Update

from bot.lanes import update_message
from bot.origin import origin_of
from bot.run import Run, carry_out, current_run, is_of_the_queue
from bot.stateful import AnyApplication, StatefulApplication
from bot.updates import UpdateLog
from queueing.errors import MalformedMessage, QueueFull, QueueUnavailable
from queueing.inbox import Inbox, Standing

_logger = logging.getLogger(__name__)


class Taken(StrEnum):
    """What became of an update; values of the label `result`. BUSY, FULL and UNAVAILABLE: it is to be given again."""

    ACCEPTED = "accepted"
    HANDLED = "handled"
    FAILED = "failed"
    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    BUSY = "busy"
    FULL = "full"
    UNAVAILABLE = "unavailable"

    @property
    def settled(self) -> bool:
        """Whether Telegram may forget the update."""
        return self not in (Taken.BUSY, Taken.FULL, Taken.UNAVAILABLE)


class IntakeApplication(StatefulApplication):
    """PTB's Application; a run knows of the tasks and of the errors of its handlers."""

    def create_task(
        self, coroutine: Any, update: object | None = None, *, name: str | None = None
    ) -> "asyncio.Task[Any]":
        """As PTB has it. A task that is given its update belongs to it: the update is not handled before it ends."""
        task = super().create_task(coroutine, update, name=name)
        run = current_run()
        if run is not None and update is not None:
            run.tasks.append(task)
        return task

    async def process_error(
        self, update: object | None, error: Exception, job: Any = None, coroutine: Any = None
    ) -> bool:
        """As PTB has it; but error handlers do not hear of what is tried again, and what a run knows is logged there.
        True: no further handlers of the update are run."""
        run = current_run()
        if run is None:
            return await super().process_error(update, error, job, coroutine)
        run.errors.append(error)
        if run.quiet or is_of_the_queue(error):
            return True
        return bool(self.error_handlers) and await super().process_error(update, error, job, coroutine)


class Intake(Protocol):
    async def take(self, update_id: int, fields: Mapping[str, Any]) -> Taken:
        """Takes one update, unless that was done before. `fields`: the update's JSON. Raises nothing."""


class QueuedIntake:
    """Puts the updates of the bot `bot_id` into the inbox, each once. taking_in: is entered for each meanwhile."""

    def __init__(
        self, inbox: Inbox, bot_id: str, taking_in: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._inbox = inbox
        self._bot_id = bot_id
        self._taking_in = taking_in

    async def take(self, update_id: int, fields: Mapping[str, Any]) -> Taken:
        try:
            with self._taking_in():
                standing = await self._inbox.accept(update_message(self._bot_id, update_id, fields), update_id)
        except MalformedMessage as error:
            _logger.warning("update %d cannot be kept and is left out: %s", update_id, error)
            return Taken.MALFORMED
        except QueueFull as error:
            _logger.debug("update %d has to wait: %s", update_id, error)
            return Taken.FULL
        except QueueUnavailable as error:
            _logger.debug("update %d has to wait: %s", update_id, error)  # the outage itself is in the log
            return Taken.UNAVAILABLE
        return _STANDINGS[standing]


_STANDINGS = {Standing.NEW: Taken.ACCEPTED, Standing.HANDLING: Taken.BUSY, Standing.DONE: Taken.DUPLICATE}


class InlineIntake:
    """Gives updates to the application's handlers, each once."""

    def __init__(self, application: AnyApplication, updates: UpdateLog) -> None:
        self._application = application
        self._updates = updates

    async def take(self, update_id: int, fields: Mapping[str, Any]) -> Taken:
        if not self._application.running:
            return Taken.UNAVAILABLE
        standing = self._updates.begin(update_id)
        if standing is not Standing.NEW:
            return Taken.DUPLICATE if standing is Standing.DONE else Taken.BUSY
        taken = Taken.UNAVAILABLE
        try:
            taken = await self._handle(update_id, fields)
        finally:
            self._updates.end(update_id, done=taken.settled)
        return taken

    async def _handle(self, update_id: int, fields: Mapping[str, Any]) -> Taken:
        application = self._application
        try:
            update = Update.de_json(dict(fields), application.bot)
        except Exception:  # PTB's parsers raise whatever a field of an unexpected shape leads to
            _logger.exception("update %d cannot be read and is left out: %.2000s", update_id, fields)
            return Taken.MALFORMED
        run = Run(f"{application.bot.id}:update:{update_id}", about=origin_of(update))
        try:
            await carry_out(run, lambda: process(application, update))
        finally:
            run.over = True
        return _verdict(update_id, run.errors)


async def process(application: AnyApplication, update: Update) -> None:
    """Gives an update to the handlers, as PTB does with what it receives itself."""
    if hasattr(application.bot, "insert_callback_data"):
        application.bot.insert_callback_data(update)
    await application.process_update(update)


def _verdict(update_id: int, errors: list[Exception]) -> Taken:
    mistakes = [error for error in errors if not is_of_the_queue(error)]
    for error in mistakes:
        _logger.error("a handler failed on update %d", update_id, exc_info=error)
    if len(mistakes) < len(errors):
        _logger.warning("update %d has to come again: the queue did not take what its handler sent", update_id)
        return Taken.UNAVAILABLE
    return Taken.FAILED if mistakes else Taken.HANDLED
