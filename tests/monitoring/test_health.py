"""What liveness and readiness mean, and what they say when something is wrong."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bot.playground import Playground
from bot.playground.faults import Fault
from monitoring import snapshot
from monitoring.health import _MOVED, Health
from monitoring.server_watch import ServerWatch
from monitoring.snapshot import Snapshot
from queueing.contract import Queue, QueueStats
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.retry import Outcome, RetryPolicy, Sent
from queueing.worker import Worker
from tests.bot.served import application, listening, settings_for, telegram
from tests.conftest import Server, wait_until


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    async with telegram() as running:
        yield running


class Fixed(MemoryQueue):
    """A queue whose lease time and counts a test sets."""

    left = 10.0
    counts = QueueStats()

    async def stats(self) -> QueueStats:
        return self.counts

    def remaining(self) -> float:
        return self.left


@pytest.fixture
def queue() -> Fixed:
    return Fixed()


async def deliver(_message: Message, _may_write: object) -> Outcome:
    return Sent()


@pytest.fixture
async def worker(queue: Fixed) -> AsyncIterator[Worker]:
    worker = Worker(queue, deliver, workers=2, policy=RetryPolicy(), observe=lambda event: None)
    yield worker
    await worker.stop()


@pytest.fixture
def health(queue: Fixed, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr(snapshot, "_FRESH", 0.0)
    return health_of(queue, worker)


def health_of(queue: Queue, worker: Worker, bot_problem: str | None = None) -> Health:
    return Health(Snapshot(queue), [worker], ServerWatch(queue, lambda: True), lambda: bot_problem)


async def test_all_is_well(health: Health, worker: Worker) -> None:
    await worker.start()
    report = await health.ready()
    assert report.healthy
    assert report.as_json() == {"status": "ok", "checks": {"queue": "ok", "bot": "ok", "workers": "ok"}}
    assert health.live().as_json() == {"status": "ok", "checks": {"event_loop": "ok"}}


async def test_workers_that_have_ended_are_told(health: Health) -> None:
    report = await health.ready()
    assert not report.healthy
    assert report.as_json()["status"] == "failing"
    assert "ended" in report.checks["workers"]


async def test_an_unknown_bot_is_told(queue: Fixed, worker: Worker) -> None:
    await worker.start()
    report = await health_of(queue, worker, "getMe does not work").ready()
    assert report.checks["bot"] == "getMe does not work"
    assert not report.healthy


async def test_a_puller_that_hangs_is_told(health: Health, queue: Fixed, worker: Worker) -> None:
    await worker.start()
    queue.left = -1.0
    assert "lease time" in (await health.ready()).checks["workers"]


async def test_due_work_that_nobody_takes_is_told(health: Health, queue: Fixed, worker: Worker) -> None:
    await worker.start()
    queue.counts = QueueStats(ready=5, processed=3)
    await health.watch()
    health._moves["memory"]._page[_MOVED] -= 100
    assert "work is due" in (await health.ready()).checks["workers"]


@pytest.mark.parametrize(
    "counts",
    [
        QueueStats(processed=3),
        QueueStats(ready=5, processed=4),
        QueueStats(ready=5, inflight=1, processed=3),
        QueueStats(waiting=5, processed=3),
    ],
)
async def test_an_idle_or_working_queue_is_no_standstill(
    health: Health, queue: Fixed, worker: Worker, counts: QueueStats
) -> None:
    await worker.start()
    queue.counts = QueueStats(ready=5, processed=3)
    await health.watch()
    health._moves["memory"]._page[_MOVED] -= 100
    queue.counts = counts
    assert (await health.ready()).healthy


async def test_without_redis_it_is_not_ready_but_alive_and_recovers(playground: Playground, own_server: Server) -> None:
    settings = settings_for(playground.url, own_server.url, redis_timeout=0.5)
    async with application(settings) as client:
        own_server.kill()

        async def status(path: str, code: int) -> bool:
            return (await client.get(path)).status_code == code

        await wait_until(lambda: status("/health/ready", 503), "it to be unready")
        assert await status("/health/live", 200)
        body = (await client.get("/health")).json()
        assert body["status"] == "failing"
        assert "does not answer" in body["checks"]["queue"]
        assert body["checks"]["event_loop"] == "ok"
        own_server.start()
        await wait_until(lambda: status("/health/ready", 200), "it to be ready again")


@pytest.mark.usefixtures("redis")  # of an empty server: all that is in it gets into the other
async def test_with_a_replica_it_is_not_ready_until_that_is_the_primary(
    playground: Playground, own_server: Server, shared_server: Server
) -> None:
    async with application(settings_for(playground.url, own_server.url)) as client:
        report = (await client.get("/health")).json()
        assert report["status"] == "ok"
        assert ["everysec" in warning for warning in report["warnings"]] == [True]

        async def told() -> bool:
            answer = await client.get("/health/ready")
            return answer.status_code == 503 and "is a replica" in answer.json()["checks"]["queue"]

        async def ready() -> bool:
            return (await client.get("/health/ready")).status_code == 200

        async with Redis.from_url(own_server.url) as redis:
            await redis.replicaof("127.0.0.1", shared_server.port)
            await wait_until(told, "the reason")
            await redis.replicaof("NO", "ONE")
        await wait_until(ready, "it to be ready again")


async def test_an_outage_of_telegram_leaves_a_known_bot_ready(playground: Playground, redis_url: str) -> None:
    async with application(settings_for(playground.url, redis_url)) as client:
        playground.world.faults.add(Fault(kind="error"), None)
        assert (await client.get("/health/ready")).status_code == 200
    # And a process that starts in the middle of it learns from the others who the bot is.
    async with application(settings_for(playground.url, redis_url)) as client:
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_refused_token_is_told_in_words(playground: Playground, redis_url: str) -> None:
    from bot.web import create_app

    playground.world.faults.add(Fault(kind="unauthorized"), None)
    async with listening(create_app(settings_for(playground.url, redis_url))) as client:

        async def told() -> bool:
            return "TELEGRAM_TOKEN" in (await client.get("/health/ready")).json()["checks"]["bot"]

        await wait_until(told, "the reason")
        assert (await client.get("/health/ready")).status_code == 503
