"""saq: BLMOVE into a list of active jobs, a key for each job, written when it begins and deleted when it is done.

Conditions: orjson; nothing kept of a job that is done; as many operations at once as the producer has calls under way.
No bulk call.

Crash-safe: yes, with more than one try. The list of active jobs is swept: what ran out of its ten seconds is tried
again. So is a job that has been moved but has not begun, and then runs twice; the list is therefore swept every five
minutes here instead of every minute. No order, no limits.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson
from redis.asyncio import Redis
from saq import Queue, Worker
from saq.queue.redis import RedisQueue

from tests.benchmarks.contenders import common, side_by_side
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, TOKEN, Item

_SWEEP_SECONDS = 300


def _queue() -> Queue:
    logging.getLogger("saq").setLevel(logging.CRITICAL)
    redis = Redis.from_url(REDIS_URL, socket_timeout=None)  # a BLMOVE may wait for ever
    return RedisQueue(
        redis, name="bench", dump=orjson.dumps, load=orjson.loads, max_concurrent_ops=side_by_side.AT_ONCE
    )


async def _send(_context: object, *, token: str, chat: int, text: str) -> None:
    await common.handle(token, chat, text)


async def _started(_context: object) -> None:
    common.ready()


async def _work() -> None:
    queue = _queue()
    await queue.connect()
    await Worker(
        queue, [("send", _send)], concurrency=COROUTINES, startup=_started, timers={"sweep": _SWEEP_SECONDS}
    ).start()


class Producer:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def bulk(self, items: Sequence[Item]) -> None:
        await side_by_side.all_of(items, self.single)

    async def single(self, item: Item) -> None:
        await self._queue.enqueue("send", token=TOKEN, chat=item.chat, text=item.text, ttl=-1, retries=3)


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    queue = _queue()
    await queue.connect()
    yield Producer(queue)
    await queue.disconnect()


if __name__ == "__main__":
    common.main(lambda: common.run(_work()), producer)
