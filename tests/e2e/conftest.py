"""The whole, as an operator runs it: gunicorn with six processes, a real server, and the stand-in for Telegram."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from tests.conftest import Server, free_port, wait_until

TOKEN = "123456:AAFakeTokenOfTheEndToEndTests_0123456"
BOT = 123456
SECRET = "a-secret-of-the-tests"
CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Stack:
    """Processes, each with its log, ended by their own ids. cwd: where gunicorn is started."""

    def __init__(self, directory: Path, server: Server) -> None:
        self.directory = directory
        self.server = server
        self.url = f"http://127.0.0.1:{free_port()}"
        self.telegram = f"http://127.0.0.1:{free_port()}"
        self.environ: dict[str, str] = {}
        self.cwd = CHECKOUT
        self.master: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    def _spawn(self, name: str, *command: str, **environ: str) -> subprocess.Popen[bytes]:
        bare = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        bare["TMPDIR"] = str(self.directory)  # the lock of the lead and a bot's budget are its own
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.cwd, env=bare | environ, stdout=log, stderr=log)
        self._started.append(process)
        return process

    def log(self, name: str = "gunicorn") -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    async def start_telegram(self) -> None:
        address = self.telegram.removeprefix("http://")
        self._spawn("playground", sys.executable, "-m", "bot.playground", "--bind", address, "--token", TOKEN)
        await wait_until(lambda: self._answers(f"{self.telegram}/playground/state"), "the stand-in answers")

    async def start_bot(self, **environ: str) -> None:
        """`.venv/bin/gunicorn`, in the checkout with no argument, and the variables of CONTRACT.md."""
        self.environ = {
            "TELEGRAM_TOKEN": TOKEN,
            "TELEGRAM_API_URL": self.telegram,
            "WEBHOOK_URL": self.url,
            "WEBHOOK_SECRET": SECRET,
            "BIND": self.url.removeprefix("http://"),
            "USE_REDIS_QUEUE": "true",
            "REDIS_URL": self.server.url,
            "LEASE_SECONDS": "3",
            "SEND_TIMEOUT": "2s",
            "RATE_GLOBAL": "off",
            "RATE_CHAT": "off",
            "RATE_GROUP": "off",
        } | environ
        self.master = self._spawn("gunicorn", str(BIN / "gunicorn"), *self._config, **self.environ)
        await self.ready(6 if self.environ["USE_REDIS_QUEUE"] == "true" else 1)  # in process, each knows of itself

    @property
    def _config(self) -> list[str]:
        return [] if self.cwd == CHECKOUT else ["--config", str(CHECKOUT / "gunicorn.conf.py")]

    async def ready(self, processes: int = 6) -> None:
        async def all_there() -> bool:
            return len((await self.queue())["processes"]) == processes if await self._answers(self._ready) else False

        await wait_until(all_there, f"{processes} processes are ready", timeout=40)

    @property
    def _ready(self) -> str:
        return f"{self.url}/health/ready"

    async def _answers(self, url: str) -> bool:
        assert all(process.poll() is None for process in self._started), self.log()
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def get(self, path: str, base: str | None = None) -> Any:
        async with aiohttp.ClientSession() as session, session.get((base or self.url) + path) as response:
            return orjson.loads(await response.read())

    async def send(self, method: str, path: str, content: object, base: str | None = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, (base or self.url) + path, json=content) as response,
        ):
            return orjson.loads(await response.read())

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            return await response.text()

    async def queue(self) -> Any:
        return await self.get("/api/v1/queue")

    async def fault(self, **rule: object) -> None:
        await self.send("POST", "/playground/faults", rule, self.telegram)

    async def arrived(self) -> int:
        """Messages that Telegram took."""
        summary = await self.send("POST", "/playground/judge", {}, self.telegram)
        return int(summary["taken"])

    async def judge(self, chats: int, count: int) -> Any:
        """What became of `count` messages "m-<chat>-<n>" to each of the chats 1 to `chats`: counts and examples."""
        series = [{"bot": BOT, "chat": chat, "count": count} for chat in range(1, chats + 1)]
        verdict = await self.send("POST", "/playground/judge", {"series": series, "windows": []}, self.telegram)
        return verdict["delivery"]

    async def drained(self, timeout: float = 60) -> None:
        async def empty() -> bool:
            queue = await self.queue()
            by_state = queue.get("updates", {}).get("by_state", {})
            updates = sum(count for state, count in by_state.items() if state not in ("scheduled", "dead"))
            return bool(queue["queue_depth"] == updates == 0)

        await wait_until(empty, "the queues are empty", timeout=timeout)

    def close(self) -> None:
        for process in reversed(self._started):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 30
        for process in reversed(self._started):
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def stack(tmp_path: Path, server: Server) -> AsyncIterator[Stack]:
    stack = Stack(tmp_path, server)
    await stack.start_telegram()
    yield stack
    await asyncio.to_thread(stack.close)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


Push = Callable[[int, int], Awaitable[None]]


@pytest.fixture
def push(client: Redis) -> Push:
    """Pushes plain elements as any program would: `count` to each of `chats` chats, taking turns."""

    async def push(chats: int, count: int) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for n in range(count):
                for chat in range(1, chats + 1):
                    element = {"bot_token": TOKEN, "chat_id": chat, "text": f"m-{chat}-{n}", "kwargs": {}}
                    pipeline.rpush("telegram_messages", orjson.dumps(element))
            await pipeline.execute()

    return push
