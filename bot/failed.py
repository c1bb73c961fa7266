"""A send that a handler did not wait for, and that is dead: PTB's error handlers hear of it, as of any other error.

Such a send carries its `origin`: the number, the chat and the user of the update that it was made for. The process in
which it dies puts the failure into the inbox, where it is handled in that chat's turn, with that chat's and that user's
state, by any process. Without an inbox it is handled at once.

Not told: what dies with the message that it names (`parent_dead`), since the error handlers hear of that one; and what
an error handler itself sends for such a failure, since it would be called for ever. Both are dead letters all the same.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from telegram import Chat, User
from telegram.ext import Application

from bot.lanes import lane_of
from bot.origin import FailedUpdate
from bot.refusals import error_of
from bot.runner import Kind, Work
from bot.stateful import AnyApplication
from bot.traces import summary
from queueing.errors import MalformedMessage, QueueFull, QueueUnavailable
from queueing.events import Buried, Event
from queueing.message import Message, Priority
from queueing.tasks import end

_logger = logging.getLogger(__name__)


class Inbox(Protocol):
    """Where updates wait: a queueing.inbox.Inbox."""

    async def enqueue(self, messages: list[Message]) -> None: ...


async def handle_failure(application: AnyApplication, failed: Mapping[str, Any]) -> None:
    """Has the application's error handlers run. failed: what the body of the message in the inbox has as `failed`."""
    error = error_of(failed["reason"], failed["error"])
    error.add_note(
        f"{failed['method']} to chat {failed['chat']} was queued as {failed['id']}, and is a dead letter now"
    )
    # PTB's own, since the application's takes it for an error of the run that this is called in.
    await Application.process_error(application, failed_update(application, failed), error)


def failed_update(application: AnyApplication, failed: Mapping[str, Any]) -> FailedUpdate:
    """What the error handlers get as the update."""
    origin = failed["origin"]
    chat, user = (_read(kind, origin.get(name), application) for kind, name in ((Chat, "chat"), (User, "user")))
    return FailedUpdate(origin["update_id"], chat, user)


def _read(kind: Any, value: object, application: AnyApplication) -> Any:
    return kind.de_json(value, application.bot) if isinstance(value, Mapping) else None


def failures_for(application: AnyApplication) -> Kind:
    """Has the error handlers run for failures out of the inbox."""

    def work(message: Message) -> Work:
        failed = message.body["failed"]
        try:
            update = failed_update(application, failed)
        except Exception as error:  # the origin is what any program may have pushed
            raise MalformedMessage(f"the origin of a failed send cannot be read: {summary(error)}") from error
        return Work(lambda: handle_failure(application, failed), update)

    return work


class FailedSends:
    """An Observer. inbox: None: failures are handled in this process, at once."""

    def __init__(self, application: AnyApplication, inbox: Inbox | None = None) -> None:
        self._application = application
        self._inbox = inbox
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, event: Event, /) -> None:
        match event:
            case Buried(Message(body={"origin": {"update_id": int()}}) as message, reason, error) if (
                reason != "parent_dead"
            ):
                task = asyncio.create_task(self._pass_on(message, reason, error), name=f"failed-{message.id}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Waits for those that are on their way into the inbox; ends those that are handled here."""
        if self._inbox is not None and self._tasks:
            await asyncio.wait(self._tasks)
        await end(*self._tasks)

    async def _pass_on(self, message: Message, reason: str, error: str) -> None:
        failed = {
            "id": message.id,
            "chat": message.chat,
            "method": message.body.get("method", "sendMessage"),
            "reason": reason,
            "error": error,
            "origin": message.body["origin"],
        }
        try:
            if self._inbox is None:
                await handle_failure(self._application, failed)
            else:
                await self._inbox.enqueue([_for_inbox(message.bot, failed)])
        except (QueueFull, QueueUnavailable, MalformedMessage) as failure:
            _logger.error("the error handlers do not hear of %s, a dead letter: %s", message.id, failure)
        except Exception:
            _logger.exception("the error handlers could not be told of %s, a dead letter", message.id)


def _for_inbox(bot: str, failed: Mapping[str, Any]) -> Message:
    """In the lanes of its update. Its id is taken once, however often its burial is told."""
    chat, user = (lane_of(failed["origin"].get(name)) for name in ("chat", "user"))
    lane = chat or user or failed["chat"]
    return Message(
        bot=bot,
        chat=lane,
        also=user,
        id=f"failed-{failed['id']}",
        body={"failed": failed},
        priority=Priority.NORMAL,
        provisional=True,
    )
