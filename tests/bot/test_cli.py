"""The command line, against a real server with the in-process queue and a real playground."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot.cli import main
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
KEY = "let-me-in"
Run = Callable[..., subprocess.CompletedProcess[str]]


def poll(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def playground() -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "bot.playground", "--bind", address, "--token", "111:AAAA"], stdout=subprocess.DEVNULL
    )
    poll(lambda: answers(f"http://{address}/"), "the playground")
    yield f"http://{address}"
    process.terminate()
    process.wait(timeout=15)


@pytest.fixture(scope="module")
def server(playground: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a running server, which the command line needs to find it."""
    directory = tmp_path_factory.mktemp("server")
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "TELEGRAM_TOKEN": "111:AAAA",
        "TELEGRAM_API_URL": playground,
        "BIND": f"127.0.0.1:{port}",
        "WEB_CONCURRENCY": "1",
        "API_KEYS": f"test={KEY}",
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")],
            env=environ,
            cwd=directory,
            stderr=log,
        )
        poll(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/health/ready"), "readiness")
    assert process.poll() is None, (directory / "log").read_text()
    yield environ
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert "AAAA" not in (directory / "log").read_text()


@pytest.fixture
def run(server: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from bot.cli import main; main(prog_name='telequeue')", *arguments],
            cwd=tmp_path,
            env={**server, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def done(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def one_line(ended: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert ended.returncode == code
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    return ended.stderr.removeprefix("telequeue: ").strip()


def test_send_and_status(run: Run) -> None:
    id = re.fullmatch(r"(\S+) is pending; follow it with: telequeue status \1\n", done(run("send", "1001", "hello")))
    assert id
    poll(lambda: json.loads(done(run("status", id[1], "--json")))["status"] == "sent", "the message being sent")
    shown = done(run("status", id[1]))
    assert re.search(r"^status +sent$", shown, re.MULTILINE)
    assert re.search(r"^telegram_message_id +\d+$", shown, re.MULTILINE)


@pytest.mark.parametrize("chat", ["-2001", "@somebody"])
def test_a_group_or_a_name(chat: str, run: Run) -> None:
    sent = json.loads(done(run("send", chat, "-- hello", "--priority", "bulk", "--json")))
    assert json.loads(done(run("status", sent["id"], "--json")))["chat_id"] == chat


def test_what_begins_with_a_minus_sign_is_no_option(run: Run) -> None:
    sent = json.loads(done(run("send", "-2001", "-hello", "--json")))
    assert json.loads(done(run("status", sent["id"], "--json")))["id"] == sent["id"]
    assert "no message with this id" in one_line(run("why", "-Xh12"))
    assert "no dead letter" in run("dead", "drop", "-h").stderr


def test_stats(run: Run) -> None:
    assert re.search(r"^workers +10, 10 in each process$", done(run("stats")), re.MULTILINE)
    assert json.loads(done(run("stats", "--json")))["total_workers"] == 10


def test_what_the_server_refuses(run: Run) -> None:
    assert "chat_id" in one_line(run("send", "no chat", "hello"))
    assert "id" in one_line(run("status", "never-given"))


def test_a_wrong_key(run: Run) -> None:
    assert "API_KEYS" in one_line(run("stats", API_KEYS="another"))


def test_nobody_there(run: Run) -> None:
    assert "does not answer" in one_line(run("stats", "--url", f"http://127.0.0.1:{free_port()}"))
    assert "telequeue up" in one_line(run("send", "1", "x", BIND=f"127.0.0.1:{free_port()}"))


def test_somebody_who_does_not_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.terminal.TIMEOUT", 0.1)
    monkeypatch.setenv("REDIS_TIMEOUT", "0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BIND", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(SystemExit):
            main(["stats"])
    said = capsys.readouterr().err
    assert "did not answer within 0.2 s" in said
    assert "is it running" not in said


def test_somebody_else_there(run: Run, playground: str) -> None:
    assert "no telequeue" in one_line(run("stats", "--url", playground))
    assert "not as telequeue does" in one_line(run("stats", "--url", playground + "/?"))


def test_somebody_who_speaks_no_http(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answer_once, args=(listener, b"-ERR unknown command\r\n"))
        answering.start()
        said = one_line(run("stats", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"))
        answering.join()
    assert "not as telequeue does" in said


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


def test_bad_settings(run: Run) -> None:
    assert one_line(run("stats", QUEUE_WORKERS="x"), 2).startswith("QUEUE_WORKERS='x': expected")


@pytest.mark.parametrize(
    "arguments",
    [
        ["send"],
        ["send", "1"],
        ["send", "1", "x", "--priority", "urgent"],
        ["stats", "--url", "ftp://host"],
        ["stats", "--url", "http://"],
        ["stats", "--url", "http://host:port"],
        ["stats", "--url", "http://[::1"],
        ["stats", "--url", "http://a host"],
        ["stats", "--url", f"http://{'a' * 70}"],
        ["status"],
        ["fly"],
    ],
)
def test_wrong_usage(arguments: list[str], run: Run) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert "Usage: telequeue" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["up", "send", "status", "stats"])
def test_help(command: str, run: Run) -> None:
    assert f"Usage: telequeue {command}" in done(run(command, "--help"))
    assert re.search(rf"^  {command} ", done(run("--help")), re.MULTILINE)


def test_version(run: Run) -> None:
    assert re.fullmatch(r"telequeue \d+\.\d+\.\d+\n", done(run("--version")))
