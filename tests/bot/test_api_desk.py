"""The operator's part of the HTTP API, on the whole application, with either queue."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from bot.playground import Playground
from queueing.limits import OFF
from queueing.message import Message
from tests.bot.handled import started_inbox
from tests.bot.served import BOT, application, sent_texts, settings_for
from tests.conftest import Server, wait_until

MESSAGES = "/api/v1/messages"
DEAD = "/api/v1/dead"
TOO_LONG = "x" * 5000
SECRET = "123:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"


@pytest.fixture(params=["redis", "memory"])
async def client(
    request: pytest.FixtureRequest, playground: Playground, redis_url: str
) -> AsyncIterator[httpx.AsyncClient]:
    shared = redis_url if request.param == "redis" else None
    async with application(settings_for(playground.url, shared, rate_chat=OFF)) as client:
        yield client


async def post(client: httpx.AsyncClient, **fields: Any) -> str:
    response = await client.post(MESSAGES, json={"chat_id": 42, "text": "hi"} | fields)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def message(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    return dict((await client.get(f"{MESSAGES}/{id}")).json())


async def becomes(client: httpx.AsyncClient, id: str, status: str) -> dict[str, Any]:
    async def arrived() -> bool:
        return bool((await message(client, id)).get("status") == status)

    await wait_until(arrived, f"{id} to be {status}")
    return await message(client, id)


async def dead_ids(client: httpx.AsyncClient) -> list[str]:
    return [letter["id"] for letter in (await client.get(DEAD)).json()["dead"]]


# --- dead letters


async def test_dead_letters_are_listed_shown_replayed_and_dropped(client: httpx.AsyncClient) -> None:
    ids = [await post(client, text=TOO_LONG) for _ in range(3)]
    for id in ids:
        await becomes(client, id, "dead")
    first = (await client.get(DEAD, params={"limit": 2})).json()
    rest = (await client.get(DEAD, params={"limit": 2, "before": first["next"]})).json()
    assert [letter["id"] for letter in (*first["dead"], *rest["dead"])] == ids[::-1]
    assert rest["next"] is None
    assert set(first["dead"][0]) == {"id", "reason", "error", "died_at", "bot", "chat_id"}

    letter = (await client.get(f"{DEAD}/{ids[0]}")).json()
    assert (letter["reason"], letter["bot"], letter["chat_id"]) == ("bad_request", BOT, "42")
    assert json.loads(letter["element"])["text"] == TOO_LONG
    assert [line["error"] for line in letter["history"]] == [letter["error"]]

    replayed = await client.post(f"{DEAD}/{ids[0]}/replay")
    assert (replayed.status_code, replayed.json()) == (200, {"replayed": 1})

    async def newest() -> bool:
        return await dead_ids(client) == [ids[0], ids[2], ids[1]]

    await wait_until(newest, "it to die again")
    assert (await client.delete(f"{DEAD}/{ids[1]}")).json() == {"dropped": 1}
    assert (await client.delete(DEAD)).json() == {"dropped": 2}
    assert await dead_ids(client) == []


async def test_all_can_be_replayed(client: httpx.AsyncClient, playground: Playground) -> None:
    for id in [await post(client, text=TOO_LONG, chat_id=chat) for chat in (1, 2)]:
        await becomes(client, id, "dead")
    for head in ("false", "true"):
        before = len(sent_texts(playground))
        assert (await client.post(f"{DEAD}/replay", params={"head": head})).json() == {"replayed": 2}
        await wait_until(lambda before=before: len(sent_texts(playground)) == before + 2, "both to be tried")  # type: ignore[misc]

        async def both() -> bool:
            return len(await dead_ids(client)) == 2

        await wait_until(both, "both to die again")


async def test_an_id_that_was_left_empty_drops_nothing(client: httpx.AsyncClient) -> None:
    id = await post(client, text=TOO_LONG)
    await becomes(client, id, "dead")
    response = await client.delete(f"{DEAD}/", follow_redirects=True)
    assert response.status_code == 404
    assert await dead_ids(client) == [id]


@pytest.mark.parametrize("client", ["redis"], indirect=True)
async def test_a_token_in_a_dead_letter_is_masked(client: httpx.AsyncClient, redis: Redis) -> None:
    element = {"bot_token": SECRET, "chat_id": "?", "text": SECRET}
    await redis.rpush("telegram_messages", json.dumps(element), f"x {SECRET} {{")

    async def both() -> bool:
        return len(await dead_ids(client)) == 2

    await wait_until(both, "the dead letters")
    for id in await dead_ids(client):
        shown = (await client.get(f"{DEAD}/{id}")).text
        assert SECRET.partition(":")[2] not in shown
        assert "***" in shown


@pytest.mark.parametrize(
    ("method", "path"), [("GET", f"{DEAD}/never"), ("POST", f"{DEAD}/never/replay"), ("DELETE", f"{DEAD}/never")]
)
async def test_an_unknown_dead_letter_gets_404(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    assert response.status_code == 404
    assert "no dead letter" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", f"{DEAD}?limit=0", "limit"),
        ("GET", f"{DEAD}?limit=501", "limit"),
        ("GET", f"{DEAD}?limit=x", "limit"),
        ("GET", f"{DEAD}?before=x", "before"),
        ("POST", f"{DEAD}/replay?head=1", "head"),
    ],
)
async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient, method: str, path: str, field: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["field"]) == (422, field)


# --- pause, resume, why, cancel


@pytest.mark.parametrize("scope", [{}, {"bot": BOT}, {"bot": BOT, "chat_id": 42}, {"chat_id": "42"}], ids=str)
async def test_what_is_paused_waits_and_tells_why(
    client: httpx.AsyncClient, playground: Playground, scope: dict[str, Any]
) -> None:
    paused = await client.post("/api/v1/pause", json=scope | {"reason": "a sale went wrong"})
    assert paused.status_code == 200
    assert paused.json()["paused"] is True
    (shown,) = (await client.get("/api/v1/paused")).json()["paused"]
    assert (shown["bot"], shown["chat_id"]) == (paused.json()["bot"], paused.json()["chat_id"])
    assert (shown["reason"], shown["until"]) == ("a sale went wrong", None)

    ids = [await post(client, text=str(n)) for n in range(3)]

    async def explained() -> bool:
        return bool((await message(client, ids[2]))["waiting"]["reason"] == "paused")

    await wait_until(explained, "the message to be looked at")
    waiting = (await message(client, ids[2]))["waiting"]
    assert waiting == {"reason": "paused", "until": None, "ahead": 2, "more": False}
    assert sent_texts(playground) == []

    cancelled = await client.delete(f"{MESSAGES}/{ids[1]}")
    assert (cancelled.status_code, cancelled.json()) == (200, {"id": ids[1], "status": "cancelled"})
    assert (await client.delete(f"{MESSAGES}/{ids[1]}")).status_code == 200
    resumed = await client.post("/api/v1/resume", json=scope)
    assert resumed.json() == paused.json() | {"paused": False}
    status = await becomes(client, ids[2], "sent")
    assert status["waiting"] is None
    assert sent_texts(playground) == ["0", "2"]
    assert (await client.get("/api/v1/paused")).json() == {"paused": []}
    late = await client.delete(f"{MESSAGES}/{ids[2]}")
    assert late.status_code == 409
    assert "sent" in late.json()["error"]


async def test_cancelling_what_is_unknown_gets_404(client: httpx.AsyncClient) -> None:
    assert (await client.delete(f"{MESSAGES}/never")).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({"bot": "me"}, "bot"),
        ({"bot": 7}, "bot"),
        ({"chat_id": "x y"}, "chat_id"),
        ({"reason": 5}, "reason"),
        ({"chat": 5}, "chat"),
    ],
    ids=str,
)
async def test_a_pause_of_nonsense_is_refused(client: httpx.AsyncClient, body: Any, field: str | None) -> None:
    response = await client.post("/api/v1/pause", json=body)
    assert (response.status_code, response.json().get("field")) == (422, field)
    assert (await client.get("/api/v1/paused")).json() == {"paused": []}


async def test_a_pause_without_json_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/pause")).status_code == 400


# --- ttl, send_at, dedup_key


async def test_a_message_may_expire_before_it_leaves(client: httpx.AsyncClient, playground: Playground) -> None:
    await client.post("/api/v1/pause", json={"chat_id": 42})
    id, ends = await post(client, ttl=0.01), time.monotonic() + 0.02
    await wait_until(lambda: is_paused(client, id), "it to be looked at")
    await wait_until(lambda: time.monotonic() > ends, "the ttl to pass")
    await client.post("/api/v1/resume", json={"chat_id": 42})
    await becomes(client, id, "expired")
    assert sent_texts(playground) == []


async def is_paused(client: httpx.AsyncClient, id: str) -> bool:
    waiting = (await message(client, id))["waiting"]
    return bool(waiting and waiting["reason"] == "paused")


async def test_a_scheduled_message_says_so_and_is_sent_when_it_is_due(client: httpx.AsyncClient) -> None:
    at = time.time() + 1.0
    id = await post(client, send_at=at)
    waiting = (await message(client, id))["waiting"]
    assert waiting["reason"] == "schedule"

    async def counted() -> bool:
        return bool((await client.get("/api/v1/queue")).json()["by_state"]["scheduled"] == 1)

    await wait_until(counted, "it to be counted")
    await becomes(client, id, "sent")
    assert time.time() >= at


async def test_a_second_message_with_a_dedup_key_is_answered_with_the_first(
    client: httpx.AsyncClient, playground: Playground
) -> None:
    first = await post(client, text="first", dedup_key="order 17")
    await becomes(client, first, "sent")
    response = await client.post(MESSAGES, json={"chat_id": 42, "text": "second", "dedup_key": "order 17"})
    assert (response.status_code, response.json()["id"], response.json()["status"]) == (202, first, "sent")
    assert sent_texts(playground) == ["first"]


# --- who may, and when it cannot be done

EVERY_CALL = [
    ("GET", DEAD),
    ("DELETE", DEAD),
    ("POST", f"{DEAD}/replay"),
    ("GET", f"{DEAD}/x"),
    ("DELETE", f"{DEAD}/x"),
    ("POST", f"{DEAD}/x/replay"),
    ("POST", "/api/v1/pause"),
    ("POST", "/api/v1/resume"),
    ("GET", "/api/v1/paused"),
    ("DELETE", f"{MESSAGES}/x"),
]


async def test_only_owners_of_keys_are_served(playground: Playground, redis_url: str) -> None:
    keys = {"shop": SecretStr("key-of-the-shop")}
    async with application(settings_for(playground.url, redis_url, api_keys=keys)) as client:
        for method, path in EVERY_CALL:
            assert (await client.request(method, path, json={})).status_code == 401
        headers = {"Authorization": "Bearer key-of-the-shop"}
        assert (await client.get(DEAD, headers=headers)).status_code == 200


async def test_while_redis_is_away_the_client_is_asked_to_come_back(playground: Playground, own_server: Server) -> None:
    async with application(settings_for(playground.url, own_server.url, redis_timeout=0.3)) as client:
        own_server.kill()
        for method, path in EVERY_CALL:
            response = await client.request(method, path, json={})
            assert (response.status_code, response.headers["Retry-After"]) == (503, "2"), path
        own_server.start()


async def test_dead_updates_are_listed_shown_replayed_and_dropped_apart_from_messages(
    playground: Playground, redis_url: str
) -> None:
    async with application(settings_for(playground.url, redis_url)) as client:
        async with started_inbox(redis_url) as inbox:
            odd = {"update": {"update_id": 5, "message": {"chat": "nonsense"}}}
            await inbox.enqueue([Message(bot=BOT, chat="42", id=f"u{number}", body=odd) for number in (1, 2)])

        async def dead() -> list[str]:
            return [letter["id"] for letter in (await client.get(DEAD, params={"of": "updates"})).json()["dead"]]

        async def both() -> bool:
            return sorted(await dead()) == ["u1", "u2"]

        await wait_until(both, "both to be dead letters")
        assert await dead_ids(client) == []
        letter = (await client.get(f"{DEAD}/u1?of=updates")).json()
        assert letter["reason"] == "malformed"
        assert '"nonsense"' in letter["element"]
        assert (await client.get(f"{DEAD}/u1")).status_code == 404
        assert (await client.delete(f"{DEAD}/u2?of=updates")).json() == {"dropped": 1}
        assert (await client.post(f"{DEAD}/replay?of=updates")).json() == {"replayed": 1}

        async def again() -> bool:
            return await dead() == ["u1"]

        await wait_until(again, "the replayed to be dead again")
        assert (await client.get("/api/v1/queue")).json()["updates"]["by_state"]["dead"] == 1
        assert (await client.get("/health")).json()["backlog"] == {"messages": 0, "updates": 0}

        async def scraped() -> bool:
            return 'telequeue_updates{state="dead"} 1.0' in (await client.get("/metrics")).text

        await wait_until(scraped, "the metric, which is asked for once a second")
        assert (await client.get(f"{DEAD}?of=letters")).status_code == 422


async def test_within_one_process_there_are_no_dead_updates(playground: Playground) -> None:
    async with application(settings_for(playground.url)) as client:
        assert (await client.get(f"{DEAD}?of=updates")).status_code == 422
