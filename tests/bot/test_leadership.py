"""One process leads; another does soon after it does not any more."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bot import leadership
from bot.leadership import TERM, Election, FileSeat, RedisSeat, Seat
from bot.store import connect
from queueing.clock import CLOCK
from tests.conftest import Server, wait_until

KEY = "{telegram_messages}:leader:123"

MakeSeat = Callable[[], Seat]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, 5.0)
    yield client
    await client.aclose()


@pytest.fixture(params=["redis", "file"])
def make_seat(request: pytest.FixtureRequest, client: Redis, tmp_path: Path) -> MakeSeat:
    return lambda: RedisSeat(client, KEY) if request.param == "redis" else FileSeat(tmp_path / "leader.lock")


class Duty:
    """A duty that notes whether it is being done, and by how many."""

    def __init__(self) -> None:
        self.doing = 0
        self.begun = 0

    async def __call__(self) -> None:
        self.doing += 1
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.doing -= 1


async def test_a_seat_has_one_holder(make_seat: MakeSeat) -> None:
    one, other = make_seat(), make_seat()
    assert await one.take()
    assert one.held()
    assert not await other.take()
    assert not other.held()
    assert await one.renew()
    await one.leave()
    assert not one.held()
    assert await other.take()
    await other.leave()


async def test_a_seat_in_redis_expires(client: Redis, redis: Redis) -> None:
    await RedisSeat(client, KEY).take()
    assert 0 < await redis.pttl(KEY) <= TERM * 1000


async def test_what_the_seat_holds_names_the_process(client: Redis, redis: Redis) -> None:
    await RedisSeat(client, KEY).take()
    assert f":{os.getpid()}:" in await redis.get(KEY)


async def test_a_process_that_was_stopped_knows_that_it_may_have_lost(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat = RedisSeat(client, KEY)
    await seat.take()
    now = leadership.time.clock_gettime(CLOCK)
    monkeypatch.setattr(leadership.time, "clock_gettime", lambda _clock: now + TERM + 0.1)
    assert not seat.held()


async def test_a_stale_holder_neither_renews_nor_frees_the_seat(client: Redis, redis: Redis) -> None:
    late, other = RedisSeat(client, KEY), RedisSeat(client, KEY)
    await late.take()
    await redis.delete(KEY)  # as its expiry does
    await other.take()
    assert not await late.renew()
    assert not late.held()
    await late.leave()
    assert await other.renew()


async def test_one_does_the_duty_and_another_follows(make_seat: MakeSeat) -> None:
    duties = [Duty(), Duty()]
    elections = [Election(make_seat(), duty) for duty in duties]
    await elections[0].start()
    await wait_until(lambda: duties[0].doing == 1, "the first to lead")
    await elections[1].start()
    await elections[0].stop()
    await wait_until(lambda: duties[1].doing == 1, "the second to lead")
    assert duties[0].doing == 0
    await elections[1].stop()
    assert duties[1].doing == 0


async def test_a_duty_that_fails_is_taken_up_again(make_seat: MakeSeat, caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    async def duty() -> None:
        nonlocal tries
        tries += 1
        raise ValueError("a mistake in the duty")

    election = Election(make_seat(), duty)
    await election.start()
    await wait_until(lambda: tries >= 2, "a second try")
    await election.stop()
    assert "a mistake in the duty" in caplog.text


async def test_who_loses_the_seat_drops_the_duty(client: Redis, redis: Redis) -> None:
    duty = Duty()
    election = Election(RedisSeat(client, KEY), duty)
    await election.start()
    await wait_until(lambda: duty.doing == 1, "it to lead")
    await redis.set(KEY, "somebody else")
    await wait_until(lambda: duty.doing == 0, "it to notice")
    await redis.delete(KEY)
    await wait_until(lambda: duty.begun == 2, "it to lead again")
    await election.stop()


async def test_without_redis_nobody_leads_and_afterwards_somebody_does(own_server: Server) -> None:
    client = connect(own_server.url, 1.0)
    duty = Duty()
    election = Election(RedisSeat(client, KEY), duty)
    await election.start()
    await wait_until(lambda: duty.doing == 1, "it to lead")
    own_server.kill()
    await wait_until(lambda: duty.doing == 0, "it to stop leading")
    own_server.start()
    await wait_until(lambda: duty.doing == 1, "it to lead again")
    await election.stop()
    await client.aclose()


async def test_while_redis_is_full_nobody_leads_and_afterwards_somebody_does(own_server: Server) -> None:
    client = connect(own_server.url, 1.0)
    duty = Duty()
    await client.config_set("maxmemory", 1)
    election = Election(RedisSeat(client, KEY), duty)
    await election.start()
    await wait_until(lambda: _refused(client), "a try that was refused")
    await client.config_set("maxmemory", 0)
    await wait_until(lambda: duty.doing == 1, "it to lead")
    await election.stop()
    await client.aclose()


async def _refused(client: Redis) -> bool:
    """Whether the server refused anything for want of memory."""
    return "errorstat_OOM" in await client.info("errorstats")


@pytest.mark.parametrize("method", ["take", "held"])
async def test_a_mistake_does_not_end_the_election(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    duty, seat = Duty(), FileSeat(tmp_path / "leader.lock")
    right = getattr(seat, method)

    def wrong() -> object:
        monkeypatch.setattr(seat, method, right)
        raise ValueError("a mistake in the seat")

    monkeypatch.setattr(seat, method, wrong)
    election = Election(seat, duty)
    await election.start()
    await wait_until(lambda: "a mistake in the seat" in caplog.text, "the mistake to be logged")
    await wait_until(lambda: duty.doing == 1, "it to lead all the same")
    await election.stop()


async def test_a_lock_file_that_cannot_be_opened_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "leader.lock"
    path.symlink_to(tmp_path / "somewhere else")
    seat = FileSeat(path)
    assert not await seat.take()
    assert not await seat.take()
    assert caplog.text.count("lock file cannot be opened") == 1
    path.unlink()
    assert await seat.take()
    await seat.leave()
