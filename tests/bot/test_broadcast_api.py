"""Broadcasts over HTTP, on the whole application with the shared queue, and what it says without one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bot.broadcast_api import MAX_BODY, MOST
from bot.playground import Playground
from bot.playground.faults import Fault
from queueing.limits import OFF
from tests.bot.served import BOT, application, sent_texts, settings_for
from tests.conftest import wait_until

BROADCASTS = "/api/v1/broadcasts"
QUICK = {"rate_chat": OFF, "rate_global": OFF, "rate_group": OFF}
COUNTS = ("total", "waiting", "sent", "blocked", "failed", "cancelled", "expired")


@pytest.fixture
async def client(playground: Playground, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with application(settings_for(playground.url, redis_url, **QUICK)) as client:
        yield client


async def told(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    response = await client.get(f"{BROADCASTS}/{id}")
    assert response.status_code == 200
    told = dict(response.json())
    assert told["total"] == sum(told[name] for name in COUNTS[1:])
    return told


async def over(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async def is_over() -> bool:
        return bool((await told(client, id))["finished_at"])

    await wait_until(is_over, "the broadcast to be over")
    return await told(client, id)


async def test_it_goes_to_each_chat_and_is_told_of(client: httpx.AsyncClient, playground: Playground) -> None:
    chats = [1, 2, "3", "@news", -5, "1"]
    response = await client.post(
        BROADCASTS, json={"text": "<b>hi</b>", "kwargs": {"parse_mode": "HTML"}, "chats": chats}
    )
    assert response.status_code == 202
    begun = response.json()
    assert begun["total"] == 5
    assert begun["status"] in ("spreading", "sending", "done")
    done = await over(client, begun["id"])
    assert (done["status"], done["sent"], done["text"]) == ("done", 5, "<b>hi</b>")
    assert sent_texts(playground) == ["<b>hi</b>"] * 5
    listed = (await client.get(BROADCASTS)).json()["broadcasts"]
    assert [one["id"] for one in listed] == [begun["id"]]


async def test_other_methods(client: httpx.AsyncClient, playground: Playground) -> None:
    body = {"method": "sendPhoto", "kwargs": {"photo": "https://example.org/a.png", "caption": "look"}, "chats": [1, 2]}
    begun = (await client.post(BROADCASTS, json=body)).json()
    assert begun["text"] == "look"
    assert (await over(client, begun["id"]))["sent"] == 2
    assert [call.method for call in playground.world.ledger.select()][-2:] == ["sendPhoto"] * 2


async def test_who_has_blocked_the_bot_is_counted_and_unsubscribed(
    client: httpx.AsyncClient, playground: Playground, redis: Redis
) -> None:
    key = f"{{telegram_messages}}:subscribers:{BOT}"
    await redis.sadd(key, *range(1, 21))
    for chat in range(1, 6):
        playground.world.faults.add(Fault(kind="blocked", chat=chat), chat)
    begun = (await client.post(BROADCASTS, json={"text": "hi", "to": "subscribers"})).json()
    done = await over(client, begun["id"])
    assert [done[name] for name in COUNTS] == [20, 0, 15, 5, 0, 0, 0]

    async def unsubscribed() -> bool:
        return bool(await redis.smembers(key) == {str(chat) for chat in range(6, 21)})

    await wait_until(unsubscribed, "those who blocked the bot to be unsubscribed")


async def test_cancel(client: httpx.AsyncClient, playground: Playground) -> None:
    await client.post("/api/v1/pause", json={"bot": BOT})
    begun = (await client.post(BROADCASTS, json={"text": "hi", "chats": list(range(1, 101))})).json()
    response = await client.delete(f"{BROADCASTS}/{begun['id']}")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    await client.post("/api/v1/resume", json={"bot": BOT})
    ended = await over(client, begun["id"])
    assert (ended["cancelled"], ended["sent"]) == (100, 0)
    assert sent_texts(playground) == []

    begun = (await client.post(BROADCASTS, json={"text": "hi", "chats": [1]})).json()
    await over(client, begun["id"])
    response = await client.delete(f"{BROADCASTS}/{begun['id']}")
    assert response.status_code == 409
    assert "it is done" in response.json()["error"]


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
async def test_an_id_that_is_not_known(verb: str, client: httpx.AsyncClient) -> None:
    assert (await client.request(verb, f"{BROADCASTS}/unheard-of")).status_code == 404


WRONG: list[tuple[object, str | None]] = [
    ([], None),
    ({"chats": [1]}, "text"),
    ({"text": 5, "chats": [1]}, "text"),
    ({"text": "x" * 5000, "chats": [1]}, "text"),
    ({"text": "x", "chats": []}, "chats"),
    ({"text": "x", "chats": "1"}, "chats"),
    ({"text": "x", "chats": [1] * (MOST + 1)}, "chats"),
    ({"text": "x", "chats": [1, "two"]}, "chats[1]"),
    ({"text": "x", "chats": [1, None]}, "chats[1]"),
    ({"text": "x"}, "chats"),
    ({"text": "x", "to": "all"}, "to"),
    ({"text": "x", "to": "subscribers", "chats": [1]}, "to"),
    ({"text": "x", "chats": [1], "kwargs": []}, "kwargs"),
    ({"text": "x", "chats": [1], "kwargs": {"chat_id": 1}}, "kwargs.chat_id"),
    ({"text": "x", "chats": [1], "kwargs": {"media": "file:///etc/passwd"}}, "kwargs.media"),
    ({"method": "logOut", "chats": [1]}, "method"),
    ({"text": "x", "chats": [1], "priority": "bulk"}, "priority"),
]


async def test_what_is_wrong_is_named_and_begins_nothing(client: httpx.AsyncClient, redis: Redis) -> None:
    for body, field in WRONG:
        response = await client.post(BROADCASTS, json=body)
        assert (response.status_code, response.json().get("field")) == (422, field), response.text
    assert (await client.post(BROADCASTS, content=b"{")).status_code == 400
    assert (await client.post(BROADCASTS, content=b" " * (MAX_BODY + 1))).status_code == 413
    assert not [key async for key in redis.scan_iter("*:broadcast*")]


async def test_an_idempotency_key_begins_it_once(client: httpx.AsyncClient, playground: Playground) -> None:
    key = {"Idempotency-Key": "monday"}
    body = {"text": "once", "chats": [1, 2, 3]}
    first = (await client.post(BROADCASTS, json=body, headers=key)).json()
    await over(client, first["id"])
    again = (await client.post(BROADCASTS, json=body, headers=key)).json()
    assert (again["id"], again["status"], again["sent"]) == (first["id"], "done", 3)
    assert sent_texts(playground) == ["once"] * 3
    response = await client.post(BROADCASTS, json={**body, "text": "other"}, headers=key)
    assert (response.status_code, response.json()["field"]) == (422, "Idempotency-Key")


async def test_a_hundred_thousand_chats_in_one_call(client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/pause", json={"bot": BOT})
    begun = (await client.post(BROADCASTS, json={"text": "hi", "chats": list(range(1, MOST + 1))})).json()
    assert (begun["total"], begun["waiting"]) == (MOST, MOST)
    response = await client.delete(f"{BROADCASTS}/{begun['id']}")
    assert response.json()["status"] == "cancelled"


async def test_a_full_queue_answers_503(playground: Playground, redis_url: str) -> None:
    async with application(settings_for(playground.url, redis_url, **QUICK, queue_max=10)) as client:
        await client.post("/api/v1/pause", json={"bot": BOT})
        messages = [{"chat_id": 1, "text": "x"} for _ in range(10)]
        assert (await client.post("/api/v1/messages", json=messages)).status_code == 202
        response = await client.post(BROADCASTS, json={"text": "hi", "chats": [1]})
        assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
        assert (await client.get(BROADCASTS)).json() == {"broadcasts": []}


async def test_without_the_shared_queue_it_says_what_is_missing(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with application(settings_for(playground.url)) as client:
        for call in (
            client.post(BROADCASTS, json={"text": "hi", "chats": [1]}),
            client.get(BROADCASTS),
            client.get(f"{BROADCASTS}/x"),
            client.delete(f"{BROADCASTS}/x"),
        ):
            response = await call
            assert response.status_code == 501
            assert "USE_REDIS_QUEUE" in response.json()["error"]


async def test_strangers_get_nothing(client: httpx.AsyncClient) -> None:
    proxied = {"X-Forwarded-For": "1.2.3.4"}
    assert (await client.post(BROADCASTS, json={"text": "hi", "chats": [1]}, headers=proxied)).status_code == 401
    assert (await client.get(BROADCASTS, headers=proxied)).status_code == 401
