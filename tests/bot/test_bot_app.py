"""BOT_APP: from a name to a function, and one line for each way in which there is none."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot.bot_app import find, wants_builder
from bot.settings import SettingsError

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the working directory; its name, which no other test has used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    name = f"bot_of_{tmp_path.name}"

    def write(source: str, path: str = "") -> str:
        file = tmp_path / (path or f"{name}.py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        return name

    yield write
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_it_is_found_in_the_working_directory(write: Write) -> None:
    name = write(
        "def setup(application): return 7\nclass Mine:\n    @staticmethod\n    def add(application): return 8\n"
    )
    assert find(f"{name}:setup")(None) == 7
    assert find(f"{name}:Mine.add")(None) == 8


def test_it_is_found_in_a_package(write: Write) -> None:
    write("from .texts import WORD\ndef setup(application): return WORD\n", "a_package_of_tests/setup.py")
    write("WORD = 'hi'\n", "a_package_of_tests/texts.py")
    assert find("a_package_of_tests.setup:setup")(None) == "hi"


@pytest.mark.parametrize(
    ("source", "reference", "words"),
    [
        ("", "nowhere:setup", "there is no module nowhere, neither in .* nor installed"),
        ("", "nowhere.deeper:setup", "there is no module nowhere, neither"),
        ("", "{}:setup", "has no function setup"),
        ("setup = 7", "{}:setup", "setup of .* is no function"),
        ("def setup(): pass", "{}:setup", "setup must take one argument, an Application or an ApplicationBuilder"),
        ("def setup(a, b): pass", "{}:setup", "setup must take one argument"),
        ("\nimport nowhere", "{}:setup", "cannot be imported: ModuleNotFoundError: No module .*, line 2"),
        ("\n\n1 / 0", "{}:setup", "cannot be imported: ZeroDivisionError: division by zero .*, line 3"),
        ("import sys; sys.exit('later')", "{}:setup", "cannot be imported: SystemExit: later"),
        ("def", "{}:setup", "cannot be imported: SyntaxError"),
        ("", "bot:setup", "bot has no function setup .*a module of yours needs another name"),
        ("", "queueing.mine:setup", "there is no module queueing.mine.*a module of yours needs another name"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(source: str, reference: str, words: str, write: Write) -> None:
    reference = reference.format(write(source))
    with pytest.raises(SettingsError, match=words) as caught:
        find(reference)
    assert str(caught.value).startswith(f"BOT_APP='{reference}': ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "builder"),
    [
        ("def setup(application): ...", False),
        ("def setup(app): ...", False),
        ("def setup(builder): ...", True),
        ("async def setup(builder): ...", True),
        ("def setup(x: ApplicationBuilder): ...", True),
        ("def setup(x: 'ApplicationBuilder'): ...", True),
        ("def setup(x: ApplicationBuilder[Any, Any, Any, Any, Any, Any]) -> None: ...", True),
        ("def setup(builder: Application): ...", False),
        ("def setup(x: 'Application[Any, Any, Any, Any, Any, Any]'): ...", False),
        ("def setup(x: 'ext.ApplicationBuilder'): ...", True),
        ("class Setup:\n    def __call__(self, builder): ...\nsetup = Setup()", True),
        ("setup = print", False),
    ],
)
def test_what_it_asks_for(source: str, builder: bool, write: Write) -> None:
    name = write(f"from typing import Any\nfrom telegram.ext import Application, ApplicationBuilder\n{source}\n")
    assert wants_builder(find(f"{name}:setup")) is builder
