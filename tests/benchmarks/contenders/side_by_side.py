"""For the queues that have no call for many messages at once: one producer that keeps many single calls under way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tests.benchmarks.contenders.common import Item

AT_ONCE = 32
"""Twice or half as many are no faster."""


async def all_of(items: Sequence[Item], single: Callable[[Item], Awaitable[object]]) -> None:
    waiting = iter(items)

    async def put() -> None:
        for item in waiting:
            await single(item)

    await asyncio.gather(*(put() for _ in range(AT_ONCE)))
