"""What keeps one test's unsent messages from the next."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_unsent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue within the process of a test leaves what it did not send to that test alone."""
    monkeypatch.setattr("bot.queues._UNSENT", tmp_path / "unsent")
    monkeypatch.setattr("bot.backends._FILES", tmp_path / "files")
