"""The error table: what an error of the Bot API, or of the way to it, means for a message. Pure.

A flood holds its chat, a refused token its bot; network, no_answer, server_error and bad_answer may be an outage (see
queueing.retry.Scope). The classes are labels of `messages_retried_total` (R) and `messages_dead_total` (D):

| reason            |   | when                                                                                   |
|-------------------|---|----------------------------------------------------------------------------------------|
| flood             | R | 429, or one hidden in an album's 400; waits as long as Telegram says, costs no attempt |
| server_error      | R | 5xx; uncertain when it was not the Bot API itself that answered                        |
| network           | R | no connection, or it was lost, before the request was written; of an upload: all of it |
| no_answer         | R | written, then no answer until SEND_TIMEOUT or the connection was lost: uncertain       |
| bad_answer        | R | an answer that is not the Bot API's; uncertain when its status is a success            |
| conflict          | R | 409                                                                                    |
| migrated          | R | the chat has another id now: at once to that one, costs no attempt                     |
| unauthorized      | R | 401 for a token that worked before in this process: every 60 s, costs no attempt       |
| queue_unavailable | R | the token or a file could not be read: after 1 s, costs no attempt                     |
| internal_error    | R | a mistake of ours, uncertain; the log has the traceback                                |
| malformed, forbidden_method, local_file | D | the body is no call that may be made: see bot/call.py            |
| file_gone         | D | a file of it is not in the store, or not any more: see bot/file_store.py               |
| unknown_bot       | D | no token came with the message and none is known for its bot                           |
| unauthorized      | D | 401, and no token of the bot ever worked                                               |
| unknown_method    | D | 404, and the token works                                                               |
| blocked           | D | 403: a person blocked or never started the bot, or the bot is not in the chat          |
| forbidden         | D | any other 403, or no right to write in the chat                                        |
| chat_not_found    | D | there is no such chat                                                                  |
| query_expired     | D | 400 query is too old                                                                   |
| too_large         | D | 413                                                                                    |
| bad_request       | D | any other 400, in Telegram's words: what was to be sent is wrong                       |
"""

import re
from datetime import timedelta
from http import HTTPStatus

from telegram.error import BadRequest, ChatMigrated, Conflict, Forbidden, InvalidToken, NetworkError, RetryAfter

from bot.transport import (
    LONGEST_WAIT,
    BadAnswer,
    CutOff,
    Flood,
    LeaseEnded,
    NoAnswer,
    NotWritten,
    ServerError,
    TooLarge,
)
from monitoring.logs import mask
from queueing.retry import Moved, Outcome, Rejected, RetryLater, Scope, Sent, Unsent

UNAUTHORIZED_WAIT = 60.0
"""Seconds until a token that worked once is tried again: a person has to act, and nothing is lost meanwhile."""

NOT_MODIFIED = Sent("true")

_FLOOD = re.compile(r"retry after (\d{1,9})", re.IGNORECASE)
_NOT_MODIFIED = re.compile("message is not modified", re.IGNORECASE)
_QUERY_EXPIRED = re.compile("query is too old", re.IGNORECASE)
_NO_CHAT = re.compile(
    "chat not found|PEER_ID_INVALID|CHAT_ID_INVALID|CHANNEL_INVALID|group chat (was|is) (deleted|deactivated)",
    re.IGNORECASE,
)
_NO_RIGHT = re.compile("CHAT_WRITE_FORBIDDEN|CHAT_RESTRICTED|not enough rights|have no rights", re.IGNORECASE)
_BLOCKED = re.compile("blocked|kicked|deactivated|deleted|not a member|can't initiate", re.IGNORECASE)


def classify(error: Exception, *, worked: bool = False) -> Outcome:
    """What becomes of a message whose sending raised `error`. worked: the bot's token did, in this process."""
    match error:
        case LeaseEnded():
            return Unsent()
        case ChatMigrated(new_chat_id=chat):
            return Moved(str(chat), str(error))
        case RetryAfter():
            return RetryLater(str(error), "flood", after=_wait(error), scope=Scope.CHAT)
        case InvalidToken() if worked:
            return RetryLater(str(error), "unauthorized", after=UNAUTHORIZED_WAIT, scope=Scope.BOT)
        case InvalidToken():
            return Rejected(f"Telegram refused the token: {error}", "unauthorized")
        case Forbidden():
            return Rejected(str(error), "blocked" if _BLOCKED.search(str(error)) else "forbidden")
        case BadRequest():
            return _bad_request(str(error))
        case TooLarge():
            return Rejected(str(error), "too_large")
        case _:
            return _transient(error)


def is_query_expired(error: BadRequest) -> bool:
    """Whether a query was answered before, or is too old to be."""
    return _QUERY_EXPIRED.search(str(error)) is not None


def _transient(error: Exception) -> RetryLater:
    text = mask(str(error))
    match error:
        case NotWritten() | CutOff():
            return RetryLater(text, "network", scope=Scope.RECEIVER)
        case NoAnswer():
            return RetryLater(text, "no_answer", uncertain=True, scope=Scope.RECEIVER)
        case ServerError(described=described):
            return RetryLater(text, "server_error", uncertain=not described, scope=Scope.RECEIVER)
        case BadAnswer(status=status):
            return RetryLater(text, "bad_answer", uncertain=status < HTTPStatus.MULTIPLE_CHOICES, scope=Scope.RECEIVER)
        case Conflict():
            return RetryLater(text, "conflict")
        case NetworkError():  # a status that the Bot API doesn't have, with a description
            return RetryLater(text, "bad_answer")
        case _:
            return RetryLater(f"{type(error).__name__}: {text}", "internal_error", uncertain=True)


def _bad_request(error: str) -> Outcome:
    if _NOT_MODIFIED.search(error):
        return NOT_MODIFIED
    if hidden := _FLOOD.search(error):
        return RetryLater(error, "flood", after=min(float(hidden[1]), LONGEST_WAIT), scope=Scope.CHAT)
    if _QUERY_EXPIRED.search(error):
        return Rejected(error, "query_expired")
    if _NO_CHAT.search(error):
        return Rejected(error, "chat_not_found")
    if _NO_RIGHT.search(error):
        return Rejected(error, "forbidden")
    return Rejected(error, "bad_request")


def _wait(error: RetryAfter) -> float:
    """Seconds. PTB gives an int or, from its next version on, a timedelta."""
    if isinstance(error, Flood):
        return error.seconds
    wait = error.retry_after
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
