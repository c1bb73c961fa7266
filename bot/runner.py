"""Runner: handles what the inbox grants to this process, an update, a job or a failed send, and commits its effects.

What a message asks for is told by its body: {"update": …}, {"job": …} or {"failed": …}; whoever puts such messages into
the inbox says by a Kind what is to be done with them.

| a run                                    | what becomes of it                                                       |
|------------------------------------------|--------------------------------------------------------------------------|
| ended well                               | committed; done                                                          |
| raised, the first and the second time    | all that is held back is thrown away; run again after a moment           |
| raised, the third time                   | error handlers are called; committed; a dead letter with the traceback   |
| lacked the queue or its server           | run again, as often as it takes                                          |
| cannot be read                           | a dead letter, `malformed`                                               |
| lost its lease, or its process is ending | nothing is committed; another process runs it                            |
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from telegram import Update

from bot.intake import process
from bot.origin import origin_of
from bot.outbox import Outbox
from bot.pickling import StateError
from bot.run import Run, carry_out, is_of_the_queue
from bot.stateful import AnyApplication
from bot.traces import summary, with_traceback
from queueing.errors import MalformedMessage, QueueFull, QueueUnavailable
from queueing.inbox import Commit, Conflict, Inbox, Write
from queueing.message import Message
from queueing.retry import Outcome, Rejected, RetryLater, RetryPolicy, Sent, Unsent
from queueing.worker import MayWrite, failures_so_far

HANDLER_FAILED: Final = "handler_failed"
"""The class of what a handler raised, in dead letters and metrics."""

POLICY: Final = RetryPolicy(max_attempts=3, base=0.25, cap=2.0)
"""A chat waits for its failing update, so not for long."""

AT_ONCE: Final = 64
"""Updates in hand of a process. A handler may wait for long, for a person's service or for a send's result."""

_AGAIN: Final = 1.0
"""Seconds after which a run that lacked the queue is run again."""

_HOLD_BACK: Final = 0.05
"""Seconds for which a send is held back at most, so that one commit takes all of a quick handler's."""

_CONFLICTS_MOST: Final = 20

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What a message of the inbox asks for. handle: calls the handlers. update: whose chat's and user's state they see;
    chat_id, user_id: whose else. about: what error handlers are told when one of its sends fails, see Run; None:
    nothing."""

    handle: Callable[[], Any]
    update: Update | None = None
    chat_id: int | None = None
    user_id: int | None = None
    about: Mapping[str, Any] | None = None


Kind = Callable[[Message], Work]
"""What is to be done for a message. Raises MalformedMessage, which says what is wrong with it."""


class Loaded(Protocol):
    """The state that one run sees and changes."""

    def writes(self) -> Sequence[Write]:
        """What the run changed."""

    def merge(self, conflicts: Sequence[Conflict]) -> Sequence[Write]:
        """All of it again, upon what others wrote meanwhile."""

    def discard(self) -> None:
        """Takes the state out of the process again."""


class Keeper(Protocol):
    async def load(self, update: Update | None, chat_id: int | None, user_id: int | None) -> Loaded:
        """Reads the state and puts it where handlers look for it. Raises QueueUnavailable."""


class Runner:
    """kinds: by the name of the field that a message of this kind has in its body."""

    def __init__(self, inbox: Inbox, outbox: Outbox, keeper: Keeper, kinds: Mapping[str, Kind]) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._keeper = keeper
        self._kinds = kinds
        self._merging = asyncio.Lock()

    async def deliver(self, message: Message, _may_write: MayWrite) -> Outcome:
        """See queueing.worker.Deliver. It takes as long as the handlers do."""
        quiet = failures_so_far() + 1 < POLICY.max_attempts
        # When it was accepted is a part of its name: one that a person has run again adds what it sends once more.
        run = Run(f"{message.bot}:{message.id}:{message.accepted or 0:.3f}", quiet=quiet, sends=[])
        try:
            work = self._work(message)
            run.about = work.about
            return await self._run(message, work, run)
        except MalformedMessage as error:
            return Rejected(str(error), "malformed")
        except StateError as error:
            _logger.error("the state of %s is at fault: %s", message.id, error)
            return RetryLater(str(error), HANDLER_FAILED) if quiet else Rejected(with_traceback(error), HANDLER_FAILED)
        except (QueueFull, QueueUnavailable) as error:
            return _later(error)
        finally:
            run.over, run.sends = True, None

    def _work(self, message: Message) -> Work:
        for name, kind in self._kinds.items():
            if name in message.body:
                return kind(message)
        raise MalformedMessage(f"none of {', '.join(self._kinds)} is in it")

    async def _run(self, message: Message, work: Work, run: Run) -> Outcome:
        loaded = await self._keeper.load(work.update, work.chat_id, work.user_id)
        try:
            await self._handle(work, run)
            error = run.errors[0] if run.errors else None
            if lacking := next(filter(is_of_the_queue, run.errors), None):
                return _later(lacking)
            if error and run.quiet:
                _logger.debug("%s failed and will be run again", message.id, exc_info=error)
                return RetryLater(summary(error), HANDLER_FAILED)
            traceback = with_traceback(error) if error else None
            if not await self._commit(message, run, loaded, traceback):
                return Unsent()
        finally:
            loaded.discard()
        if traceback is None:
            return Sent()
        for raised in run.errors:
            _logger.error("a handler failed on %s", message.id, exc_info=raised)
        return Rejected(traceback, HANDLER_FAILED)

    async def _handle(self, work: Work, run: Run) -> None:
        flushing: list[asyncio.Task[None]] = []  # no task for a handler that is quicker

        def begin_to_flush() -> None:
            flushing.append(asyncio.create_task(self._flush_now_and_then(run), name="flush"))

        timer = asyncio.get_running_loop().call_later(_HOLD_BACK, begin_to_flush)
        try:
            await carry_out(run, work.handle)
            await run.sending.acquire()  # what is being queued is queued to its end, or nobody knows whether it was
            run.sending.release()
        finally:
            timer.cancel()
            for task in flushing:
                task.cancel()

    async def _flush_now_and_then(self, run: Run) -> None:
        while True:
            try:
                await self._outbox.flush(run)
            except (QueueFull, QueueUnavailable) as error:
                _logger.debug("what %s sent has to wait: %s", run.origin, error)
            await asyncio.sleep(_HOLD_BACK)

    async def _commit(self, message: Message, run: Run, loaded: Loaded, traceback: str | None) -> bool:
        """Whether it is stored; not so if the lease was lost. traceback: of what failed for the last time."""
        failed = (HANDLER_FAILED, traceback) if traceback else None
        sends = await self._outbox.keep_shared(run.take_sends())
        writes = loaded.writes()
        async with AsyncExitStack() as turn:
            for attempt in range(_CONFLICTS_MOST):
                commit = Commit(sends, run.updates, [*writes, *run.writes.values()], failed)
                conflicts = await self._inbox.commit(message, commit)
                if conflicts is None:
                    return False
                if not conflicts:
                    self._outbox.tell(sends)
                    return True
                if not attempt:  # of those that change the same, one at a time tries again, or each spoils it for all
                    await turn.enter_async_context(self._merging)
                writes = loaded.merge([conflict for conflict in conflicts if not run.merges(conflict)])
        raise QueueUnavailable("others changed what it had read, again and again")


def updates_for(application: AnyApplication) -> Kind:
    """Gives updates to the application's handlers."""

    def work(message: Message) -> Work:
        try:
            update = Update.de_json(dict(message.body["update"]), application.bot)
            about = origin_of(update)
        except Exception as error:  # PTB's parsers raise whatever a field of an unexpected shape leads to
            raise MalformedMessage(f"the update cannot be read: {summary(error)}") from error
        return Work(lambda: process(application, update), update, about=about)

    return work


def _later(error: BaseException) -> RetryLater:
    return RetryLater(summary(error), "queue", after=_AGAIN)
