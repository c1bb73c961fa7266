"""The error table, line by line, with PTB's own exceptions and ours."""

from datetime import timedelta

import pytest
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)

from bot import outcomes
from bot.outcomes import classify
from bot.transport import (
    BadAnswer,
    CutOff,
    Flood,
    LeaseEnded,
    NoAnswer,
    NoAnswerInTime,
    NotFound,
    NotWritten,
    ServerError,
    TooLarge,
)
from queueing.retry import Moved, Outcome, Rejected, RetryLater, Scope, Sent, Unsent

ALBUM = 'Failed to send message #1 with the error message "Too Many Requests: retry after 17"'


@pytest.mark.parametrize(
    ("error", "reason", "uncertain"),
    [
        (NotWritten("refused"), "network", False),
        (CutOff("cut off"), "network", False),
        (NoAnswer("reset"), "no_answer", True),
        (NoAnswerInTime("10 s"), "no_answer", True),
        (ServerError("Bad Gateway", described=True), "server_error", False),
        (ServerError("<html>", described=False), "server_error", True),
        (BadAnswer("<html>", 200), "bad_answer", True),
        (BadAnswer("<html>", 302), "bad_answer", False),
        (BadAnswer("<html>", 404), "bad_answer", False),
        (NetworkError("I'm a teapot"), "bad_answer", False),
        (Conflict("terminated by other getUpdates"), "conflict", False),
        (TelegramError("odd"), "internal_error", True),
        (KeyError("odd"), "internal_error", True),
    ],
)
def test_what_may_go_better_next_time(error: Exception, reason: str, uncertain: bool) -> None:
    outcome = classify(error)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain, outcome.after) == (reason, uncertain, None)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (BadRequest("retry after 999999999"), 86_400.0),
        (Flood(5), 5.0),
        (Flood(0.5), 0.5),
        (BadRequest(ALBUM), 17.0),
        (BadRequest("Bad Request: " + ALBUM), 17.0),
    ],
)
def test_a_flood_waits_as_long_as_telegram_says(error: Exception, seconds: float) -> None:
    outcome = classify(error)
    assert outcome == RetryLater(str(error), "flood", after=seconds, scope=Scope.CHAT)


@pytest.mark.parametrize("as_timedelta", ["0", "1"])
@pytest.mark.filterwarnings("ignore:.*retry_after")
def test_a_flood_of_ptb_itself_is_understood_in_both_its_types(
    as_timedelta: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", as_timedelta)
    outcome = classify(RetryAfter(timedelta(seconds=9)))
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after) == ("flood", 9.0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Forbidden("Forbidden: bot was blocked by the user"), "blocked"),
        (Forbidden("Forbidden: bot was kicked from the supergroup chat"), "blocked"),
        (Forbidden("Forbidden: user is deactivated"), "blocked"),
        (Forbidden("Forbidden: bot is not a member of the channel chat"), "blocked"),
        (Forbidden("Forbidden: bot can't initiate conversation with a user"), "blocked"),
        (Forbidden("Forbidden: the group chat was deleted"), "blocked"),
        (Forbidden("Forbidden: bots can't send messages to bots"), "forbidden"),
        (BadRequest("Bad Request: CHAT_WRITE_FORBIDDEN"), "forbidden"),
        (BadRequest("Bad Request: not enough rights to send text messages to the chat"), "forbidden"),
        (BadRequest("Bad Request: chat not found"), "chat_not_found"),
        (BadRequest("Bad Request: PEER_ID_INVALID"), "chat_not_found"),
        (BadRequest("Bad Request: group chat was deactivated"), "chat_not_found"),
        (BadRequest("Bad Request: query is too old and response timeout expired"), "query_expired"),
        (BadRequest("Bad Request: can't parse entities"), "bad_request"),
        (BadRequest("Bad Request: message is too long"), "bad_request"),
        (TooLarge("Request Entity Too Large"), "too_large"),
        (InvalidToken("Unauthorized"), "unauthorized"),
        (NotFound("Not Found"), "unauthorized"),
    ],
)
def test_what_will_never_go(error: Exception, reason: str) -> None:
    outcome = classify(error)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason
    assert str(error) in outcome.error


@pytest.mark.parametrize("error", [InvalidToken("Unauthorized"), NotFound("Not Found")])
def test_a_token_that_worked_before_keeps_its_messages(error: Exception) -> None:
    assert classify(error, worked=True) == RetryLater(str(error), "unauthorized", after=60.0, scope=Scope.BOT)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BadRequest("Bad Request: message is not modified: specified new…"), Sent("true")),
        (LeaseEnded("the lease ended"), Unsent()),
        (ChatMigrated(-1007), Moved("-1007", "Group migrated to supergroup. New chat id: -1007")),
    ],
)
def test_what_is_no_failure(error: Exception, outcome: Outcome) -> None:
    assert classify(error) == outcome


def test_no_token_gets_into_an_error() -> None:
    outcome = classify(NotWritten("not written: http://x/bot123456:AAHdqTcvCH1vGWJxfSeofSAs0K5/sendMessage"))
    assert isinstance(outcome, RetryLater)
    assert "AAHdqTcvCH1vGWJxfSeofSAs0K5" not in outcome.error


def test_every_class_is_in_the_table() -> None:
    table = outcomes.__doc__ or ""
    for reason in ("queue_unavailable", "unknown_bot", "unknown_method", "malformed", "forbidden_method", "local_file"):
        assert reason in table
