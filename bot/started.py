"""Started: the parts of a process that run, each stopped in its turn."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from queueing.tasks import end
from queueing.turns import aligned

_logger = logging.getLogger(__name__)


class Started(AsyncExitStack):
    """What was started last is stopped first, by `aclose`."""

    async def begin(self, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
        await start()
        self.push_async_callback(stop)

    def in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """It is cancelled when its turn comes. What it raises before is logged then."""
        self.push_async_callback(_end, asyncio.create_task(work, name=name))

    def repeat(self, seconds: float, action: Callable[[], Awaitable[object]]) -> None:
        """In the background, with pauses of so many seconds."""

        async def repeatedly() -> None:
            while True:
                await action()
                await asyncio.sleep(aligned(seconds))

        self.in_background(repeatedly(), action.__name__)


async def _end(task: "asyncio.Task[None]") -> None:
    await end(task)
    if not task.cancelled() and (error := task.exception()):
        _logger.error("a background task had failed", exc_info=error)
