"""Maintenance: takes over what dead processes held, and trims the dead letters. Every process does it; the scripts make
it happen once."""

import asyncio
import logging

from queueing.contract import Queue
from queueing.errors import QueueError
from queueing.events import Observer, Reaped, Trimmed
from queueing.tasks import end

REAP_EVERY = 1.0
"""Seconds; so a dead process's messages are taken over at most this long after its lease ended."""

_logger = logging.getLogger(__name__)


class Maintenance:
    """Runs beside the worker, on its own task."""

    def __init__(self, queue: Queue, observe: Observer) -> None:
        self._queue = queue
        self._observe = observe
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="maintenance")

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REAP_EVERY)
            try:
                for one in await self._queue.reap():
                    self._observe(Reaped(one.incarnation, one.recovered, one.held))
                if dropped := await self._queue.trim():
                    self._observe(Trimmed(dropped))
            except QueueError as error:
                _logger.debug("reaping has to wait: %s", error)
