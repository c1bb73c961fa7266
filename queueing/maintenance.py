"""Maintenance: takes over what dead processes held, and trims the dead letters. Every process may do it; the scripts
make it happen once."""

import asyncio
import logging
from itertools import count

from queueing.contract import Queue
from queueing.errors import QueueError
from queueing.events import Observer, Reaped, Trimmed
from queueing.tasks import end
from queueing.turns import Turn

REAP_EVERY = 1.0
"""Seconds; so a dead process's messages are taken over at most this long after its lease ended."""

_TRIM_EVERY = 10
"""Of so many times, one is for the dead letters, too."""

_logger = logging.getLogger(__name__)


class Maintenance:
    """Runs beside the worker, on its own task. turn: shared by processes of this machine that have this queue."""

    def __init__(self, queue: Queue, observe: Observer, turn: Turn | None = None) -> None:
        self._queue = queue
        self._observe = observe
        self._turn = turn or Turn()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="maintenance")

    async def stop(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        for number in count():
            await self._turn.wait(REAP_EVERY)
            try:
                for one in await self._queue.reap():
                    self._observe(Reaped(one.incarnation, one.recovered, one.held))
                if number % _TRIM_EVERY == 0 and (dropped := await self._queue.trim()):
                    self._observe(Trimmed(dropped))
            except QueueError as error:
                self._turn.failed()
                _logger.debug("reaping has to wait: %s", error)
