"""arq: a sorted set of ids that every process polls, a key for each message, taken under WATCH.

Conditions: polled every 10 ms; no results, no log, pickle (its default; orjson is no faster). Six processes race for
the same ids, which doubles their commands; to read fewer or more ids a poll changes little. No bulk call.

Crash-safe: yes. A message stays in the set until it is done; that of a dead process is free again when its lock ends,
after five minutes. In order of their enqueue, but for what runs side by side. No limits.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func

from tests.benchmarks.contenders import common, side_by_side
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, TOKEN, Item


async def _send(_context: object, token: str, chat: int, text: str) -> None:
    await common.handle(token, chat, text)


async def _started(_context: object) -> None:
    common.ready()


async def _work() -> None:
    logging.getLogger("arq").setLevel(logging.ERROR)
    worker = Worker(
        [func(_send, name="send")],
        redis_settings=RedisSettings.from_dsn(REDIS_URL),
        on_startup=_started,
        handle_signals=False,
        max_jobs=COROUTINES,
        poll_delay=0.01,
        keep_result=0,
        log_results=False,
    )
    await worker.async_run()


class Producer:
    def __init__(self, pool: ArqRedis) -> None:
        self._pool = pool

    async def bulk(self, items: Sequence[Item]) -> None:
        await side_by_side.all_of(items, self.single)

    async def single(self, item: Item) -> None:
        await self._pool.enqueue_job("send", TOKEN, item.chat, item.text)


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    pool = await create_pool(RedisSettings.from_dsn(REDIS_URL))
    yield Producer(pool)
    await pool.aclose()


if __name__ == "__main__":
    common.main(lambda: common.run(_work()), producer)
