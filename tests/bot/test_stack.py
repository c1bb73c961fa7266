"""What `telequeue up` does before anything runs; the whole of it: tests/e2e/test_up.py."""

from pathlib import Path

import pytest

from bot.settings import Settings
from bot.stack import Stack


@pytest.mark.parametrize("exists", [False, True])
def test_its_directory_is_for_its_owner_alone(tmp_path: Path, exists: bool) -> None:
    directory = tmp_path / ".telequeue"
    if exists:
        directory.mkdir(mode=0o755)
    Stack(Settings(_env_file=None), directory)._take_directory()
    assert directory.stat().st_mode & 0o777 == 0o700
