"""The whole process: it comes up whatever is away, and goes down without losing anything."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from bot import outcomes
from bot.labels import METHODS, REASONS
from bot.playground import Playground, start_playground
from bot.playground.faults import Fault
from bot.runtime import Runtime
from bot.server import Draining
from bot.settings import Settings
from bot.store import leader_key
from bot.web import create_app
from queueing.limits import OFF, Rate
from queueing.redis_queue import RedisQueue
from tests.bot.served import (
    BOT,
    ROOT,
    TOKEN,
    Gunicorn,
    application,
    calls,
    listening,
    processes,
    say,
    sent_texts,
    settings_for,
)
from tests.conftest import Server, free_port, raw, wait_until

MESSAGES = "/api/v1/messages"


async def becomes_ready(client: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        return (await client.get("/health/ready")).status_code == 200

    await wait_until(ready, "it to be ready")


async def test_it_starts_without_redis_and_comes_up_with_it(
    playground: Playground, own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.stop()
    settings = settings_for(playground.url, own_server.url, redis_timeout=0.5)
    async with listening(create_app(settings)) as client:
        assert (await client.get("/health/live")).status_code == 200
        unready = await client.get("/health/ready")
        assert unready.status_code == 503
        assert "does not answer" in unready.json()["checks"]["queue"]
        await wait_until(lambda: "waiting for the queue's server" in caplog.text, "a line in the log")
        own_server.start()
        await becomes_ready(client)
        await client.post(MESSAGES, json={"chat_id": 42, "text": "hi"})
        await wait_until(lambda: sent_texts(playground) == ["hi"], "the message")


async def test_waiting_for_redis_at_the_start_is_told_once(
    own_server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    register = RedisQueue.register

    async def counted(queue: RedisQueue, bot: str, credential: str) -> None:
        tries.append(bot)
        await register(queue, bot, credential)

    monkeypatch.setattr(RedisQueue, "register", counted)
    monkeypatch.setattr("bot.runtime._REGISTER_AGAIN", 0.01)
    own_server.stop()
    runtime = Runtime(settings_for("http://127.0.0.1:1", own_server.url, redis_timeout=0.2))
    await runtime.start()
    await wait_until(lambda: len(tries) > 3, "three vain tries")
    await runtime.stop()
    assert caplog.text.count("waiting for the queue's server") == 1


async def test_it_starts_without_telegram_and_comes_up_with_it(redis_url: str) -> None:
    port = free_port()
    async with listening(create_app(settings_for(f"http://127.0.0.1:{port}", redis_url))) as client:

        async def told() -> bool:
            return "getMe does not work" in (await client.get("/health/ready")).json()["checks"]["bot"]

        await wait_until(told, "the reason")
        accepted = await client.post(MESSAGES, json={"chat_id": 42, "text": "kept meanwhile"})
        assert accepted.status_code == 202
        playground = await start_playground(port=port)
        playground.world.bot(TOKEN)
        try:
            await becomes_ready(client)
            await wait_until(lambda: sent_texts(playground) == ["kept meanwhile"], "the message")
        finally:
            await playground.close()


async def test_a_message_of_any_redis_client_is_sent(playground: Playground, redis: Redis, redis_url: str) -> None:
    async with application(settings_for(playground.url, redis_url)):
        await redis.rpush("telegram_messages", '{"chat_id": 42, "text": "hi"}')
        await wait_until(lambda: sent_texts(playground, 42) == ["hi"], "the message")


async def test_rule_10_a_used_server_holds_a_token_in_one_place(
    playground: Playground, redis: Redis, redis_url: str
) -> None:
    playground.world.faults.add(Fault(kind="blocked", method="sendMessage"), 43)
    playground.world.faults.add(Fault(kind="error", method="sendMessage"), 44)
    async with application(settings_for(playground.url, redis_url, rate_chat=OFF)) as client:
        for chat in (42, 43, 44):
            await client.post(MESSAGES, json={"chat_id": chat, "text": "hi"}, headers={"Idempotency-Key": f"{chat}"})
            pushed = {"bot_token": TOKEN, "chat_id": chat, "text": "pushed", "track": True}
            await redis.rpush("telegram_messages", json.dumps(pushed), json.dumps(pushed | {"method": "no method"}))
        say(playground, 42, "/ping")
        await wait_until(lambda: sorted(sent_texts(playground, 42)) == ["hi", "pong", "pushed"], "the answers")
        keys = await redis.keys("*")
        assert not any(TOKEN.partition(":")[2] in key for key in keys)
        holding = [key for key in keys if TOKEN.partition(":")[2].encode() in await raw(redis, key)]
    assert holding == ["{telegram_messages}:tokens"]


async def test_what_is_in_flight_at_the_end_is_finished_and_settled(
    playground: Playground, redis: Redis, redis_url: str
) -> None:
    playground.world.faults.add(Fault(kind="latency", method="sendMessage", ms=500), None)
    async with application(settings_for(playground.url, redis_url)) as client:
        accepted = await client.post(MESSAGES, json={"chat_id": 42, "text": "slow"})
        await wait_until(lambda: calls(playground, "sendMessage") == 1, "it to be on its way")
    assert await redis.hget(f"{{telegram_messages}}:msg:{accepted.json()['id']}", "status") == "sent"
    assert sent_texts(playground) == ["slow"]


async def test_a_new_process_finds_what_was_left(playground: Playground, redis: Redis, redis_url: str) -> None:
    await redis.rpush("telegram_messages", *[f'{{"chat_id": {n % 7 + 1}, "text": "{n}"}}' for n in range(50)])
    settings = settings_for(playground.url, redis_url, rate_chat=Rate(1, 0.2))
    for _ in range(2):
        async with application(settings):
            await wait_until(lambda: len(sent_texts(playground)) > 0, "the first messages")
    async with application(settings):
        await wait_until(lambda: len(sent_texts(playground)) >= 50, "all of them")
    for chat in range(1, 8):
        assert sent_texts(playground, chat) == [str(n) for n in range(50) if n % 7 + 1 == chat]


async def test_the_in_process_queue_empties_itself_at_the_end(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    playground.world.faults.add(Fault(kind="latency", method="sendMessage", ms=50), None)
    async with application(settings_for(playground.url, rate_chat=OFF)) as client:
        await client.post(MESSAGES, json=[{"chat_id": 42, "text": str(n)} for n in range(10)])
    assert sent_texts(playground) == [str(n) for n in range(10)]


async def test_what_the_in_process_queue_could_not_send_is_sent_by_the_next(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("bot.runtime.EMPTYING", 0.1)
    caplog.set_level("INFO", "queueing")
    playground.world.faults.add(Fault(kind="error", method="sendMessage"), None)
    async with application(settings_for(playground.url, retry_base=0.1)) as client:
        await client.post(MESSAGES, json=[{"chat_id": chat, "text": f"late {chat}"} for chat in (42, 43)])
    assert "2 messages are unsent and kept" in caplog.text
    playground.world.faults.clear()
    refused = len(sent_texts(playground))
    async with application(settings_for(playground.url)):
        await wait_until(
            lambda: sorted(sent_texts(playground)[refused:]) == ["late 42", "late 43"], "what was left to be sent"
        )
    assert not list(tmp_path.rglob("*.jsonl"))  # noqa: ASYNC240  a look


async def test_rule_18_six_processes_without_redis_keep_the_bots_limit_together(
    playground: Playground, tmp_path: Path
) -> None:
    gunicorn = Gunicorn(tmp_path, playground.url, None, processes=6, RATE_GLOBAL="20/1s")
    async with processes(gunicorn):
        async with asyncio.TaskGroup() as group:
            for chat in range(1, 61):
                group.create_task(_post_on_its_own(gunicorn.url, chat))
        await wait_until(lambda: len(sent_texts(playground)) == 60, "all of them", timeout=60)
    stamps = sorted(call.arrival_ns for call in playground.world.ledger.select(method="sendMessage"))
    # The stand-in shares this loop with sixty clients: a stamp that came late makes a window look shorter than it was.
    error = playground.world.clock.error_ms(stamps[0], stamps[-1]) / 1000
    times = [stamp / 1e9 for stamp in stamps]
    assert max(sum(start <= at < start + 0.99 - error for at in times) for start in times) <= 20, f"{error=}"


async def _post_on_its_own(url: str, chat: int) -> None:
    """A connection of its own, so that any of the processes may get it."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        (await client.post(MESSAGES, json={"chat_id": chat, "text": "hi"})).raise_for_status()


async def test_a_process_that_drains_does_not_win_the_election(
    playground: Playground, redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, seat = create_app(settings_for(playground.url, redis_url)), leader_key(BOT)
    server = Draining(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=3))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        await wait_until(lambda: calls(playground, "deleteWebhook") == 1, "it to lead")
        await redis.set(seat, "somebody else")
        await wait_until(lambda: "no longer leads" in caplog.text, "it to be deposed")
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        await wait_until(lambda: bool(server.server_state.tasks), "a request that takes long")
        server.should_exit = True
        await wait_until(lambda: not any(each.is_serving() for each in server.servers), "it to drain")
        await redis.delete(seat)
        await serving
        writer.close()
    assert calls(playground, "deleteWebhook") == 1


async def test_nothing_is_left_running_after_the_end(playground: Playground, redis_url: str) -> None:
    before = asyncio.all_tasks()
    async with application(settings_for(playground.url, redis_url)):
        pass

    def ended() -> bool:
        return not [task for task in asyncio.all_tasks() - before if "asyncio.server" not in str(task.get_coro())]

    await wait_until(ended, "all its tasks to end")


async def test_stopping_works_in_the_middle_of_starting(own_server: Server) -> None:
    own_server.stop()
    runtime = Runtime(settings_for("http://127.0.0.1:1", own_server.url, redis_timeout=0.2))
    await runtime.start()
    await runtime.stop()


def test_without_a_token_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="TELEGRAM_TOKEN"):
        Runtime(Settings(_env_file=None))


def test_no_part_shows_the_token(redis_url: str) -> None:
    async def shown() -> str:
        runtime = Runtime(settings_for("http://127.0.0.1:1", redis_url))
        parts = {name: part for name, part in vars(runtime).items() if name != "_token"}
        return repr([runtime, parts])

    assert TOKEN.partition(":")[2] not in asyncio.run(shown())


def test_the_module_makes_nothing_that_a_fork_would_break() -> None:
    code = (
        "import gc, socket, threading; import bot.web\n"
        "assert threading.active_count() == 1\n"
        "assert not [thing for thing in gc.get_objects() if isinstance(thing, socket.socket)]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_metrics_know_every_reason_and_the_common_methods() -> None:
    table = outcomes.__doc__ or ""
    documented = {
        reason for row in re.findall(r"^\| ([a-z_, ]+?) +\| [RD] \|", table, re.MULTILINE) for reason in row.split(", ")
    }
    assert len(documented) > 15
    assert documented | {"attempts", "outage", "parent_dead", "poison", "uncertain"} == REASONS
    assert {"sendMessage", "sendPhoto", "editMessageText", "answerCallbackQuery", "getMe"} <= METHODS


async def test_six_processes_share_the_work_and_stop_cleanly(
    playground: Playground, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=6, RATE_GLOBAL="off", RATE_CHAT="off")
    async with processes(gunicorn):
        elements = [f'{{"chat_id": {n % 100 + 1}, "text": "{n}"}}' for n in range(1000)]
        await redis.rpush("telegram_messages", *elements)
        await wait_until(lambda: len(sent_texts(playground)) >= 1000, "all of them")
    for chat in range(1, 101):
        assert sent_texts(playground, chat) == [str(n) for n in range(1000) if n % 100 + 1 == chat]
    assert gunicorn.master.returncode == 0
    assert any("starting" in line and redis_url in line for line in gunicorn.lines), "which queue runs"
    assert not any("Traceback" in line for line in gunicorn.lines)
