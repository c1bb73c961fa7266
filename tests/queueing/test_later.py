"""What a message may ask of the shared queue: to expire, to be sent at a time, to be taken once."""

import json
import time

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease, Settlement
from queueing.message import MessageState, Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from tests.conftest import wait_until
from tests.queueing.desk import (  # fixtures among them
    BLOCKED,
    FRONT,
    REFUSED,
    P,
    drained,
    message,
    queue,
    settle,
    start,
    state,
    total,
)

__all__ = ["queue", "start"]


async def test_what_was_not_sent_in_time_expires(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", ttl=0.05), message("b", ttl=60), message("c", 43, ttl=0.05)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], REFUSED)
    await wait_until(lambda: _gone(redis, lease.message.accepted), "the ttl to pass")
    assert await drained(queue) == ["b"]
    assert await state(queue, "a") is await state(queue, "c") is MessageState.EXPIRED
    assert await total(redis, "expired") == 2


async def _gone(redis: Redis, accepted: float | None) -> bool:
    seconds, micros = await redis.time()
    return bool(accepted and seconds + micros / 1e6 > accepted + 0.06)


async def test_rule_14_what_is_scheduled_is_accepted_when_it_is_due(redis: Redis, queue: RedisQueue) -> None:
    at = time.time() + 0.4
    await queue.enqueue([message("later", send_at=at), message("bulk", 43, priority=Priority.BULK, send_at=at)])
    await redis.rpush(FRONT, json.dumps({"bot": "1", "chat_id": 42, "text": "x", "id": "pushed", "send_at": at}))
    await queue.enqueue([message("now"), message("past", send_at=5)])
    assert await drained(queue) == ["now", "past"]
    stats = await queue.stats()
    assert (stats.scheduled, stats.depth) == (3, 3)
    claim = await queue.claim(1)
    assert claim.next_due == pytest.approx(at - time.time(), abs=0.1)
    await queue.enqueue([message("before")])
    await queue.claim(0)
    leases: list[Lease] = []
    while len(leases) < 4:
        claim = await queue.claim(4, [Settlement(lease, Ack()) for lease in claim.leases])
        leases += claim.leases
        if not claim.leases:
            await queue.wait(0.25 if claim.next_due is None else claim.next_due + 0.001)
    names = [lease.message.id for lease in leases]
    assert [name for name in names if name != "bulk"] == ["before", "later", "pushed"]
    (later,) = [lease.message for lease in leases if lease.message.id == "later"]
    assert later.accepted == pytest.approx(at, abs=0.002)
    assert time.time() >= at


async def test_rule_14_the_order_is_that_of_due_times_and_none_is_early(queue: RedisQueue) -> None:
    now = time.time()
    due = {"c": now + 0.3, "a": now + 0.1, "b": now + 0.2}
    await queue.enqueue([message(name, send_at=at) for name, at in due.items()])
    came: dict[str, float] = {}
    while len(came) < len(due):
        claim = await queue.claim(1)
        came |= {lease.message.id: time.time() for lease in claim.leases}
        await settle(queue, claim.leases, Ack())
        await queue.wait(0.01)
    assert list(came) == ["a", "b", "c"]
    assert all(came[name] >= at - 0.001 for name, at in due.items()), "the queue's clock has milliseconds"


async def test_a_scheduled_message_can_be_cancelled(redis: Redis, queue: RedisQueue) -> None:
    at = time.time() + 0.2
    await queue.enqueue([message("a", send_at=at), message("b", send_at=at)])
    await queue.claim(0)
    assert await queue.cancel("a") is MessageState.CANCELLED
    await wait_until(lambda: _empty(redis, queue), "the schedule to be empty")
    assert await drained(queue) == ["b"]


async def _empty(redis: Redis, queue: RedisQueue) -> bool:
    await queue.claim(0)
    return await redis.zcard(f"{P}scheduled") == 0


async def test_a_status_outlives_its_schedule(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", send_at=time.time() + 300 * 86_400)])
    assert await redis.ttl(f"{P}msg:a") > 300 * 86_400


async def test_of_a_dedup_key_the_first_is_taken(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", dedup_key="k"), message("b", dedup_key="k"), message("c", 43, dedup_key="l")])
    await queue.enqueue([message("d", 44, bot="2", dedup_key="k")])
    assert await queue.first_with("1", "k") == "a"
    assert await queue.first_with("1", "z") is None
    assert await queue.status("b") is None
    pushed = {"bot": "1", "chat_id": 45, "text": "x"}
    for fields in (
        {"id": "e", "dedup_key": "k"},
        {"id": "f", "dedup_key": "m"},
        {"id": "f", "dedup_key": "m"},
        {"id": "g", "dedup_key": "n", "priority": "bulk"},
        {"id": "h", "dedup_key": "n", "priority": "bulk"},
    ):
        await redis.rpush(FRONT, json.dumps(pushed | fields))
    assert sorted(await drained(queue)) == ["a", "c", "d", "f", "g"]
    assert await total(redis, "deduplicated") == 4
    assert 86_000 < await redis.ttl(f"{P}dedup:1:k") <= 86_400


async def test_a_redriven_message_is_not_its_own_duplicate(queue: RedisQueue) -> None:
    await queue.enqueue([message("a", dedup_key="k", ttl=60, send_at=5)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], BLOCKED)
    await queue.redrive(["a"])
    assert await drained(queue) == ["a"]


WRONG = [
    ("ttl", 0),
    ("ttl", -1),
    ("ttl", "5"),
    ("ttl", 1e12),
    ("ttl", False),
    ("send_at", "tomorrow"),
    ("send_at", -1),
    ("send_at", 1_800_000_000_000),
    ("send_at", True),
    ("dedup_key", 5),
    ("dedup_key", ""),
    ("dedup_key", "é" * 129),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
async def test_a_wrong_field_goes_to_the_dead_letters(
    redis: Redis, queue: RedisQueue, field: str, value: object
) -> None:
    await redis.rpush(FRONT, json.dumps({"bot": "1", "chat_id": 42, "text": "x", field: value}))
    await drained(queue)
    await queue.claim(0)
    (letter,) = await queue.dead_letters()
    assert letter.reason == "malformed"
    assert letter.error.startswith(f"{field} must be")
