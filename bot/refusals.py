"""What a queued send raises that was not sent: what Telegram's answer would have raised, had it been asked at once."""

from telegram.error import BadRequest, Forbidden, InvalidToken, NetworkError, TelegramError, TimedOut

from queueing.contract import MessageStatus
from queueing.errors import QueueUnavailable
from queueing.message import MessageState


class Cancelled(TelegramError):
    """The message was taken out of the queue, by a person or with its broadcast, before it was sent."""


class Expired(TimedOut):
    """The message was not sent before its `ttl`, or MESSAGE_TTL, had passed."""


class StillQueued(TelegramError, QueueUnavailable):
    """Nobody waits for the result any longer, because the process is about to end. The message stays in the queue. An
    update's handlers do not see it: they are cancelled, and it is handled again by another process."""


_CLASSES: dict[str, type[TelegramError]] = {
    "blocked": Forbidden,
    "unauthorized": InvalidToken,
    "unknown_bot": InvalidToken,
    "unknown_method": InvalidToken,  # as PTB has it for a 404
    "uncertain": TimedOut,
    "attempts": NetworkError,
    "outage": NetworkError,
    "poison": NetworkError,
    "too_large": NetworkError,
}
"""By the reason of a dead letter (bot/outcomes.py); any other is a BadRequest: what was to be sent is wrong."""


def error_of(reason: str | None, error: str | None) -> TelegramError:
    """For a message that is dead of this reason. error: in Telegram's words, or ours."""
    text = error or reason or "not sent"
    if reason == "forbidden":  # a 403, or a 400 that says as much
        return Forbidden(text) if text.startswith("Forbidden") else BadRequest(text)
    return _CLASSES.get(reason or "", BadRequest)(text)


def refusal(status: MessageStatus) -> TelegramError:
    """For a message that ended without being sent."""
    match status.state:
        case MessageState.CANCELLED:
            return Cancelled(status.error or "the message was cancelled before it was sent")
        case MessageState.EXPIRED:
            return Expired(status.error or "the message was not sent in time")
        case MessageState.UNCERTAIN:
            return TimedOut(status.error or "nobody knows whether the message was sent")
        case _:
            return error_of(status.reason, status.error)
