"""What taskiq's two brokers share.

Conditions: no result backend; parameters are not validated; the formatter that dumps with pydantic alone (in half of
the time of the default one); as many messages fetched ahead as there are coroutines (more gain nothing). No bulk call.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from taskiq.api import run_receiver_task
from taskiq.formatters.json_formatter import JSONFormatter

from tests.benchmarks.contenders import common, side_by_side
from tests.benchmarks.contenders.common import COROUTINES, TOKEN, Item

CONNECTIONS = side_by_side.AT_ONCE + COROUTINES


class Producer:
    def __init__(self, task: Any) -> None:
        self._task = task

    async def bulk(self, items: Sequence[Item]) -> None:
        await side_by_side.all_of(items, self.single)

    async def single(self, item: Item) -> None:
        await self._task.kiq(TOKEN, item.chat, item.text)


def prepare(broker: Any) -> tuple[Callable[[], None], Callable[[], AbstractAsyncContextManager[Producer]]]:
    """→ work and producer, as common.main wants them."""
    logging.getLogger("taskiq").setLevel(logging.ERROR)
    broker = broker.with_formatter(JSONFormatter())
    task = broker.task(task_name="send")(common.handle)

    async def work() -> None:
        await broker.startup()
        common.ready()
        await run_receiver_task(broker, validate_params=False, max_async_tasks=COROUTINES, max_prefetch=COROUTINES)

    @asynccontextmanager
    async def producer() -> AsyncIterator[Producer]:
        await broker.startup()
        yield Producer(task)
        await broker.shutdown()

    return lambda: common.run(work()), producer
