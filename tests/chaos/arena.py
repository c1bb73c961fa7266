"""Where it happens: six processes, a real server and the stand-in for Telegram, with what both cases and chaos need."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from queueing.contract import QueueStats
from queueing.redis_queue import RedisQueue
from tests.conftest import Server, wait_until
from tests.e2e.conftest import TOKEN, Stack

LEASE_SECONDS = 3
SEND_TIMEOUT = 2

TELEGRAM_LIMITS = {"RATE_GLOBAL": "30/1s", "RATE_CHAT": "1/1s", "RATE_GROUP": "20/60s"}

_SCOPES = {"RATE_GLOBAL": "bot", "RATE_CHAT": "chat", "RATE_GROUP": "group"}
_PUSHED_AT_ONCE = 500


class Arena(Stack):
    """A Stack that is watched from outside. rates: RATE_GLOBAL, RATE_CHAT and RATE_GROUP, as the bot's environment has
    them. `enforced`: the stand-in refuses what exceeds them."""

    def __init__(self, directory: Path, server: Server, rates: Mapping[str, str], *, enforced: bool) -> None:
        super().__init__(directory, server)
        self.rates = rates
        self._enforced = enforced
        self._ledger_from = 0
        self.redis = Redis.from_url(server.url, decode_responses=True)
        self.watcher = RedisQueue(server.url)
        self.http = aiohttp.ClientSession()

    async def start_telegram(self) -> None:
        """At a higher priority where that is allowed: on a busy machine its timestamps are right all the same."""
        command = [sys.executable, "-m", "bot.playground", "--bind", self.telegram.removeprefix("http://")]
        command += ["--token", TOKEN, "--nice", "-10" if os.geteuid() == 0 else "0"]
        if self._enforced:
            for name, rate in self.rates.items():
                command += [f"--limit-{_SCOPES[name]}", rate]
        self._spawn("playground", *command)
        await wait_until(lambda: self._answers(f"{self.telegram}/playground/state"), "the stand-in answers")

    async def push(self, elements: Iterable[Mapping[str, object]]) -> None:
        """RPUSH, as any program would."""
        texts = [orjson.dumps(element) for element in elements]
        for first in range(0, len(texts), _PUSHED_AT_ONCE):
            await self.redis.rpush("telegram_messages", *texts[first : first + _PUSHED_AT_ONCE])

    async def kill_server(self, seconds: float) -> None:
        """SIGKILL, and a new start on the same data after so many seconds; returns when it answers."""
        self.server.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.start)
        await self.redis.connection_pool.disconnect()

        async def answers() -> bool:
            try:
                return bool(await self.redis.ping())
            except RedisError:
                return False

        await wait_until(answers, "the server answers")

    async def stats(self) -> QueueStats:
        return await self.watcher.stats()

    async def ask(self, method: str, path: str, content: object = None) -> Any:
        """A call of the stand-in's control API."""
        async with self.http.request(method, f"{self.telegram}/playground/{path}", json=content) as response:
            assert response.status == 200, await response.text()
            return orjson.loads(await response.read())

    async def add_fault(self, **rule: object) -> str:
        (added,) = await self.ask("POST", "faults", {"method": "sendMessage", **rule})
        return str(added["id"])

    async def remove_fault(self, number: str) -> None:
        await self.ask("DELETE", f"faults?id={number}")

    async def forget_calls(self) -> None:
        """From here on, `calls` and `verdict` know nothing of what was before."""
        self._ledger_from = (await self.ask("GET", "ledger?limit=1&since=1000000000"))["end"]

    async def calls(self) -> list[dict[str, Any]]:
        """Every sendMessage that reached the stand-in, in order of arrival."""
        path = (
            f"{self.telegram}/playground/ledger?method=sendMessage&limit=100000&format=ndjson&since={self._ledger_from}"
        )
        async with self.http.get(path) as response:
            lines = (await response.read()).splitlines()
        assert len(lines) < 100_000, "a page of the ledger holds no more"
        return [orjson.loads(line) for line in lines]

    async def verdict(self, *, since: int = 0, until: int | None = None, **question: object) -> Any:
        """Of the stand-in's judge, on the limits in force. since, until: the calls that it looks at, by number."""
        windows = [{"scope": _SCOPES[name], "rate": rate} for name, rate in self.rates.items() if rate != "off"]
        path = f"judge?since={max(since, self._ledger_from)}" + (f"&until={until}" if until is not None else "")
        return await self.ask("POST", path, {"windows": windows, **question})

    async def empty(self, timeout: float) -> None:
        async def nothing_waits() -> bool:
            return (await self.stats()).depth == 0

        await wait_until(nothing_waits, "the queue is empty", timeout=timeout)


@asynccontextmanager
async def arena(
    rates: Mapping[str, str] = TELEGRAM_LIMITS, *, enforced: bool = False, **environ: str
) -> AsyncIterator[Arena]:
    """A running arena, in a directory of its own that goes with it."""
    with tempfile.TemporaryDirectory(prefix="telequeue-chaos-") as name:
        server = Server(Path(name))
        server.start()
        place = Arena(Path(name), server, rates, enforced=enforced)
        await place.watcher.start()
        try:
            await place.start_telegram()
            await place.start_bot(LEASE_SECONDS=str(LEASE_SECONDS), SEND_TIMEOUT=f"{SEND_TIMEOUT}s", **rates, **environ)
            yield place
        finally:
            await place.watcher.close()
            await place.redis.aclose()
            await place.http.close()
            place.close()
            server.stop()
