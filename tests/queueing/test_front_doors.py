"""Rule 15: what stands at the front doors, and how fast it comes in."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from queueing.contract import Claim, Lease, Settlement
from queueing.message import Message, Priority
from queueing.redis_queue import DRAIN_MOST, RedisQueue
from queueing.retry import Ack, Outcome, RetryPolicy, Sent
from queueing.worker import _DRAIN_PAUSE, MayWrite, Worker
from tests.queueing.desk import FRONT, P, queue, start, total  # fixtures among them

__all__ = ["queue", "start"]

LOOK_AHEAD = 1000  # lua/drain.lua

Eventually = Callable[..., Awaitable[None]]


def bulk(n: int) -> Message:
    return Message(bot="1", chat=str(n), id=f"b{n}", body={"text": "x"}, priority=Priority.BULK)


def element(n: int, **fields: object) -> str:
    return json.dumps({"bot": "1", "chat_id": n, "id": f"e{n}", "text": "x"} | fields)


async def drain(queue: RedisQueue, calls: int = 30) -> None:
    for _ in range(calls):
        await queue.claim(0)


async def test_rule_15_bulk_stays_in_its_door_until_the_look_ahead_takes_it(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([bulk(n) for n in range(1500)])
    await drain(queue)
    assert (await redis.llen(f"{P}bulk"), await total(redis, "laned:b")) == (500, LOOK_AHEAD)
    claim = await queue.claim(10)
    assert {lease.message.id for lease in claim.leases} <= {f"b{n}" for n in range(LOOK_AHEAD)}, "the first of them"
    await queue.claim(0, [Settlement(lease, Ack()) for lease in claim.leases])
    assert (await redis.llen(f"{P}bulk"), await total(redis, "laned:b")) == (500 - len(claim.leases), LOOK_AHEAD)


async def test_rule_15_bulk_that_was_pushed_to_the_front_door_moves_at_once(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([bulk(n) for n in range(LOOK_AHEAD)])
    await drain(queue)
    await redis.rpush(FRONT, *(element(n, priority="bulk") for n in range(5)), element(77))
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.id == "e77", "it does not stand behind bulk"
    assert await redis.llen(FRONT) == 0
    waiting = [json.loads(one)["id"] for one in await redis.lrange(f"{P}bulk", 0, -1)]
    assert waiting == [f"e{n}" for n in range(5)]


class Watched(RedisQueue):
    """Counts what a worker asks of it."""

    claims = 0
    pauses = 0

    async def claim(self, want: int, settlements: Sequence[Settlement] = (), held: Sequence[Lease] = ()) -> Claim:
        self.claims += 1
        return await super().claim(want, settlements, held)

    async def wait(self, timeout: float) -> None:
        self.pauses += 1
        await super().wait(timeout)


@pytest.fixture
async def watched(redis_url: str) -> AsyncIterator[Watched]:
    queue = Watched(redis_url)
    await queue.start()
    yield queue
    await queue.close()


async def drains(redis: Redis, watched: Watched, eventually: Eventually, *, count: int) -> None:
    """Elements that come meanwhile are drained. Counts from here."""
    await redis.rpush(FRONT, *(element(n) for n in range(count)))
    watched.claims = watched.pauses = 0

    async def empty() -> bool:
        return await redis.llen(FRONT) + await redis.llen(f"{P}handoff") == 0

    await eventually(empty, "the front door is empty")


async def test_rule_15_a_paused_bots_messages_are_drained_without_a_rest(
    redis: Redis, watched: Watched, eventually: Eventually
) -> None:
    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        raise AssertionError("nothing may leave")

    await watched.pause("1")
    worker = Worker(watched, deliver, workers=10, policy=RetryPolicy(), observe=lambda event: None)
    await redis.rpush(FRONT, *(element(n) for n in range(5000)))
    await worker.start()
    await drains(redis, watched, eventually, count=5000)
    assert watched.claims <= 10_000 / DRAIN_MOST + 3, f"each takes {DRAIN_MOST}"
    assert watched.pauses <= 3, "nothing is waited for between two of them"
    assert await total(redis, "laned:n") == 10_000
    await worker.stop()


async def test_rule_15_a_busy_process_drains_10000_a_second(
    redis: Redis, watched: Watched, eventually: Eventually
) -> None:
    gate = asyncio.Event()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await gate.wait()
        return Sent()

    worker = Worker(watched, deliver, workers=10, policy=RetryPolicy(), observe=lambda event: None)
    await worker.start()
    await redis.rpush(FRONT, *(element(n) for n in range(10)))
    await eventually(lambda: worker.busy == 10, "all coroutines are busy")
    await drains(redis, watched, eventually, count=3000)
    assert watched.claims <= 3000 / DRAIN_MOST + 3
    assert DRAIN_MOST / _DRAIN_PAUSE >= 10_000, "with a pause after each"
    gate.set()
    await worker.stop()
