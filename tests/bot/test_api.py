"""The HTTP API on the whole application, with both queues; and who may use it."""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from starlette.requests import Request

from bot.access import Access
from bot.api import MAX_BODY
from bot.idempotency import MemoryFirstBodies, RedisFirstBodies
from bot.playground import Playground
from bot.store import connect
from bot.submission import MOST
from queueing.limits import OFF
from tests.bot.served import BOT, TOKEN, application, sent_texts, settings_for, telegram
from tests.conftest import Server, wait_until

MESSAGES = "/api/v1/messages"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(params=["redis", "memory"])
async def client(
    request: pytest.FixtureRequest, playground: Playground, redis_url: str, own_lock_directory: None
) -> AsyncIterator[httpx.AsyncClient]:
    url = redis_url if request.param == "redis" else None
    quick = {"retry_base": 0.01, "max_attempts": 2, "rate_chat": OFF, "rate_global": OFF}
    settings = settings_for(playground.url, url, **quick)
    async with application(settings) as client:
        yield client


@pytest.fixture
def own_lock_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that processes without Redis elect a leader by is this test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


async def status_of(client: httpx.AsyncClient, id: str, *, becomes: str) -> dict[str, Any]:
    async def arrived() -> bool:
        return bool((await client.get(f"{MESSAGES}/{id}")).json().get("status") == becomes)

    await wait_until(arrived, f"{id} to be {becomes}")
    return dict((await client.get(f"{MESSAGES}/{id}")).json())


@pytest.mark.parametrize("path", [MESSAGES, f"{MESSAGES}/send"])
async def test_a_message_is_accepted_sent_and_told_of(
    client: httpx.AsyncClient, playground: Playground, path: str
) -> None:
    response = await client.post(path, json={"chat_id": 42, "text": "hi", "kwargs": {"parse_mode": "HTML"}})
    assert response.status_code == 202
    accepted = response.json()
    assert set(accepted) == {"id", "status", "created_at"}
    assert accepted["status"] == "pending"
    assert re.fullmatch(TIME, accepted["created_at"])

    status = await status_of(client, accepted["id"], becomes="sent")
    assert re.fullmatch(TIME, status.pop("created_at"))
    assert re.fullmatch(TIME, status.pop("sent_at"))
    assert status.pop("telegram_message_id") > 0
    assert status == {
        "id": accepted["id"],
        "status": "sent",
        "bot": BOT,
        "chat_id": "42",
        "attempts": 0,
        "error": None,
        "waiting": None,
    }
    assert sent_texts(playground) == ["hi"]


async def test_an_array_is_accepted_in_its_order(client: httpx.AsyncClient, playground: Playground) -> None:
    texts = [f"number {n}" for n in range(20)]
    response = await client.post(MESSAGES, json=[{"chat_id": "42", "text": text} for text in texts])
    assert response.status_code == 202
    ids = [accepted["id"] for accepted in response.json()["messages"]]
    assert len(set(ids)) == 20
    await status_of(client, ids[-1], becomes="sent")
    assert sent_texts(playground, 42) == texts


async def test_other_methods_can_be_called(client: httpx.AsyncClient, playground: Playground) -> None:
    body = {"chat_id": 42, "method": "sendDice", "kwargs": {"emoji": "🎯"}, "priority": "interactive", "track": True}
    response = await client.post(MESSAGES, json=body)
    await status_of(client, response.json()["id"], becomes="sent")
    assert [call.method for call in playground.world.ledger.select(chat=42)] == ["sendDice"]


async def test_a_message_that_telegram_refuses_is_dead_with_the_reason(client: httpx.AsyncClient) -> None:
    response = await client.post(MESSAGES, json={"chat_id": 42, "text": "x" * 5000})
    status = await status_of(client, response.json()["id"], becomes="dead")
    assert "too long" in status["error"]
    assert status["sent_at"] is None


async def test_another_bots_message_comes_with_its_token(client: httpx.AsyncClient, playground: Playground) -> None:
    playground.world.bot("777:another-token")
    first = await client.post(MESSAGES, json={"chat_id": 42, "text": "a", "bot_token": "777:another-token"})
    assert (await status_of(client, first.json()["id"], becomes="sent"))["bot"] == "777"
    second = await client.post(MESSAGES, json={"chat_id": 42, "text": "b", "bot": "777"})
    await status_of(client, second.json()["id"], becomes="sent")
    assert [call.bot for call in playground.world.ledger.select(method="sendMessage")] == [777, 777]


async def test_the_configured_bots_token_may_be_given_but_not_replaced(client: httpx.AsyncClient) -> None:
    right = await client.post(MESSAGES, json={"chat_id": 42, "text": "a", "bot_token": TOKEN})
    assert right.status_code == 202
    wrong = await client.post(MESSAGES, json={"chat_id": 42, "text": "a", "bot_token": f"{BOT}:something-else"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "bot_token")
    assert "something-else" not in wrong.text
    after = await client.post(MESSAGES, json={"chat_id": 42, "text": "b"})
    await status_of(client, after.json()["id"], becomes="sent")


async def test_the_same_idempotency_key_enqueues_once(client: httpx.AsyncClient, playground: Playground) -> None:
    headers = {"Idempotency-Key": "order-17"}
    body = {"chat_id": 42, "text": "once"}
    first = (await client.post(MESSAGES, json=body, headers=headers)).json()
    await status_of(client, first["id"], becomes="sent")
    second = await client.post(MESSAGES, json=body, headers=headers)
    assert second.status_code == 202
    assert second.json() == {**first, "status": "sent", "created_at": second.json()["created_at"]}
    other = (await client.post(MESSAGES, json=body, headers={"Idempotency-Key": "order-18"})).json()
    assert other["id"] != first["id"]
    await status_of(client, other["id"], becomes="sent")
    assert sent_texts(playground) == ["once", "once"]


@pytest.mark.parametrize(
    "other",
    [
        {"chat_id": 42, "text": "another"},
        [{"chat_id": 42, "text": "once"}],
        [{"chat_id": 42, "text": "once"}, {"chat_id": 42, "text": "more"}],
    ],
)
async def test_an_idempotency_key_belongs_to_what_it_first_came_with(
    client: httpx.AsyncClient, playground: Playground, other: Any
) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await client.post(MESSAGES, json={"chat_id": 42, "text": "once"}, headers=headers)
    refused = await client.post(MESSAGES, json=other, headers=headers)
    assert (refused.status_code, refused.json()["field"]) == (422, "Idempotency-Key")
    again = await client.post(MESSAGES, json={"text": "once", "chat_id": 42}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    await status_of(client, first.json()["id"], becomes="sent")
    assert sent_texts(playground) == ["once"]


async def test_an_empty_idempotency_key_is_refused(client: httpx.AsyncClient) -> None:
    refused = await client.post(MESSAGES, json={"chat_id": 42, "text": "a"}, headers={"Idempotency-Key": ""})
    assert (refused.status_code, refused.json()["field"]) == (422, "Idempotency-Key")


async def test_an_idempotency_key_is_forgotten_some_time_after_its_last_use(redis_url: str) -> None:
    redis = connect(redis_url, 5.0)
    for bodies in (RedisFirstBodies(redis, 0.05), MemoryFirstBodies(0.05)):
        assert [await bodies.first("key", body) for body in ("a", "b", "a")] == ["a", "a", "a"]
        ends = time.monotonic() + 0.06
        await wait_until(lambda ends=ends: time.monotonic() > ends, "it to be forgotten")
        assert await bodies.first("key", "b") == "b"
    await redis.aclose()


async def test_an_idempotency_key_covers_an_array(client: httpx.AsyncClient, playground: Playground) -> None:
    headers = {"Idempotency-Key": "batch-1"}
    body = [{"chat_id": 42, "text": str(n)} for n in range(3)]
    answers = [(await client.post(MESSAGES, json=body, headers=headers)).json()["messages"] for _ in range(2)]
    ids = [[accepted["id"] for accepted in answer] for answer in answers]
    assert ids[0] == ids[1]
    for id in ids[0]:
        await status_of(client, id, becomes="sent")
    assert sent_texts(playground) == ["0", "1", "2"]


async def test_an_id_of_the_clients_own_is_taken_once(client: httpx.AsyncClient, playground: Playground) -> None:
    for text in ("first", "second"):
        response = await client.post(MESSAGES, json={"chat_id": 42, "text": text, "id": "mine:1"})
        assert response.json()["id"] == "mine:1"
    await status_of(client, "mine:1", becomes="sent")
    assert sent_texts(playground) == ["first"]


INVALID: list[tuple[Any, str | None]] = [
    ({"text": "hi"}, "chat_id"),
    ({"chat_id": None, "text": "hi"}, "chat_id"),
    ({"chat_id": "not a chat", "text": "hi"}, "chat_id"),
    ({"chat_id": 1.5, "text": "hi"}, "chat_id"),
    ({"chat_id": True, "text": "hi"}, "chat_id"),
    ({"chat_id": 42}, "text"),
    ({"chat_id": 42, "text": 5}, "text"),
    ({"chat_id": 42, "text": "hi", "kwargs": []}, "kwargs"),
    ({"chat_id": 42, "text": "hi", "kwargs": {"chat_id": 43}}, "kwargs.chat_id"),
    ({"chat_id": 42, "text": "hi", "priority": "urgent"}, "priority"),
    ({"chat_id": 42, "text": "hi", "priority": []}, "priority"),
    ({"chat_id": 42, "text": "hi", "method": "set/Webhook"}, "method"),
    ({"chat_id": 42, "text": "hi", "method": "setWebhook"}, "method"),
    ({"chat_id": 42, "text": "hi", "id": "white space"}, "id"),
    ({"chat_id": 42, "text": "hi", "id": 7}, "id"),
    ({"chat_id": 42, "text": "hi", "max_attempts": 0}, "max_attempts"),
    ({"chat_id": 42, "text": "hi", "max_attempts": True}, "max_attempts"),
    ({"chat_id": 42, "text": "hi", "ttl": 0}, "ttl"),
    ({"chat_id": 42, "text": "hi", "send_at": "tomorrow"}, "send_at"),
    ({"chat_id": 42, "text": "hi", "send_at": 1e13}, "send_at"),
    ({"chat_id": 42, "text": "hi", "dedup_key": 5}, "dedup_key"),
    ({"chat_id": 42, "text": "hi", "uncertain": "drop"}, "uncertain"),
    ({"chat_id": 42, "text": "hi", "uncertain": ["hold"]}, "uncertain"),
    ({"chat_id": 42, "text": "hi", "bot_token": "nonsense"}, "bot_token"),
    ({"chat_id": 42, "text": "hi", "bot": "me"}, "bot"),
    ({"chat_id": 42, "text": "hi", "track": 1}, "track"),
    ({"chat_id": 42, "text": "hi", "chatid": 1}, "chatid"),
    ({"chat_id": 42, "method": "sendDocument", "kwargs": {"document": "file:///etc/passwd"}}, "kwargs.document"),
    ("hi", None),
    ([], "messages"),
    ([{"chat_id": 42, "text": "hi"}] * (MOST + 1), "messages"),
    ([{"chat_id": 42, "text": "hi"}, 7], "messages[1]"),
    ([{"chat_id": 42, "text": "hi"}, {"text": "hi"}], "messages[1].chat_id"),
    ([{"chat_id": 42, "text": "hi", "id": "a"}] * 2, "messages[0].id"),
]


@pytest.mark.parametrize(("body", "field"), INVALID)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_a_message_is_refused_by_name(
    memory_client: httpx.AsyncClient, body: Any, field: str
) -> None:
    response = await memory_client.post(MESSAGES, json=body)
    assert response.status_code == 422, response.text
    assert response.json()["error"]
    assert response.json().get("field") == field
    assert (await memory_client.get("/api/v1/queue")).json()["total_processed"] == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def memory_client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """One application for all tests in which it takes nothing."""
    async with AsyncExitStack() as stack:
        playground = await stack.enter_async_context(telegram())
        with pytest.MonkeyPatch.context() as patch:
            directory = tmp_path_factory.mktemp("memory")
            patch.setattr("tempfile.tempdir", str(directory))
            patch.setattr("bot.queues._UNSENT", directory / "unsent")
            client = await stack.enter_async_context(application(settings_for(playground.url)))
        yield client


async def test_one_bad_message_of_an_array_refuses_all(client: httpx.AsyncClient, playground: Playground) -> None:
    await client.post(MESSAGES, json=[{"chat_id": 42, "text": "good"}, {"chat_id": 42}])
    marker = await client.post(MESSAGES, json={"chat_id": 42, "text": "marker"})
    await status_of(client, marker.json()["id"], becomes="sent")
    assert sent_texts(playground) == ["marker"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"{'chat_id': 42}", b"[" * 100_000])
@pytest.mark.asyncio(loop_scope="module")
async def test_bad_json_gets_400(memory_client: httpx.AsyncClient, body: bytes) -> None:
    response = await memory_client.post(MESSAGES, content=body)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_nested_too_deeply_is_refused_with_an_idempotency_key_too(
    memory_client: httpx.AsyncClient,
) -> None:
    body = b'{"chat_id": 1, "text": "x", "kwargs": {"a": ' + b"[" * 400 + b"]" * 400 + b"}}"
    for headers in ({}, {"Idempotency-Key": "deep"}):
        response = await memory_client.post(MESSAGES, content=body, headers=headers)
        assert response.status_code == 422
        assert "nested too deeply" in response.json()["error"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_large_body_gets_413(memory_client: httpx.AsyncClient) -> None:
    response = await memory_client.post(MESSAGES, content=b" " * (MAX_BODY + 1))
    assert response.status_code == 413
    assert "error" in response.json()


async def test_an_unknown_id_gets_404(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{MESSAGES}/unknown")
    assert response.status_code == 404
    assert "error" in response.json()


@pytest.mark.asyncio(loop_scope="module")
async def test_unknown_paths_and_methods_are_answered_in_json(memory_client: httpx.AsyncClient) -> None:
    missing = await memory_client.get("/api/v1/nothing")
    assert (missing.status_code, missing.json()) == (404, {"error": "Not Found"})
    wrong = await memory_client.delete(MESSAGES)
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Method Not Allowed"})
    assert wrong.headers["allow"] == "POST"


async def test_the_queue_tells_where_messages_are(client: httpx.AsyncClient) -> None:
    sent = await client.post(MESSAGES, json={"chat_id": 42, "text": "hi"})
    await status_of(client, sent.json()["id"], becomes="sent")
    queue = (await client.get("/api/v1/queue")).json()
    (process,) = queue.pop("processes")
    backend = queue.pop("backend")
    assert backend in ("redis", "memory")
    updates = queue.pop("updates", None)
    assert (updates is not None and updates["queue_depth"] == 0) if backend == "redis" else updates is None
    assert queue == {
        "queue_depth": 0,
        "total_processed": 1,
        "workers_per_process": 10,
        "total_workers": 10,
        "by_state": {"ready": 0, "waiting": 0, "scheduled": 0, "inflight": 0, "dead": 0},
        "oldest_age": None,
    }
    assert set(process) == {"incarnation", "pid", "workers", "inflight", "sent", "seen"}
    assert process["sent"] == 1


async def test_rule_6_a_full_queue_asks_to_come_back(playground: Playground, redis_url: str) -> None:
    async with application(settings_for(playground.url, redis_url, queue_max=1)) as client:
        response = await client.post(MESSAGES, json=[{"chat_id": 42, "text": "hi"}] * 2)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "full" in response.json()["error"]


async def test_rule_6_while_redis_is_full_the_client_is_asked_to_come_back(
    playground: Playground, own_server: Server
) -> None:
    async with application(settings_for(playground.url, own_server.url)) as client:
        redis = connect(own_server.url, 1.0)
        await redis.config_set("maxmemory", 1)
        response = await client.post(MESSAGES, json={"chat_id": 42, "text": "hi"})
        await redis.config_set("maxmemory", 0)
        await redis.aclose()
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "full" in response.json()["error"]


async def test_without_redis_the_client_is_asked_to_come_back(playground: Playground, own_server: Server) -> None:
    settings = settings_for(playground.url, own_server.url, redis_timeout=0.5)
    async with application(settings) as client:
        own_server.kill()
        calls = [client.post(MESSAGES, json={"chat_id": 42, "text": "hi"}), client.get(f"{MESSAGES}/x")]
        for response in await asyncio.gather(*calls, client.get("/api/v1/queue")):
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
        own_server.start()


async def test_while_redis_hangs_the_client_is_soon_asked_to_come_back(
    playground: Playground, own_server: Server
) -> None:
    async with application(settings_for(playground.url, own_server.url, redis_timeout=0.5)) as client:
        assert own_server.process
        own_server.process.send_signal(signal.SIGSTOP)
        try:
            body, headers = {"chat_id": 42, "text": "hi"}, {"Idempotency-Key": "1"}
            calls = [client.post(MESSAGES, json=body, headers=headers), client.get(f"{MESSAGES}/x")]
            calls += [client.post("/api/v1/dead/replay"), client.post("/api/v1/pause", json={})]
            started = time.monotonic()
            for response in await asyncio.gather(*calls, client.get("/api/v1/queue")):
                assert response.status_code == 503
                assert int(response.headers["Retry-After"]) > 0
            assert time.monotonic() - started < 1.9
        finally:
            own_server.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def with_keys(playground: Playground) -> AsyncIterator[httpx.AsyncClient]:
    keys = {"shop": SecretStr("key-of-the-shop"), "forum": SecretStr("key-of-the-forum")}
    async with application(settings_for(playground.url, api_keys=keys, rate_chat=OFF)) as client:
        yield client


async def test_with_keys_only_their_owners_are_served(playground: Playground, own_lock_directory: None) -> None:
    async with with_keys(playground) as client:
        for given in (None, "", "Bearer", "Bearer wrong", "Bearer key-of-the-shop2", "Basic key-of-the-shop"):
            headers = {} if given is None else {"Authorization": given}
            for call in (
                client.post(MESSAGES, json={"chat_id": 42, "text": "hi"}, headers=headers),
                client.get(f"{MESSAGES}/x", headers=headers),
                client.get("/api/v1/queue", headers=headers),
            ):
                response = await call
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        # Over a proxy too: the key is what counts.
        for key in ("Bearer key-of-the-shop", "bearer key-of-the-forum"):
            headers = {"Authorization": key, "X-Forwarded-For": "192.0.2.1", "Host": "bot.example.org"}
            response = await client.post(MESSAGES, json={"chat_id": 42, "text": "hi"}, headers=headers)
            assert response.status_code == 202


async def test_clients_do_not_share_idempotency_keys(playground: Playground, own_lock_directory: None) -> None:
    async with with_keys(playground) as client:
        ids = set()
        for key in ("key-of-the-shop", "key-of-the-forum"):
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "1"}
            ids.add((await client.post(MESSAGES, json={"chat_id": 42, "text": "hi"}, headers=headers)).json()["id"])
        assert len(ids) == 2


async def test_health_and_metrics_are_open(playground: Playground, own_lock_directory: None) -> None:
    async with with_keys(playground) as client:
        for path in ("/health/live", "/health/ready", "/health", "/metrics"):
            assert (await client.get(path, headers={"Host": "bot.example.org"})).status_code == 200


@pytest.mark.parametrize(
    ("peer", "headers", "served"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:8000"}, True),
        ("127.0.0.1", {"host": "localhost"}, True),
        ("::1", {"host": "[::1]:8000"}, True),
        ("::ffff:127.0.0.1", {"host": "localhost:8000"}, True),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "http://localhost:8081"}, True),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "https://evil.example"}, False),
        ("127.0.0.1", {"host": "localhost:8000", "origin": "null"}, False),
        ("192.0.2.1", {"host": "localhost:8000"}, False),
        ("127.0.0.1", {"host": "bot.example.org"}, False),
        ("127.0.0.1", {"host": "localhost.example.org"}, False),
        ("127.0.0.1", {"host": "[bad"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=127.0.0.1"}, False),
        (None, {"host": "localhost"}, False),
    ],
)
def test_without_keys_only_this_machine_is_served(peer: str | None, headers: dict[str, str], served: bool) -> None:
    scope = {
        "type": "http",
        "client": None if peer is None else (peer, 1234),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    assert (Access({}).client(Request(scope)) is not None) == served
