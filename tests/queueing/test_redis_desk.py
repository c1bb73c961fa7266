"""The operator's verbs, and what a message may ask for: what only the shared queue has of them. Elements that other
programs push, totals, and how long keys live."""

import json
import time

import pytest
from redis.asyncio import Redis

from queueing import redis_desk
from queueing.message import MessageState
from queueing.redis_queue import RedisQueue
from tests.queueing.desk import (  # fixtures among them
    FRONT,
    REFUSED,
    P,
    Start,
    drained,
    kill,
    message,
    queue,
    settle,
    start,
    total,
)

__all__ = ["queue", "start"]


async def test_totals_count_what_ended_otherwise(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b"), message("c", 43, ttl=0.001)])
    await queue.cancel("b")
    await queue.cancel("b")
    await settle(queue, (await queue.claim(1)).leases, REFUSED)
    await queue.cancel("a")
    at = time.time()
    while time.time() < at + 0.01:
        await drained(queue)
    assert await total(redis, "cancelled") == 2
    assert await total(redis, "expired") == 1
    assert 0 < await redis.ttl(f"{P}msg:a") <= 86_400, "it ended: its status is kept as long as of others"


async def test_totals_count_what_became_of_the_dead(
    redis: Redis, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill(queue, "a", "b", "c", "d")
    monkeypatch.setattr(redis_desk, "DEAD_MOST", 3)
    await queue.trim()
    await queue.redrive(["b"])
    await queue.drop(["c", "never"])
    assert [await total(redis, name) for name in ("dead", "dead_dropped", "replayed", "dropped")] == [4, 1, 1, 1]
    assert await redis.zrange(f"{P}dead:index", 0, -1) == await redis.hkeys(f"{P}dead") == ["d"]


async def test_what_is_pushed_for_later_is_accepted_when_it_is_due(redis: Redis, queue: RedisQueue) -> None:
    at = time.time() + 0.2
    await redis.rpush(FRONT, json.dumps({"bot": "1", "chat_id": 42, "text": "x", "id": "pushed", "send_at": at}))
    assert await drained(queue) == []
    assert (await queue.stats()).scheduled == 1
    while not (claim := await queue.claim(1)).leases:
        await queue.wait(0.05)
    assert claim.leases[0].message.accepted == pytest.approx(at, abs=0.002)


async def test_what_a_process_gave_back_can_be_cancelled(start: Start, queue: RedisQueue) -> None:
    leaving = await start()
    await leaving.enqueue([message("a")])
    await leaving.claim(1)
    await leaving.close()
    assert await queue.cancel("a") is MessageState.CANCELLED
    assert await drained(queue) == []


async def test_a_status_outlives_its_schedule(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", send_at=time.time() + 300 * 86_400)])
    assert await redis.ttl(f"{P}msg:a") > 300 * 86_400


async def test_of_a_dedup_key_the_first_that_is_pushed_is_taken(redis: Redis, queue: RedisQueue) -> None:
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


@pytest.mark.parametrize("head", [False, True])
async def test_all_are_sent_again_in_their_order_and_those_that_die_again_are_left(
    redis: Redis, queue: RedisQueue, head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_desk, "_BATCH", 2)
    names = [f"m{n}" for n in range(5)]
    await kill(queue, *names)
    await redis.rpush(FRONT, "garbage")
    await queue.claim(0)
    assert await queue.redrive_all(head=head) == 6
    assert await drained(queue) == names
    (letter,) = await queue.dead_letters()
    assert letter.element == "garbage"


async def test_old_dead_letters_are_dropped(redis: Redis, queue: RedisQueue) -> None:
    await kill(queue, "old", "new")
    long_ago = (time.time() - redis_desk.DEAD_DAYS * 86_400 - 5) * 1000
    await redis.zadd(f"{P}dead:index", {"old": long_ago})
    assert await queue.trim() == 1
    assert await redis.hkeys(f"{P}dead") == ["new"]


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


async def test_what_waits_for_longer_than_its_status_is_kept_is_unknown(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await redis.delete(f"{P}msg:a")  # as after thirty days, for which its bot was paused
    await settle(queue, [lease], REFUSED)
    assert await queue.cancel("a") is None
    assert await queue.why("a") is None
    await redis.delete(f"{P}msg:a")
