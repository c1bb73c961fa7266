"""Each update once, within one process."""

import pytest

from bot import updates
from bot.updates import UpdateLog
from queueing.inbox import Standing


def test_an_update_is_taken_once() -> None:
    log = UpdateLog()
    assert log.begin(7) is Standing.NEW
    assert log.begin(7) is Standing.HANDLING
    log.end(7, done=True)
    assert log.begin(7) is Standing.DONE
    assert log.begin(8) is Standing.NEW


def test_one_that_could_not_be_handled_may_be_taken_again() -> None:
    log = UpdateLog()
    assert log.begin(7) is Standing.NEW
    log.end(7, done=False)
    assert log.begin(7) is Standing.NEW


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_MOST", 2)
    log = UpdateLog()
    for update_id in (1, 2, 3):
        log.begin(update_id)
        log.end(update_id, done=True)
    assert log.begin(1) is Standing.NEW
    assert log.begin(3) is Standing.DONE
