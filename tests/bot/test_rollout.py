"""Rule 17: REDIS_QUEUE_PERCENT, with real processes."""

import asyncio
import itertools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bot.playground import Playground
from bot.queues import make_queues
from bot.turns import Turns
from queueing.split_queue import is_in_share
from tests.bot.served import (
    BOT,
    ROOT,
    Gunicorn,
    application,
    metric,
    processes,
    sent_texts,
    settings_for,
)
from tests.conftest import Server, wait_until

MESSAGES = "/api/v1/messages"
IN_REDIS = [chat for chat in range(1, 1000) if is_in_share(BOT, str(chat), 50)]
IN_MEMORY = [chat for chat in range(1, 1000) if chat not in IN_REDIS]


@pytest.fixture
async def client(
    playground: Playground, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with application(settings_for(playground.url, redis_url, redis_queue_percent=50)) as client:
        yield client


async def test_each_message_goes_where_its_chat_is_and_both_are_told_of(
    client: httpx.AsyncClient, playground: Playground, redis: Redis
) -> None:
    chats = [*IN_REDIS[:3], *IN_MEMORY[:2]]
    answer = await client.post(MESSAGES, json=[{"chat_id": chat, "text": str(chat)} for chat in chats])
    ids = [one["id"] for one in answer.json()["messages"]]
    await wait_until(lambda: sorted(map(int, sent_texts(playground))) == sorted(chats), "all of them")
    in_redis = [await redis.exists(f"{{telegram_messages}}:msg:{id}") for id in ids]
    assert in_redis == [1, 1, 1, 0, 0]

    async def told() -> bool:
        return all([(await client.get(f"{MESSAGES}/{id}")).json()["status"] == "sent" for id in ids])

    await wait_until(told, "every status")
    page = (await client.get("/metrics")).text
    for name in ("messages_enqueued_total", "messages_sent_total"):
        assert metric(page, name, backend="redis", priority="normal") == 3
        assert metric(page, name, backend="memory", priority="normal") == 2
    assert metric(page, "redis_up") == 1
    assert metric(page, "workers") == 10
    queue = (await client.get("/api/v1/queue")).json()
    assert (queue["total_processed"], queue["total_workers"], queue["backend"]) == (5, 10, "split")
    assert set(queue["backends"]) == {"redis", "memory"}


async def test_what_is_paused_or_dead_is_found_in_either(client: httpx.AsyncClient, playground: Playground) -> None:
    await client.post("/api/v1/pause", json={"bot": BOT})
    both = [{"chat_id": chat, "text": "hi"} for chat in (IN_REDIS[0], IN_MEMORY[0])]
    ids = [one["id"] for one in (await client.post(MESSAGES, json=both)).json()["messages"]]
    for id in ids:

        async def explained(id: str = id) -> bool:
            waiting = (await client.get(f"{MESSAGES}/{id}")).json()["waiting"]
            return bool(waiting and waiting["reason"] == "paused")

        await wait_until(explained, "why it waits")
        assert (await client.delete(f"{MESSAGES}/{id}")).status_code == 200
    await client.post("/api/v1/resume", json={"bot": BOT})
    assert sent_texts(playground) == []


async def test_while_redis_is_away_the_other_chats_go_on(playground: Playground, own_server: Server) -> None:
    settings = settings_for(playground.url, own_server.url, redis_queue_percent=50, redis_timeout=0.2)
    async with application(settings) as client:
        own_server.stop()
        assert (await client.post(MESSAGES, json={"chat_id": IN_REDIS[0], "text": "no"})).status_code == 503
        assert (await client.post(MESSAGES, json={"chat_id": IN_MEMORY[0], "text": "yes"})).status_code == 202
        await wait_until(lambda: sent_texts(playground) == ["yes"], "the message")
        assert (await client.get("/health/ready")).status_code == 503
        own_server.start()


@pytest.mark.parametrize(("percent", "backends"), [(0, ["memory"]), (1, ["redis", "memory"]), (100, ["redis"])])
def test_rule_17_what_there_is_is_divided(percent: int, backends: list[str]) -> None:
    settings = settings_for("http://127.0.0.1:1", "redis://127.0.0.1:1", redis_queue_percent=percent)
    queues = make_queues(settings, BOT, Turns())
    assert [part.queue.backend for part in queues.parts] == backends
    assert sum(part.workers for part in queues.parts) == 10


@pytest.mark.parametrize(("rate", "limit", "messages"), [("20/1s", 20, 60), ("3/1s", 3, 12)])
async def test_rule_17_six_processes_with_both_queues_keep_the_bots_limit_together(
    playground: Playground, redis_url: str, tmp_path: Path, rate: str, limit: int, messages: int
) -> None:
    given = {"RATE_GLOBAL": rate, "REDIS_QUEUE_PERCENT": "50"}
    gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=6, **given)
    async with processes(gunicorn) as client:
        assert any("for 50 % of the chats" in line for line in gunicorn.lines)
        await _post_to_any(gunicorn.url, range(1, messages + 1))
        await wait_until(lambda: len(sent_texts(playground)) == messages, "all of them", timeout=60)
        page = (await client.get("/metrics")).text
    in_redis = sum(is_in_share(BOT, str(chat), 50) for chat in range(1, messages + 1))
    assert metric(page, "messages_enqueued_total", backend="redis", priority="normal") == in_redis
    assert metric(page, "messages_enqueued_total", backend="memory", priority="normal") == messages - in_redis
    stamps = sorted(call.arrival_ns for call in playground.world.ledger.select(method="sendMessage"))
    # The stand-in shares this loop with its clients: a stamp that came late makes a window look shorter than it was.
    error = playground.world.clock.error_ms(stamps[0], stamps[-1]) / 1000
    times = [stamp / 1e9 for stamp in stamps]
    assert max(sum(start <= at < start + 0.99 - error for at in times) for start in times) <= limit, f"{error=}"


async def _post_to_any(url: str, chats: range) -> None:
    """A connection for each, so that any of the processes may get it."""
    no_reuse = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=20, limits=no_reuse) as client:
        answers = await asyncio.gather(*(client.post(MESSAGES, json={"chat_id": chat, "text": "hi"}) for chat in chats))
    for answer in answers:
        answer.raise_for_status()


class Reloading(Gunicorn):
    """Takes its percentage from a `.env` that can be changed while it runs."""

    def __init__(self, directory: Path, *args: Any, **more: Any) -> None:
        super().__init__(directory, *args, **more)
        self._directory = directory

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "gunicorn"), "--config", str(ROOT / "gunicorn.conf.py")]
        with self.log.open("ab") as log:
            self.master = subprocess.Popen(
                command, cwd=self._directory, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def configure(self, **variables: str) -> None:
        (self._directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))

    def pids(self) -> set[str]:
        children = Path(f"/proc/{self.master.pid}/task/{self.master.pid}/children")
        return set(children.read_text().split())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"REDIS_QUEUE_PERCENT": "30"}, {"REDIS_QUEUE_PERCENT": "80"}),
        ({"REDIS_QUEUE_PERCENT": "80"}, {"REDIS_QUEUE_PERCENT": "30"}),
        ({"USE_REDIS_QUEUE": "false"}, {"REDIS_QUEUE_PERCENT": "100"}),
    ],
)
async def test_rule_17_a_change_of_the_percentage_loses_nothing_and_keeps_order_once_drained(
    playground: Playground, redis_url: str, tmp_path: Path, before: dict[str, str], after: dict[str, str]
) -> None:
    gunicorn = Reloading(tmp_path, playground.url, redis_url, processes=2, RATE_GLOBAL="off", RATE_CHAT="3/1s")
    del gunicorn._environment["USE_REDIS_QUEUE"]
    gunicorn.configure(**{"USE_REDIS_QUEUE": "true", **before})
    chats, many = range(1, 41), 30
    async with processes(gunicorn):
        await _post(gunicorn.url, chats, range(many))
        old = gunicorn.pids()
        gunicorn.configure(**{"USE_REDIS_QUEUE": "true", **after})
        gunicorn.master.send_signal(signal.SIGHUP)
        await wait_until(lambda: len(gunicorn.pids()) == 2 and not gunicorn.pids() & old, "a reload", timeout=60)
        await wait_until(lambda: len(sent_texts(playground)) >= many * len(chats), "the first part", timeout=60)
        await _post(gunicorn.url, chats, range(many, many + 5))
        await wait_until(lambda: len(sent_texts(playground)) >= (many + 5) * len(chats), "the rest", timeout=60)
    for chat in chats:
        assert sent_texts(playground, chat) == [str(n) for n in range(many + 5)]
    assert any("had left unsent" in line for line in gunicorn.lines)
    assert not any("Traceback" in line for line in gunicorn.lines)


async def _post(url: str, chats: range, texts: range) -> None:
    """To one process: the order of what several are given is promised by nobody."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        body = [{"chat_id": chat, "text": str(n)} for n, chat in itertools.product(texts, chats)]
        for first in range(0, len(body), 1000):
            (await client.post(MESSAGES, json=body[first : first + 1000])).raise_for_status()
