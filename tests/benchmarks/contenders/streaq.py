"""streaq: a stream of ids, a key for each message, functions in Redis.

Conditions: uvloop, four messages fetched ahead for each coroutine (a little less CPU than the default of one; more
gain nothing), no results, no log, no time limit, pickle (its default). Bulk: enqueue_many, a thousand at a time.

Crash-safe: yes. What a dead process held stays pending in the stream, and another claims it after a minute. No order,
no limits.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from streaq import Worker

from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, TOKEN, Item

_AT_ONCE = 1_000

_worker = Worker(redis_url=REDIS_URL, concurrency=COROUTINES, prefetch=4 * COROUTINES, handle_signals=False)
_send = _worker.task(name="send", silent=True, timeout=None, ttl=0)(common.handle)


async def _work() -> None:
    logging.getLogger("streaq").setLevel(logging.ERROR)
    async with anyio.create_task_group() as group:
        await group.start(_worker.run_async)
        common.ready()


class Producer:
    async def bulk(self, items: Sequence[Item]) -> None:
        for first in range(0, len(items), _AT_ONCE):
            await _worker.enqueue_many(
                [_send.enqueue(TOKEN, item.chat, item.text) for item in items[first : first + _AT_ONCE]]
            )

    async def single(self, item: Item) -> None:
        await _send.enqueue(TOKEN, item.chat, item.text)


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async with _worker:
        yield Producer()


if __name__ == "__main__":
    common.main(lambda: common.run(_work()), producer)
