"""Ours, as production runs it: gunicorn with its own configuration, and nothing of it switched off.

The limits are so high that no window is ever full, but every log is written; where LIMITS is 1, they are the defaults.
With SEND=0 the same processes run, and only what would call Telegram counts instead: see counting.py.

`work` is all processes, PROCESSES of them. Messages come through the outbox, by which our own producers queue them;
PRIORITY is theirs.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bot.children import end_with_parent
from bot.outbox import Outbox
from queueing.message import Priority
from queueing.redis_queue import RedisQueue
from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, SEND, TOKEN, Item

SECRET = "a-secret-of-the-benchmark"
_CHECKOUT = Path(__file__).parents[3]
_PRIORITY = Priority(os.environ.get("PRIORITY", "normal"))
_AT_ONCE = 1_000
_PATIENCE = 60.0  # seconds
NO_WINDOW_FULL = {"RATE_GLOBAL": "900000/1s", "RATE_CHAT": "900000/1s", "RATE_GROUP": "900000/1s"}


def environ(address: str, *, limits: bool = False) -> dict[str, str]:
    """Of gunicorn, which listens on this address. limits: the defaults, which are Telegram's."""
    given = {
        "TELEGRAM_TOKEN": TOKEN,
        "TELEGRAM_API_URL": common.API_URL,
        "WEBHOOK_URL": f"http://{address}",
        "WEBHOOK_SECRET": SECRET,
        "BIND": address,
        "WEB_CONCURRENCY": os.environ.get("PROCESSES", "6"),
        "QUEUE_WORKERS": str(COROUTINES),
        "USE_REDIS_QUEUE": "true",
        "REDIS_URL": REDIS_URL,
        "PYTHONPATH": str(_CHECKOUT),
    }
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    counting = {} if SEND else {"BOT_APP": "tests.benchmarks.contenders.counting:setup"}
    return kept | given | counting | ({} if limits else NO_WINDOW_FULL)


_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "MARK", "SEND", "BOT_APP", "RUNS_OF_HANDLERS")


def _work() -> None:
    address = os.environ.get("BIND") or f"127.0.0.1:{_free_port()}"
    given = environ(address, limits=os.environ.get("LIMITS") == "1")
    command = [sys.executable, "-m", "gunicorn", "--config", str(_CHECKOUT / "gunicorn.conf.py")]
    print("starting", flush=True)
    # Not in the checkout: a .env there is not meant.
    master = subprocess.Popen(command, cwd=os.environ.get("TMPDIR"), env=given, preexec_fn=end_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: master.terminate())
    _await(f"http://{address}", int(given["WEB_CONCURRENCY"]), master)
    common.ready()
    sys.exit(master.wait())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, processes: int, master: "subprocess.Popen[bytes]") -> None:
    """Until it is ready, and all processes are there: each is counted once it has claimed."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and master.poll() is None:
        with suppress(OSError):
            with urllib.request.urlopen(f"{url}/api/v1/queue", timeout=5) as answer:
                there = len(json.load(answer)["processes"])
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
                if there == processes and answer.status == 200:
                    return
        time.sleep(0.05)
    master.terminate()
    sys.exit(f"telequeue was not ready within {_PATIENCE:g} s")


class Producer:
    def __init__(self, queue: RedisQueue) -> None:
        self._outbox = Outbox(queue, lambda _: None, TOKEN.partition(":")[0])

    async def bulk(self, items: Sequence[Item]) -> None:
        """A thousand a call, as the HTTP API and broadcasts do."""
        compose = self._outbox.compose
        for first in range(0, len(items), _AT_ONCE):
            some = items[first : first + _AT_ONCE]
            await self._outbox.enqueue([compose(item.chat, item.text, priority=_PRIORITY) for item in some])

    async def single(self, item: Item) -> None:
        await self._outbox.enqueue([self._outbox.compose(item.chat, item.text, priority=_PRIORITY)])


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    queue = RedisQueue(REDIS_URL)
    await queue.start()
    try:
        yield Producer(queue)
    finally:
        await queue.close()


if __name__ == "__main__":
    common.main(_work, producer)
