"""`telequeue bench`: how many messages a second this machine sends, with all that production has.

On a server, a local Telegram and processes of its own, in a directory that goes with them: the queue and the bot of the
operator have no part in it. The local Telegram shares the machine; the limits are so high that no window is ever full,
but every log is written.
"""

import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from bot import embedded
from bot.children import Child
from bot.client import Unreachable, call
from bot.stack import CONFIG, PLAYGROUND_TOKEN

_CHATS = 1_000
_TEXT = "x" * 100
_PUSHED_AT_ONCE = 5_000
_START, _STALLED = 60.0, 30.0
"""Seconds for all to come up, and after which a run in which nothing arrives has failed."""
_LIMITS = {"RATE_GLOBAL": "900000/1s", "RATE_CHAT": "900000/1s", "RATE_GROUP": "900000/1s"}


class BenchFailed(Exception):
    """str() is one line."""


@dataclass(frozen=True, slots=True)
class Figures:
    """messages, processes, and coroutines of each; seconds from the first that may leave to the last that is sent."""

    messages: int
    processes: int
    workers: int
    seconds: float
    rate: float

    def as_json(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__slots__}


def measure(messages: int, processes: int, workers: int) -> Figures:
    """Starts everything, sends so many messages, and stops, also when it is told to end. From the main thread.

    Raises BenchFailed, and embedded.NoServer.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="telequeue-bench-") as name, ExitStack() as stack:
        try:
            return _Place(Path(name), stack, processes, workers).send(messages)
        except Unreachable as error:
            raise BenchFailed(str(error)) from None


class _Place:
    def __init__(self, directory: Path, stack: ExitStack, processes: int, workers: int) -> None:
        self._directory, self._processes, self._workers = directory, processes, workers
        self._children: list[Child] = []
        stack.callback(self._stop)
        port, telegram, own = (embedded.free_port(0) for _ in range(3))
        self._redis_url, self._url = f"redis://127.0.0.1:{port}/0", f"http://127.0.0.1:{own}"
        self._start(
            embedded.start_server(embedded.find_server(), directory, port, keep=()), lambda: embedded.is_up(port)
        )
        address = f"127.0.0.1:{telegram}"
        command = [sys.executable, "-P", "-m", "bot.playground", "--bind", address, "--token", PLAYGROUND_TOKEN]
        self._start(Child("the local Telegram", command, silent=True), lambda: embedded.is_open(telegram))
        command = [sys.executable, "-m", "gunicorn", "--config", str(CONFIG), "--chdir", str(directory)]
        environ = self._environ(f"http://{address}", own)
        self._start(Child("gunicorn", command, environ=environ), self._all_there)

    def _environ(self, telegram: str, port: int) -> dict[str, str]:
        """Nothing of the operator's settings but how many there are: his bot is not to run here."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        return {
            **kept,
            "TMPDIR": str(self._directory),
            "TELEGRAM_TOKEN": PLAYGROUND_TOKEN,
            "TELEGRAM_API_URL": telegram,
            "WEBHOOK_URL": self._url,
            "WEBHOOK_SECRET": secrets.token_urlsafe(24),
            "BIND": f"127.0.0.1:{port}",
            "USE_REDIS_QUEUE": "true",
            "REDIS_URL": self._redis_url,
            "WEB_CONCURRENCY": str(self._processes),
            "QUEUE_WORKERS": str(self._workers),
            "LOG_LEVEL": "error",
            **_LIMITS,
        }

    def _start(self, child: Child, is_there: Callable[[], bool]) -> None:
        self._children.append(child)
        deadline = time.monotonic() + _START
        while not is_there():
            if child.exit_code is not None:
                raise BenchFailed(f"{child.name} ended with exit code {child.exit_code}")
            if time.monotonic() > deadline:
                raise BenchFailed(f"{child.name} was not ready within {_START:g} s")
            time.sleep(0.05)

    def _all_there(self) -> bool:
        try:
            ready, _ = call(self._url, "/health/ready")
            return ready == 200 and len(self._queue()["processes"]) == self._processes
        except Unreachable:
            return False

    def _queue(self) -> dict[str, Any]:
        code, answer = call(self._url, "/api/v1/queue")
        if code != 200:
            raise Unreachable(str(answer))
        return dict(answer)

    def send(self, messages: int) -> Figures:
        """They are all there before the first may leave."""
        self._post("/api/v1/pause")
        self._push(messages)
        began = time.perf_counter()
        self._post("/api/v1/resume")
        self._await_sent(messages)
        seconds = time.perf_counter() - began
        return Figures(messages, self._processes, self._workers, round(seconds, 3), round(messages / seconds, 1))

    def _post(self, path: str) -> None:
        code, answer = call(self._url, path, body={})
        if code != 200:
            raise BenchFailed(f"{path} was answered with {code}: {answer}")

    def _push(self, messages: int) -> None:
        """As any program would."""
        made = [f'{{"chat_id":{1 + n % _CHATS},"text":"{_TEXT}"}}' for n in range(messages)]
        try:
            with Redis.from_url(self._redis_url) as redis:
                for first in range(0, messages, _PUSHED_AT_ONCE):
                    redis.rpush("telegram_messages", *made[first : first + _PUSHED_AT_ONCE])
        except RedisError as error:
            raise BenchFailed(f"the messages could not be queued: {error}") from None

    def _await_sent(self, messages: int) -> None:
        last, since = -1, time.monotonic()
        while last < messages:
            sent = int(self._queue()["total_processed"])
            if sent != last:
                last, since = sent, time.monotonic()
            elif time.monotonic() - since > _STALLED:
                raise BenchFailed(f"{last} of {messages} messages were sent, and then none for {_STALLED:g} s")
            time.sleep(0.02)

    def _stop(self) -> None:
        for child in reversed(self._children):
            child.send(signal.SIGTERM)
            deadline = time.monotonic() + 20
            while child.exit_code is None and time.monotonic() < deadline:
                time.sleep(0.02)
            child.kill()
