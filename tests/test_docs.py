"""What the pages of docs/ and README.md list is what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_architecture_names_every_file_of_the_bot_once() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## The files of `bot/`")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", table)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "bot").glob("*.py") if path.stem != "__init__")


def test_files_that_the_pages_name_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"`((?:bot|monitoring|queueing|tests|deploy)/[\w/.]+\.\w+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_pages_name_only_commands_of_make_that_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"(?:`|^)(?:\w+=\S+ )*make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, f"{page.name} names make {named - targets}"


def test_every_reason_to_die_is_explained_to_operators() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().partition("| reason | what it is |")[2].partition("\n\n")[0]
    outcomes = (ROOT / "bot" / "outcomes.py").read_text()
    rejected = set(re.findall(r'Rejected\(.*, "([a-z_]+)"\)', outcomes))
    assert "bad_request" in rejected
    assert rejected | {"attempts", "uncertain", "poison", "parent_dead", "handler_failed"} <= set(
        re.findall(r"`([a-z_]+)`", table)
    )
