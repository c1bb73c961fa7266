"""Rule 5: the server's clock is set, forward or back, and nothing of the queue's own moves with it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from queueing import scripts
from queueing.contract import Claim, Settlement
from queueing.limits import Rate, RateLimits
from queueing.redis_queue import RedisQueue
from queueing.retry import Bury, Release, Scope
from tests.queueing.desk import P, drained, message, settle, total

HOUR = 3600.0
BEGIN = 1_800_000_000.0

_TIME = "redis.call('TIME')"
_TEST_TIME = (
    "(function() local ms = redis.call('GET', 'test:time') return { math.floor(ms / 1000), ms % 1000 * 1000 } end)()"
)


@dataclass
class Time:
    """The server's clock, which the scripts read instead of the real one, and the clock of the processes."""

    redis: Redis
    server: float = BEGIN
    process: float = 1000.0

    async def set(self, by: float) -> None:
        self.server += by
        await self.redis.set("test:time", round(self.server * 1000), ex=300)

    async def go_on(self, seconds: float) -> None:
        self.process += seconds
        await self.set(seconds)


@pytest.fixture
async def time(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Time:
    time, read = Time(redis), scripts._read

    def read_with_test_time(name: str) -> str:
        return read(name).replace(_TIME, _TEST_TIME)

    assert _TIME in read("keys")
    monkeypatch.setattr(scripts, "_read", read_with_test_time)
    monkeypatch.setattr(RedisQueue, "clock", lambda _: time.process)
    await time.set(0)
    return time


@pytest.fixture
async def queue(time: Time, redis_url: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(redis_url, limits=RateLimits(bot=Rate(2, 1.0)))
    await queue.start()
    await queue.claim(0)
    yield queue
    await queue.close()


async def both(time: Time, queue: RedisQueue, seconds: float) -> Claim:
    await time.go_on(seconds)
    return await queue.claim(10)


@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_rule_5_a_jump_moves_no_log_of_what_left(time: Time, queue: RedisQueue, by: float) -> None:
    await queue.enqueue([message(str(n), n) for n in range(4)])
    await time.go_on(1)
    first = await queue.claim(10)
    await time.go_on(0.25)
    await time.set(by)
    assert len(first.leases) == 2
    second = await queue.claim(10, held=first.leases)
    assert not second.leases, "two of this second left before the jump"
    assert second.jumped == pytest.approx(by, abs=0.3)
    await time.go_on(2)
    assert len((await queue.claim(10, held=first.leases)).leases) >= 1, "and not for ever"


@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_rule_5_a_jump_ends_no_pause_and_makes_none_longer(time: Time, queue: RedisQueue, by: float) -> None:
    await queue.enqueue([message("a"), message("b")])
    flood = Release(60, "flood", "Too Many Requests: retry after 60", scope=Scope.CHAT)
    await settle(queue, (await queue.claim(1)).leases, flood)
    await time.set(by)
    assert not (await both(time, queue, 0.25)).leases
    (pause,) = await queue.paused()
    assert pause.until == pytest.approx(time.server + 59.75, abs=0.3), "people read it on the clock as it is now"
    assert not (await both(time, queue, 59)).leases
    assert len((await both(time, queue, 2)).leases) == 1


@pytest.mark.parametrize("by", [HOUR, -HOUR])
async def test_rule_5_a_jump_takes_no_lease_away(
    redis: Redis, time: Time, queue: RedisQueue, redis_url: str, by: float
) -> None:
    other = RedisQueue(redis_url)
    await other.start()
    await other.claim(0)
    await queue.enqueue([message()])
    (lease,) = (await queue.claim(1)).leases
    await time.set(by)
    assert not await other.reap()
    assert not (await queue.claim(0, held=[lease])).lost
    assert await total(redis, "clock_jumps") == 1
    # and a process that dies afterwards is found out as soon as ever
    for _ in range(20):
        await time.go_on(1)
        await other.claim(0)
    assert [one.recovered for one in await other.reap()] == [1]
    await other.close()


async def test_rule_5_the_clock_never_goes_back_even_a_little(time: Time, queue: RedisQueue, redis: Redis) -> None:
    seen = int(await redis.hget(f"{P}clock", "seen") or 0)
    await time.set(-1)
    assert (await queue.claim(0)).jumped == 0
    assert int(await redis.hget(f"{P}clock", "seen") or 0) == seen


async def test_rule_5_a_long_silence_is_no_jump(time: Time, queue: RedisQueue, redis: Redis) -> None:
    await queue.enqueue([message()])
    lease = (await queue.claim(1)).leases[0]
    await queue.claim(0, [Settlement(lease, Release(60, "network", "refused", counts=True))])
    claim = await both(time, queue, HOUR)  # the process was stopped, or the server away
    assert claim.jumped == 0
    assert len(claim.leases) == 1
    assert await total(redis, "clock_jumps") == 0


async def test_rule_5_what_is_asked_for_by_date_follows_the_date(time: Time, queue: RedisQueue) -> None:
    await queue.enqueue([message("later", send_at=BEGIN + HOUR)])
    assert await drained(queue) == []
    await time.set(HOUR)
    await time.go_on(1)
    assert await drained(queue) == ["later"]


async def test_rule_5_all_that_are_dead_are_replayed_after_a_step_back(time: Time, queue: RedisQueue) -> None:
    await queue.enqueue([message()])
    await settle(queue, (await queue.claim(1)).leases, Bury("blocked", "by the user"))
    await time.set(-HOUR)
    assert await queue.redrive_all() == 1
