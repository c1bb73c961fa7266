"""The plain list: RPUSH, and each coroutine's own BLPOP. What a process holds dies with it; no order, no limits."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from redis.asyncio import Redis

from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, TOKEN, Item

LIST = "rpush"
_AT_ONCE = 1_000


async def _take(redis: Redis) -> None:
    while True:
        taken: Any = await redis.blpop(LIST)
        message = orjson.loads(taken[1])
        await common.handle(message["bot_token"], message["chat_id"], message["text"])


async def _work() -> None:
    redis = Redis.from_url(REDIS_URL, socket_timeout=None)  # a BLPOP may wait for ever
    await redis.ping()
    common.ready()
    await asyncio.gather(*(_take(redis) for _ in range(COROUTINES)))


def _element(item: Item) -> bytes:
    return orjson.dumps({"bot_token": TOKEN, "chat_id": item.chat, "text": item.text})


class Producer:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def bulk(self, items: Sequence[Item]) -> None:
        """A pipeline of RPUSH with one element each, as one producer after the other would push them."""
        for first in range(0, len(items), _AT_ONCE):
            pipeline = self._redis.pipeline(transaction=False)
            for item in items[first : first + _AT_ONCE]:
                pipeline.rpush(LIST, _element(item))
            await pipeline.execute()

    async def single(self, item: Item) -> None:
        await self._redis.rpush(LIST, _element(item))


@asynccontextmanager
async def producer() -> AsyncIterator[Producer]:
    async with Redis.from_url(REDIS_URL) as redis:
        await redis.ping()
        yield Producer(redis)


if __name__ == "__main__":
    common.main(lambda: common.run(_work()), producer)
