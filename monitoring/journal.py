"""The queue's events as log lines: those that an operator wants to read of, not the thousands a second that go well."""

import logging

from queueing.events import Available, Buried, Event, Fenced, Reaped, Released, Unavailable

_logger = logging.getLogger(__name__)


def journal(event: Event, /) -> None:
    """An Observer that logs."""
    match event:
        case Released(message, reason, error, delay, _) if reason is not None:
            _logger.info(
                "message %s to chat %s of bot %s will be tried again in %.1f s: %s (%s)",
                message.id, message.chat, message.bot, delay, error, reason,
            )  # fmt: skip
        case Buried(None, reason, error, _):
            _logger.warning("an element of the list is now a dead letter: %s (%s)", error, reason)
        case Buried(message, reason, error, _) if message is not None:
            _logger.warning(
                "message %s to chat %s of bot %s is now a dead letter: %s (%s)",
                message.id, message.chat, message.bot, error, reason,
            )  # fmt: skip
        case Reaped(incarnation, recovered):
            _logger.warning("process %s is presumed dead; %d of its messages go to others", incarnation, recovered)
        case Fenced(message):
            _logger.warning("message %s was settled too late: another process has taken it over", message.id)
        case Unavailable(seconds, error) if seconds < 1:
            _logger.error("the queue's server does not answer, sending waits for it: %s", error)
        case Available(seconds):
            _logger.warning("the queue's server answers again, after %.1f s", seconds)
        case _:
            pass
