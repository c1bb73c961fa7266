"""Redis for those who cannot await: PTB's methods about jobs are no coroutines, and are called within handlers.

The caller, and with it the process's event loop, stands still until the answer is there. So: one small question each.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis

from queueing.errors import QueueUnavailable
from queueing.scripts import mapped_errors

T = TypeVar("T")


class BlockingRedis:
    """A client on an event loop of its own, in a thread that begins with the first question: so it knows all that the
    queue's own connections know, of Sentinels, clusters and TLS.

    connect: makes the client. timeout: seconds for which an answer is awaited.
    """

    def __init__(self, connect: Callable[[], "Redis"], timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._redis: Redis | None = None
        self._thread: threading.Thread | None = None

    def ask(self, question: Callable[["Redis"], Awaitable[T]]) -> T:
        """The answer. Raises QueueUnavailable, and QueueFull while Redis has no memory left."""
        if self._loop is None:
            self._begin()
        assert self._loop is not None
        answer = asyncio.run_coroutine_threadsafe(self._answer(question), self._loop)
        try:
            return answer.result(self._timeout)
        except TimeoutError as error:
            answer.cancel()
            raise QueueUnavailable(f"no answer within {self._timeout:g} s") from error

    def close(self) -> None:
        """Ends the thread. The next question begins another."""
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._disconnect(), loop).result(self._timeout)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _begin(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._redis = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="blocking-redis", daemon=True)
        self._thread.start()

    async def _answer(self, question: Callable[["Redis"], Awaitable[T]]) -> T:
        if self._redis is None:
            self._redis = self._connect()
        with mapped_errors():
            return await question(self._redis)

    async def _disconnect(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()
            self._redis = None
