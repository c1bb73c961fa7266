"""What a message costs with a thousand waiting, and with a million: the processes' CPU time and the server's."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import orjson

from queueing.redis_queue import RedisQueue
from tests.benchmarks.bench import Bench
from tests.benchmarks.contenders.common import TOKEN
from tests.benchmarks.entrants import TELEQUEUE
from tests.benchmarks.place import Crew, Place, cpu_seconds, place, until

SIZES = ((1_000, 1_000), (10_000, 1_000), (100_000, 1_000), (1_000_000, 1_000), (1_000_000, 100_000))
"""Messages, and the chats that they are for."""
_PUSHED_AT_ONCE = 5_000
_TAKEN = 1_000
"""Messages that are handled before as many come anew, so that the backlog keeps its size."""
_PROCESSES = 2


def name_of(size: int, chats: int) -> str:
    return f"{size:,} waiting, {chats:,} chats"


def backlog(bench: Bench) -> None:
    """Two processes whose handlers count, on backlogs of 1,000 to 1,000,000, each on a server of its own."""
    sizes = SIZES[:2] if bench.quick else SIZES
    with bench.judged("backlog"), ExitStack() as stack:
        backlogs = []
        for size, chats in sizes:
            made = stack.enter_context(place(durable=False))
            bench.at = f"backlog, {name_of(size, chats)}"
            _fill(made, 0, size, chats)
            bench.say("is there")
            backlogs.append(_Backlog(made, size, chats))
        crews = [stack.enter_context(backlog.crew()) for backlog in backlogs]
        for crew in crews:
            crew.stop()
        for _ in range(bench.rounds):
            for backlog, crew in zip(backlogs, crews, strict=True):
                bench.at = f"backlog, {name_of(backlog.size, backlog.chats)}"
                backlog.measure(bench, crew)


@dataclass
class _Backlog:
    place: Place
    size: int
    chats: int

    def crew(self) -> Crew:
        """It handles a few before it is stopped; they come anew."""
        crew = Crew(self.place, TELEQUEUE, _PROCESSES, SEND="0")
        crew.stop()
        self._refill(crew)
        return crew

    def _refill(self, crew: Crew) -> None:
        missing = crew.handled() - self._refilled
        _fill(self.place, self.size + self._refilled, missing, self.chats)
        self._refilled += missing

    _refilled: int = 0

    def measure(self, bench: Bench, crew: Crew) -> None:
        cycles = 4 if bench.quick else 10
        used = server = handled = 0.0
        pids = crew.pids
        for _ in range(cycles):
            before, cpu, server_cpu = crew.handled(), cpu_seconds(pids), self.place.server_cpu
            crew.go_on()
            until(lambda before=before: crew.handled() - before >= _TAKEN, "some are handled", 60, pause=0.001)  # type: ignore[misc]
            crew.stop()
            used += cpu_seconds(pids) - cpu
            server += self.place.server_cpu - server_cpu
            handled += crew.handled() - before
            self._refill(crew)
        name = name_of(self.size, self.chats)
        bench.book.note("backlog.cpu", name, used / handled)
        bench.book.note("backlog.server_cpu", name, server / handled)
        bench.book.note("backlog.cost", name, (used + server) / handled)
        bench.say(f"CPU {1e6 * used / handled:.0f} µs, server {1e6 * server / handled:.0f} µs a message")


def _fill(place: Place, first: int, count: int, chats: int) -> None:
    """As any program would push them; then they are taken into their lanes."""
    pushed = list(_elements(first, count, chats))
    for begin in range(0, count, _PUSHED_AT_ONCE):
        place.redis.rpush("telegram_messages", *pushed[begin : begin + _PUSHED_AT_ONCE])
    take_in(place)


def _elements(first: int, count: int, chats: int) -> Iterator[bytes]:
    for number in range(first, first + count):
        yield orjson.dumps(
            {"bot_token": TOKEN, "chat_id": 1_000 + number % chats, "text": f"{number:07} ".ljust(100, "x")}
        )


class _Taker(RedisQueue):
    _drain_most = 1_000  # a million, a hundred at a time, would take a minute


def take_in(place: Place) -> None:
    """All that is in the front door into its lanes."""
    asyncio.run(_take_in(place.redis_url))


async def _take_in(redis_url: str) -> None:
    queue = _Taker(redis_url, timeout=30)
    await queue.start()
    try:
        while (await queue.claim(0)).more:
            pass
    finally:
        await queue.close()
