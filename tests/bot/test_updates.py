"""Each update once: in Redis, shared by processes, and within one process."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bot import updates
from bot.store import connect, update_key, updates_key
from bot.updates import HANDLING_LEASE, MemoryUpdateLog, RedisUpdateLog, Standing, UpdateLog
from queueing.errors import QueueUnavailable
from tests.conftest import Server

BOT = "123"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, 5.0)
    yield client
    await client.aclose()


@pytest.fixture(params=["redis", "memory"])
def log(request: pytest.FixtureRequest, client: Redis) -> UpdateLog:
    return RedisUpdateLog(client, BOT) if request.param == "redis" else MemoryUpdateLog()


async def test_an_update_is_taken_once(log: UpdateLog) -> None:
    assert await log.begin(7) is Standing.NEW
    assert await log.begin(7) is Standing.HANDLING
    await log.done(7)
    assert await log.begin(7) is Standing.DONE
    assert await log.begin(8) is Standing.NEW


async def test_an_abandoned_update_may_be_taken_at_once(log: UpdateLog) -> None:
    assert await log.begin(7) is Standing.NEW
    await log.abandon(7)
    assert await log.begin(7) is Standing.NEW


async def test_a_lease_can_be_extended_while_it_lasts(log: UpdateLog) -> None:
    await log.begin(7)
    assert await log.extend(7)


async def test_processes_share_what_they_know_in_redis(client: Redis) -> None:
    one, other = RedisUpdateLog(client, BOT), RedisUpdateLog(client, BOT)
    await one.begin(7)
    assert await other.begin(7) is Standing.HANDLING
    await one.done(7)
    assert await other.begin(7) is Standing.DONE


async def test_bots_do_not_share_updates(client: Redis) -> None:
    await RedisUpdateLog(client, BOT).begin(7)
    assert await RedisUpdateLog(client, "456").begin(7) is Standing.NEW


async def test_an_update_of_a_dead_process_is_taken_when_its_lease_has_ended(client: Redis, redis: Redis) -> None:
    dead, alive = RedisUpdateLog(client, BOT), RedisUpdateLog(client, BOT)
    await dead.begin(7)
    assert 0 < await redis.pttl(update_key(BOT, 7)) <= HANDLING_LEASE * 1000
    await redis.delete(update_key(BOT, 7))  # as its expiry does
    assert await alive.begin(7) is Standing.NEW


async def test_a_process_that_comes_back_does_not_take_the_lease_from_the_next(client: Redis, redis: Redis) -> None:
    late, next_one = RedisUpdateLog(client, BOT), RedisUpdateLog(client, BOT)
    await late.begin(7)
    await redis.delete(update_key(BOT, 7))
    await next_one.begin(7)
    assert not await late.extend(7)
    await late.abandon(7)
    assert await RedisUpdateLog(client, BOT).begin(7) is Standing.HANDLING


async def test_memory_for_a_hundred_thousand_updates_is_a_few_small_keys(client: Redis, redis: Redis) -> None:
    log = RedisUpdateLog(client, BOT)
    first = 100_000_000
    for update_id in range(first, first + 4096, 64):
        await log.begin(update_id)
        await log.done(update_id)
    keys = await redis.keys("*")
    assert len(keys) == 2  # 4,096 ids that begin in the middle of a block
    assert all([await redis.strlen(key) <= 512 for key in keys])


async def test_no_key_stays_for_ever(client: Redis, redis: Redis) -> None:
    log = RedisUpdateLog(client, BOT)
    await log.begin(7)
    await log.done(7)
    await log.begin(8)
    ttls = {key: await redis.ttl(key) for key in await redis.keys("*")}
    assert set(ttls) == {update_key(BOT, 8), updates_key(BOT, 0)}
    assert 24 * 3600 < ttls[updates_key(BOT, 0)] <= 25 * 3600
    assert ttls[update_key(BOT, 8)] > 0


async def test_the_in_process_log_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_MOST", 2)
    log = MemoryUpdateLog()
    for update_id in (1, 2, 3):
        await log.begin(update_id)
        await log.done(update_id)
    assert await log.begin(1) is Standing.NEW
    assert await log.begin(3) is Standing.DONE


async def test_without_redis_it_says_so(own_server: Server) -> None:
    client = connect(own_server.url, 1.0)
    log = RedisUpdateLog(client, BOT)
    await log.begin(7)
    own_server.kill()
    with pytest.raises(QueueUnavailable):
        await log.begin(8)
    with pytest.raises(QueueUnavailable):
        await log.done(7)
    await client.aclose()
