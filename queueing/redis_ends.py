"""Hears of the ends of awaited messages, on the channel to which the scripts publish them."""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from queueing.errors import QueueUnavailable
from queueing.redis_desk import text_of
from queueing.scripts import mapped_errors
from queueing.tasks import end
from queueing.turns import aligned

_QUIET = 5.0
"""Seconds without a word after which the server is asked whether it is there; after as many more it is not."""


class Ends:
    """Connects when there is someone to be told. What is published while the server is away is missed.

    connect: makes a client that tries nothing twice.
    """

    def __init__(self, connect: Callable[[Retry], "Redis"], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._told: list[Callable[[str], None]] = []
        self._started = False
        self._task: asyncio.Task[None] | None = None

    def hear(self, told: Callable[[str], None]) -> None:
        self._told.append(told)
        if self._started and self._task is None:
            self.start()

    def start(self) -> None:
        self._started = True
        if self._told:
            self._task = asyncio.create_task(self._run(), name="ends")

    async def close(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        client = self._connect(Retry(NoBackoff(), 0))
        try:
            while True:
                try:
                    with mapped_errors():
                        await self._listen(client)
                except QueueUnavailable:
                    await asyncio.sleep(0.25)  # claim says what is wrong; here it is enough not to spin
        finally:
            await client.aclose()

    async def _listen(self, client: "Redis") -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(self._channel)
            asked = False
            while True:
                message: Any = await channel.get_message(timeout=aligned(_QUIET))
                if message is None and asked:
                    raise QueueUnavailable("the server is silent")
                if asked := message is None:
                    await channel.ping()
                elif message["type"] == "message":
                    for told in self._told:
                        told(text_of(message["data"]))
