"""What a message costs the server with a thousand waiting and with a million, and how much memory one takes."""

import statistics
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis

from queueing.contract import Lease, Settlement
from queueing.limits import Rate, RateLimits
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from tests.chaos.measure import Figure
from tests.conftest import Server

MOST_TIMES_DEARER = 1.15
"""The issue's bound."""

ROUNDS = 31
_A_ROUND = 500
_AT_ONCE = 10
_PUSHED_AT_ONCE = 5_000
# So high that no window is full, but every log is written.
_LIMITS = RateLimits(bot=Rate(900_000, 1.0), chat=Rate(900_000, 1.0), group=Rate(900_000, 1.0))


@dataclass(frozen=True, slots=True)
class Backlog:
    """A server with so many waiting messages, and a queue that takes and settles some of them."""

    redis: "Redis"
    queue: RedisQueue
    waiting: int
    chats: int

    async def fill(self, first: int, count: int) -> None:
        for begin in range(first, first + count, _PUSHED_AT_ONCE):
            numbers = range(begin, min(begin + _PUSHED_AT_ONCE, first + count))
            await self.redis.rpush("telegram_messages", *(_element(number % self.chats, number) for number in numbers))
            while (await self.queue.claim(0)).more:
                pass

    async def bytes_per_message(self) -> tuple[float, float]:
        """→ what a message takes in its lane, and what its element does in a bare list."""
        before = await self._used()
        await self.fill(0, self.waiting)
        in_lanes = await self._used() - before
        numbers = range(10_000)
        await self.redis.rpush("bare", *(_element(number, number) for number in numbers))
        bare = await self.redis.memory_usage("bare", samples=0)
        await self.redis.delete("bare")
        return in_lanes / self.waiting, (bare or 0) / len(numbers)

    async def _used(self) -> int:
        return int((await self.redis.info("memory"))["used_memory_dataset"])

    async def cost(self, first: int) -> float:
        """µs of the server's time for claim and settle of one message. As many come as go, which is not measured."""
        before = await self._script_time()
        leases: Sequence[Lease] = ()
        for _ in range(0, _A_ROUND, _AT_ONCE):
            leases = (await self.queue.claim(_AT_ONCE, [Settlement(lease, Ack()) for lease in leases])).leases
            assert len(leases) == _AT_ONCE
        await self.queue.claim(0, [Settlement(lease, Ack()) for lease in leases])
        cost = (await self._script_time() - before) / _A_ROUND
        await self.fill(first, _A_ROUND)
        return cost

    async def _script_time(self) -> int:
        stats: Any = await self.redis.info("commandstats")
        return sum(int(stats[name]["usec"]) for name in ("cmdstat_fcall", "cmdstat_evalsha") if name in stats)


def _element(chat: int, number: int) -> bytes:
    return orjson.dumps({"bot_token": f"1:{'A' * 35}", "chat_id": 1 + chat, "text": f"{number:07} {'x' * 92}"})


@contextmanager
def _server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="telequeue-scale-") as directory:
        server = Server(Path(directory), options=("--appendonly", "no"))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@asynccontextmanager
async def _backlog(waiting: int, chats: int) -> AsyncIterator[Backlog]:
    with _server() as server:
        redis, queue = Redis.from_url(server.url), RedisQueue(server.url, limits=_LIMITS, timeout=30)
        await queue.start()
        try:
            yield Backlog(redis, queue, waiting, chats)
        finally:
            await queue.close()
            await redis.aclose()


async def backlog_cost(few: int, many: int, chats: tuple[int, int], *, most: float = MOST_TIMES_DEARER) -> Figure:
    """The two take turns, so that what else the machine does hits both. chats: of the few, and of the many. most: times
    as dear as the few that the many may be."""
    async with _backlog(few, chats[0]) as small, _backlog(many, chats[1]) as large:
        await small.fill(0, few)
        in_lane, bare = await large.bytes_per_message()
        costs: dict[int, list[float]] = {few: [], many: []}
        for turn in range(ROUNDS):
            for one in (small, large):
                costs[one.waiting].append(await one.cost(one.waiting + turn * _A_ROUND))
    cheap, dear = (statistics.median(costs[waiting]) for waiting in (few, many))
    ratio = dear / cheap
    measured = (
        f"{dear:.1f} µs of the server a message; with {few:,} {cheap:.1f} µs: {ratio:.2f} times; "
        f"{in_lane:.0f} bytes a message, {bare:.0f} in a bare list"
    )
    failures = [f"more than {most} times as dear"] if ratio > most else []
    return Figure(f"{many:,} waiting ({chats[1]:,} chats; {chats[0]:,})", measured, failures)
