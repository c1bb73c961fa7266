"""The queue's counts for those who look often: scrapes and health checks share one question a second."""

import asyncio
import time

from queueing.contract import Front, QueueStats
from queueing.errors import QueueError

_FRESH = 1.0
"""Seconds for which an answer is shown again."""

_PATIENCE = 2.0
"""Seconds for which the queue's server is awaited: well below a scrape's usual timeout of 10."""


class Snapshot:
    """Asks `queue.stats()` once a second at most, however many ask here, and does not wait long for the answer."""

    def __init__(self, queue: Front) -> None:
        self.backend = queue.backend
        self._queue = queue
        self._asking = asyncio.Lock()
        self._asked = float("-inf")
        self._stats: QueueStats | None = None

    async def read(self) -> QueueStats | None:
        """The counts, at most a second old; None if the queue's server does not answer."""
        async with self._asking:
            if time.monotonic() - self._asked > _FRESH:
                self._stats = await self._ask()
                self._asked = time.monotonic()
            return self._stats

    async def _ask(self) -> QueueStats | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._queue.stats()
        except (QueueError, TimeoutError):
            return None
