"""A queue of either backend, for the tests that run on both: real Valkey, and in process."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from queueing.contract import Queue
from queueing.limits import Rate, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.redis_queue import RedisQueue

BACKENDS = ["redis", "memory"]
MakeQueue = Callable[..., Queue]
StartAny = Callable[..., Awaitable[Queue]]


@pytest.fixture(params=BACKENDS)
async def make_queue(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[MakeQueue]:
    """With any option that both have."""
    made: list[Queue] = []

    def make(**options: object) -> Queue:
        on_redis = request.param == "redis"
        queue: Queue = RedisQueue(redis_url, **options) if on_redis else MemoryQueue(**options)  # type: ignore[arg-type]
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.close()


@pytest.fixture
async def start(make_queue: MakeQueue) -> StartAny:
    async def start(**limits: Rate) -> Queue:
        queue = make_queue(limits=RateLimits(**limits))  # type: ignore[arg-type]
        await queue.start()
        return queue

    return start


@pytest.fixture
async def queue(start: StartAny) -> Queue:
    return await start()
