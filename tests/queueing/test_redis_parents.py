"""What only the shared queue does with messages that wait for others: raw elements, and what it keeps in Redis."""

import contextlib
import json

import pytest
from redis.asyncio import Redis

from queueing.contract import Claim
from queueing.errors import QueueUnavailable
from queueing.memory_parents import KEPT_SECONDS, Parents
from queueing.message import new_id
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from tests.conftest import Server, wait_until
from tests.queueing.desk import FRONT, P, Start, message, queue, settle, start

__all__ = ["queue", "start"]


def element(id: str, **fields: object) -> str:
    return json.dumps({"bot": "1", "chat_id": 42, "text": id, "id": id, **fields})


def ids(claim: Claim) -> list[str]:
    return [lease.message.id for lease in claim.leases]


async def test_rule_22_what_came_of_it_is_kept_for_30_days(queue: RedisQueue, redis: Redis) -> None:
    await queue.enqueue([message("p1", provisional=True)])
    await settle(queue, (await queue.claim(1)).leases, Ack("17"))
    assert await redis.get(f"{P}ended:p1") == "=17"
    assert 30 * 86_400 - 60 < await redis.ttl(f"{P}ended:p1") <= 30 * 86_400
    assert not await redis.exists(f"{P}open")


async def test_rule_22_it_is_kept_for_as_long_again_when_it_is_made_use_of(queue: RedisQueue, redis: Redis) -> None:
    await queue.enqueue([message("p1", provisional=True)])
    claim = await settle(queue, (await queue.claim(1)).leases, Ack("17"))
    await redis.expire(f"{P}ended:p1", 60)
    await queue.enqueue([message("c", after=["p1"])])
    claim = await settle(queue, claim.leases, Ack(), want=1)
    assert claim.leases[0].message.results == {"p1": "17"}
    assert await redis.ttl(f"{P}ended:p1") > 30 * 86_400 - 60


def test_rule_22_so_it_is_within_a_process() -> None:
    parents, child = Parents(), message("c", after=["p1"])
    parents.keep("p1", "=17", 1_000.0)
    parents.use(child, 900.0)
    assert list(parents.ended(1_001.0)) == [("p1", "=17", 900.0 + KEPT_SECONDS)]


async def test_rule_22_an_id_that_is_pushed_again_is_not_taken_again(queue: RedisQueue, redis: Redis) -> None:
    await redis.rpush(FRONT, element("p1", provisional=True), element("p1", provisional=True))
    claim = await queue.claim(1)
    await redis.rpush(FRONT, element("p1", provisional=True))
    claim = await settle(queue, claim.leases, Ack("17"), want=5)
    assert ids(claim) == []
    await redis.rpush(FRONT, element("p1", provisional=True), element("c", after=["p1"]))
    claim = await queue.claim(5)
    assert [(lease.message.id, lease.message.results) for lease in claim.leases] == [("c", {"p1": "17"})]
    assert (await settle(queue, claim.leases, Ack())).next_due is None
    assert (await queue.stats()).depth == 0


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("after", [], "after must be 1 to 100 ids of messages"),
        ("after", "p1", "after must be 1 to 100 ids of messages"),
        ("after", ["p1", 7], "after must be 1 to 100 ids of messages"),
        ("after", ["p1,p2"], "after must be 1 to 100 ids of messages"),
        ("after", [f"p{n}" for n in range(101)], "after must be 1 to 100 ids of messages"),
        ("also", "a b", "also must be 1 to 128 letters, digits or any of _ . @ + -"),
        ("group", 7, "group must be 1 to 128 letters, digits or any of _ . @ + -"),
    ],
)
async def test_what_names_others_wrongly_is_a_dead_letter(
    field: str, value: object, error: str, queue: RedisQueue, redis: Redis
) -> None:
    await redis.rpush(FRONT, element("a", **{field: value}))
    assert list((await queue.claim(1)).buried) == [("malformed", error)]


async def test_those_that_are_after_each_other_or_themselves_do_not_wait_for_ever(
    queue: RedisQueue, redis: Redis
) -> None:
    await redis.rpush(
        FRONT, element("p1", provisional=True, after=["p2"]), element("p2", provisional=True, after=["p1"])
    )
    await redis.rpush(FRONT, element("p3", provisional=True, after=["p3"]), element("n"))
    claim = await queue.claim(5)
    assert ids(claim) == ["n"]
    assert [error for _, error in claim.buried] == [
        "message p2, which had to be sent before it, is not known",
        "message p1, which had to be sent before it, is dead",
        "message p3, which had to be sent before it, is not known",
    ]


async def test_those_after_one_that_cannot_be_read_die_with_it(queue: RedisQueue) -> None:
    await queue.enqueue([message("p1", provisional=True, ttl=-1.0), message("c", after=["p1"])])
    claim = await queue.claim(5)
    assert ids(claim) == []
    assert [reason for reason, _ in claim.buried] == ["malformed", "parent_dead"]


async def test_who_hears_of_ends_does_so_again_after_a_restart_of_the_server(own_server: Server) -> None:
    queue = RedisQueue(own_server.url)
    await queue.start()
    heard: list[str] = []
    queue.hear_ends(heard.append)

    async def hears() -> bool:
        with contextlib.suppress(QueueUnavailable):  # its connections broke
            await queue.enqueue([message(new_id(), awaited=True)])
            claim = await queue.claim(1)
            await settle(queue, claim.leases, Ack())
        return bool(heard)

    try:
        await wait_until(hears, "an end to be heard of")
        own_server.kill()
        own_server.start()
        heard.clear()
        await wait_until(hears, "an end to be heard of again")
    finally:
        await queue.close()


async def test_one_for_which_a_lane_waits_ends_in_another_process(start: Start) -> None:
    first, second = await start(), await start()
    await first.enqueue([message("p1", provisional=True), message("c", 43, after=["p1"])])
    claim = await first.claim(5)
    assert ids(await second.claim(5)) == []
    await settle(first, claim.leases, Ack("17"))
    claim = await second.claim(5)
    assert [(lease.message.id, lease.message.results) for lease in claim.leases] == [("c", {"p1": "17"})]
