"""What keeps one test's unsent messages from the next, and the stand-in that most tests talk to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.playground import Playground
from tests.bot.served import telegram


@pytest.fixture(autouse=True)
def own_unsent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue within the process of a test leaves what it did not send to that test alone."""
    monkeypatch.setattr("bot.queues._UNSENT", tmp_path / "unsent")
    monkeypatch.setattr("bot.backends._FILES", tmp_path / "files")


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    async with telegram() as running:
        yield running
