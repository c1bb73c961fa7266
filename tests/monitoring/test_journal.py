"""Which events become lines of the log."""

import pytest

from monitoring.journal import Journal, UpdateJournal
from queueing.events import Acked, Available, Buried, Event, Fenced, Reaped, Released, Trimmed, Unavailable
from queueing.message import Message

MESSAGE = Message(bot="1", chat="42", body={"text": "the text of a person"}, id="m1")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Released(MESSAGE, "network", "refused", 1.25, False), "message m1 to chat 42 will be tried again in 1.2 s"),
        (Released(MESSAGE, None, None, 0.0, False), ""),
        (Buried(MESSAGE, "blocked", "bot was blocked"), "message m1 is now a dead letter: bot was blocked (blocked)"),
        (Buried(None, "malformed", "not JSON"), "dead letter: not JSON (malformed)"),
        (Reaped("host:1", 3), "process host:1 is presumed dead; 3 of its messages"),
        (Reaped("host:1", 3, held=2), "1 of its messages go to others"),
        (Reaped("host:1", 3, held=2), "2 of its messages may have been sent, and are held"),
        (
            Buried(MESSAGE, "uncertain", "no answer"),
            "message m1 may have been sent, and is held for a person: no answer",
        ),
        (Trimmed(3), "3 dead letters are dropped"),
        (Fenced(MESSAGE), "message m1 was settled too late"),
        (Acked(MESSAGE, 0.1, 0.1), ""),
    ],
)
def test_an_event_is_a_line_if_somebody_wants_to_read_it(
    caplog: pytest.LogCaptureFixture, event: Event, expected: str
) -> None:
    caplog.set_level("INFO")
    Journal()(event)
    assert expected in caplog.text
    assert bool(expected) == bool(caplog.text)
    assert "the text of a person" not in caplog.text


def test_rule_10_a_token_that_stopped_working_is_an_alert(caplog: pytest.LogCaptureFixture) -> None:
    Journal()(Released(MESSAGE, "unauthorized", "Unauthorized", 60.0, uncertain=False))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("bot 1 is paused for 60 s: its token worked and is refused now")


def test_an_outage_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    for event in (Unavailable(0.0, "refused"), Unavailable(0.1, "refused"), Available(3.0), Unavailable(0.0, "again")):
        journal(event)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.rpartition(" ")[2] for message in messages] == ["refused", "s", "again"]


UPDATE = Message(bot="1", chat="42", body={"update": {"text": "the text of a person"}}, id="u1")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Released(UPDATE, "handler_failed", "ValueError", 0.2, False), ""),
        (
            Buried(UPDATE, "handler_failed", "ValueError: x\n  File y"),
            "update u1 is now a dead letter: ValueError: x (",
        ),
        (Buried(None, "malformed", "not JSON"), "an element of the updates' list is now a dead letter: not JSON"),
        (Reaped("host:1", 3), "process host:1 is presumed dead; 3 of its updates"),
        (Reaped("host:1", 0), ""),
        (Trimmed(3), "3 dead updates are dropped"),
        (Fenced(UPDATE), "update u1 was settled too late"),
        (Unavailable(1.0, "refused"), ""),
        (Acked(UPDATE, 0.1, 0.1), ""),
    ],
)
def test_of_updates_the_log_says_update(caplog: pytest.LogCaptureFixture, event: Event, expected: str) -> None:
    caplog.set_level("INFO")
    UpdateJournal()(event)
    assert expected in caplog.text
    assert bool(expected) == bool(caplog.text)
    assert "message" not in caplog.text
    assert "the text of a person" not in caplog.text
