"""The metrics of CONTRACT.md: from events, over several processes, and without Redis."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.playground import Playground
from monitoring.metrics import LIMIT_SCOPES, WEBHOOK_RESULTS, Metrics
from monitoring.snapshot import Snapshot
from queueing.contract import QueueStats
from queueing.errors import QueueUnavailable
from queueing.events import Acked, Buried, Claimed, Enqueued, Fenced, Limited, Reaped, Released, Unavailable
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, Priority
from queueing.redis_queue import RedisQueue
from tests.bot.served import SECRET_HEADER, Gunicorn, application, metric, processes, settings_for, telegram
from tests.conftest import Server, wait_until

MESSAGE = Message(bot="1", chat="42", body={"text": "hi"}, priority=Priority.INTERACTIVE)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["memory"], {"flood", "network", "uncertain"}, {"sendMessage", "sendDice"})


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    async with telegram() as running:
        yield running


async def page(metrics: Metrics) -> str:
    return (await metrics.page(Snapshot(MemoryQueue()))).decode()


async def test_a_message_that_is_sent_is_counted_and_timed(metrics: Metrics) -> None:
    metrics.count(Enqueued(MESSAGE), "memory")
    metrics.count(Claimed(MESSAGE, 0.2), "memory")
    metrics.count(Acked(MESSAGE, took=0.3, since_accepted=0.7), "memory")
    text = await page(metrics)
    labels = {"backend": "memory", "priority": "interactive"}
    assert metric(text, "messages_enqueued_total", **labels) == 1
    assert metric(text, "messages_sent_total", **labels) == 1
    assert metric(text, "pickup_seconds_sum") == pytest.approx(0.2)
    assert metric(text, "send_seconds_sum", method="sendMessage") == pytest.approx(0.3)
    assert metric(text, "delivery_seconds_sum", priority="interactive") == pytest.approx(0.7)
    assert metric(text, "messages_uncertain_total") == 0


async def test_retries_deaths_and_take_overs_are_counted(metrics: Metrics) -> None:
    metrics.count(Released(MESSAGE, "network", "connection refused", 1.0, uncertain=False), "memory")
    metrics.count(Released(MESSAGE, "flood", "429", 3.0, uncertain=True), "memory")
    metrics.count(Released(MESSAGE, None, None, 0.0, uncertain=False), "memory")  # was not tried: no retry
    metrics.count(Buried(MESSAGE, "network", "x", uncertain=True), "memory")
    metrics.count(Buried(None, "something new", "x"), "memory")
    metrics.count(Reaped("host:1", 3), "memory")
    metrics.count(Fenced(MESSAGE), "memory")
    metrics.count(Unavailable(1.0, "x"), "memory")
    text = await page(metrics)
    assert metric(text, "messages_retried_total", reason="network") == 1
    assert metric(text, "messages_retried_total", reason="flood") == 1
    assert metric(text, "messages_dead_total", reason="network") == 1
    assert metric(text, "messages_dead_total", reason="other") == 1
    assert metric(text, "lease_recoveries_total") == 3
    assert metric(text, "messages_uncertain_total") == 5


async def test_waits_for_limits_are_counted_from_zero(metrics: Metrics) -> None:
    before = await page(metrics)
    assert all(metric(before, "rate_limited_total", scope=scope) == 0 for scope in LIMIT_SCOPES)
    metrics.count(Limited("chat", 3), "memory")
    metrics.count(Limited("group", 1), "memory")
    metrics.count(Limited("bot", 2), "memory")
    metrics.count(Limited("bot", 5), "memory")
    metrics.count(Limited("anything else", 5), "memory")
    metrics.count(Released(MESSAGE, "flood", "429", 3.0, uncertain=False), "memory")
    text = await page(metrics)
    counted = {scope: metric(text, "rate_limited_total", scope=scope) for scope in LIMIT_SCOPES}
    assert counted == {"chat": 3, "group": 1, "bot": 7, "flood": 1}
    assert "anything" not in text


async def test_the_first_of_its_kind_is_counted_from_zero(metrics: Metrics) -> None:
    """Else `increase` would miss it: the first dead letter would alert nobody."""
    text = await page(metrics)
    for reason in ("flood", "network", "uncertain", "other"):
        assert metric(text, "messages_dead_total", reason=reason) == 0
        assert metric(text, "messages_retried_total", reason=reason) == 0
    for priority in Priority:
        assert metric(text, "delivery_seconds_count", priority=priority.value) == 0
    assert metric(text, "send_seconds_count", method="sendMessage") == 0


async def test_what_is_held_counts_as_dead_and_uncertain(metrics: Metrics) -> None:
    metrics.count(Reaped("host:1", 3, held=2), "memory")
    metrics.count(Buried(MESSAGE, "uncertain", "no answer", uncertain=True), "memory")
    text = await page(metrics)
    assert metric(text, "messages_dead_total", reason="uncertain") == 3
    assert metric(text, "messages_uncertain_total") == 4
    assert metric(text, "lease_recoveries_total") == 3


async def test_labels_come_from_fixed_sets(metrics: Metrics) -> None:
    for method in ("sendMessage", "SENDMESSAGE", "sendmessage", "sendDice", "x" * 1000, "123:TOKEN", "", 5, None):
        message = Message(bot="1", chat="42", body={"text": "hi", "method": method})
        metrics.count(Acked(message, 0.1, 0.1), "memory")
    for n in range(100):
        metrics.count(Buried(MESSAGE, f"reason {n}", "x"), "memory")
    text = await page(metrics)
    assert metric(text, "send_seconds_count", method="sendMessage") == 3
    assert metric(text, "send_seconds_count", method="sendDice") == 1
    assert metric(text, "send_seconds_count", method="other") == 5
    assert metric(text, "messages_dead_total", reason="other") == 100
    assert "TOKEN" not in text


async def test_updates_are_counted_by_result_from_zero(metrics: Metrics) -> None:
    metrics.count_update("handled", 0.1)
    text = await page(metrics)
    for result in WEBHOOK_RESULTS:
        assert metric(text, "webhook_updates_total", result=result) == (result == "handled")
    assert metric(text, "webhook_seconds_count") == 1


async def test_the_page_is_text_that_prometheus_reads(metrics: Metrics) -> None:
    metrics.count(Acked(MESSAGE, 0.1, 0.1), "memory")
    names = {family.name for family in text_string_to_metric_families(await page(metrics))}
    assert names >= {"telequeue_queue_depth", "telequeue_messages_sent", "telequeue_delivery_seconds"}
    assert all(name.startswith("telequeue_") for name in names)


async def test_the_depth_comes_from_the_queue(metrics: Metrics) -> None:
    queue = MemoryQueue()
    await queue.enqueue([MESSAGE, Message(bot="1", chat="43", body={"text": "hi"})])
    await queue.claim(1)
    text = (await metrics.page(Snapshot(queue))).decode()
    found = {state: metric(text, "queue_depth", state=state) for state in ("ready", "inflight", "waiting", "dead")}
    assert found == {"ready": 1, "inflight": 1, "waiting": 0, "dead": 0}
    age = metric(text, "oldest_message_age_seconds")
    assert age is not None
    assert age >= 0
    assert metric(text, "redis_up") is None  # there is no Redis to be up


async def test_without_redis_all_else_is_still_shown(metrics: Metrics, own_server: Server) -> None:
    queue = RedisQueue(own_server.url, timeout=0.5)
    await queue.start()
    metrics.count(Enqueued(MESSAGE), "memory")
    up = (await metrics.page(Snapshot(queue))).decode()
    own_server.kill()
    down = (await metrics.page(Snapshot(queue))).decode()
    await queue.close()
    assert metric(up, "redis_up") == 1
    assert metric(up, "queue_depth", state="ready") == 0
    assert metric(down, "redis_up") == 0
    assert metric(down, "queue_depth", state="ready") is None
    assert metric(down, "messages_enqueued_total", priority="interactive") == 1


class Counting(MemoryQueue):
    """A queue that counts how often it is asked for its stats, and may refuse."""

    asked = 0
    away = False

    async def stats(self) -> QueueStats:
        self.asked += 1
        if self.away:
            raise QueueUnavailable
        return await super().stats()


async def test_a_snapshot_asks_once_a_second_and_tells_when_there_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from monitoring import snapshot as module

    queue = Counting()
    snapshot = Snapshot(queue)
    assert await snapshot.read() == await snapshot.read() is not None
    assert queue.asked == 1
    monkeypatch.setattr(module, "_FRESH", 0.0)
    queue.away = True
    assert await snapshot.read() is None


async def test_one_scrape_adds_up_all_processes(playground: Playground, redis_url: str, tmp_path: Path) -> None:
    gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=3)
    async with processes(gunicorn) as client:

        async def shown(name: str, value: float, **labels: str) -> bool:
            return metric((await client.get("/metrics")).text, name, **labels) == value

        body = [{"chat_id": chat, "text": "hi"} for chat in range(1, 61)]
        assert (await client.post("/api/v1/messages", json=body)).status_code == 202
        sent = {"backend": "redis", "priority": "normal"}
        await wait_until(lambda: shown("messages_sent_total", 60, **sent), "all to be counted as sent")
        assert await shown("messages_enqueued_total", 60, **sent)
        assert await shown("delivery_seconds_count", 60, priority="normal")
        await wait_until(lambda: shown("processes", 3), "three processes")
        # As that of a process that starts is, for a moment, and of one that dies then for ever.
        (metrics_directories(tmp_path)[0] / "counter_1.db").touch()
        assert await shown("workers", 30)
        assert await shown("redis_up", 1)
        assert len(metrics_directories(tmp_path)) == 1

        await kill_one(client)
        # The dead one's counts stay, its gauges don't, and a new one takes its place.
        await wait_until(lambda: shown("processes", 3), "three processes again")
        await wait_until(lambda: shown("workers", 30), "their workers")
        assert await shown("messages_sent_total", 60, **sent)
        assert "a-token-of-tests" not in (await client.get("/metrics")).text
    assert "a-token-of-tests" not in gunicorn.log.read_text()
    assert not metrics_directories(tmp_path)


def metrics_directories(parent: Path) -> list[Path]:
    return list(parent.glob("telequeue-metrics-*"))


async def kill_one(client: httpx.AsyncClient) -> None:
    pids = [process["pid"] for process in (await client.get("/api/v1/queue")).json()["processes"]]
    os.kill(pids[0], signal.SIGKILL)

    async def gone() -> bool:
        try:
            living = (await client.get("/api/v1/queue")).json()["processes"]
        except httpx.TransportError:
            return False  # the connection was the dead one's
        fresh = [process for process in living if process["pid"] not in pids]
        return bool(fresh)

    await wait_until(gone, "a new process to take the killed one's place")


async def test_refused_updates_are_counted(playground: Playground, redis_url: str) -> None:
    async with application(settings_for(playground.url, redis_url)) as client:
        await client.post("/telegram/webhook", json={"update_id": 1}, headers=SECRET_HEADER)
        text = (await client.get("/metrics")).text
        assert metric(text, "webhook_updates_total", result="unauthorized") == 1
