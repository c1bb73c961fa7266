"""What the tests of the operator's verbs share: short words, and queues on Redis as separate processes would have them
(tests/queueing/both.py has those of either backend)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.limits import Rate, RateLimits
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Release

FRONT = "telegram_messages"
P = f"{{{FRONT}}}:"
Start = Callable[..., Awaitable[RedisQueue]]

REFUSED = Release(60, "network", "refused", counts=True)
BLOCKED = Bury("blocked", "by the user")


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    started: list[RedisQueue] = []

    async def start(**limits: Rate) -> RedisQueue:
        queue = RedisQueue(redis_url, limits=RateLimits(**limits))
        await queue.start()
        started.append(queue)
        return queue

    yield start
    for queue in started:
        await queue.close()


@pytest.fixture
async def queue(start: Start) -> RedisQueue:
    return await start()


def message(name: str = "a", chat: object = 42, bot: str = "1", **fields: object) -> Message:
    return Message(bot=bot, chat=str(chat), id=name, body={"text": name}, track=True, **fields)  # type: ignore[arg-type]


async def settle(queue: Queue, leases: Sequence[Lease], decision: Decision, want: int = 0) -> Claim:
    return await queue.claim(want, [Settlement(lease, decision) for lease in leases])


async def kill(queue: Queue, *names: str, chat: object = 42) -> None:
    """Makes dead letters of new messages, in this order."""
    for name in names:
        await queue.enqueue([message(name, chat)])
        (lease,) = (await queue.claim(1)).leases
        await settle(queue, [lease], BLOCKED)


async def drained(queue: Queue, decision: Decision = Ack()) -> list[str]:  # noqa: B008  frozen
    """What can be claimed now, in order; each is settled before the next."""
    names: list[str] = []
    claim = await queue.claim(1)
    while claim.leases or claim.next_due == 0:
        names += [lease.message.id for lease in claim.leases]
        claim = await settle(queue, claim.leases, decision, want=1)
    return names


async def state(queue: Queue, name: str) -> MessageState | None:
    status = await queue.status(name)
    return status.state if status else None


async def total(redis: Redis, field: str) -> int:
    return int(await redis.hget(f"{P}totals", field) or 0)
