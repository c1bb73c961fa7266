"""Ending tasks for certain."""

import asyncio
from typing import Any


async def end(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancels the tasks and returns when all have ended, however they did; None is passed over.

    One cancellation is not enough: redis-py loses one that comes while it connects (8.1, `AbstractConnection.connect`).
    """
    running = {task for task in tasks if task is not None}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.1)
