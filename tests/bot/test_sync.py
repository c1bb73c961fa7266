"""SYNC_MESSAGE_PROCESSING: a call answers once its messages have ended, with both queues; each is sent once."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from bot.endings import Endings
from bot.playground import Playground
from bot.playground.faults import Fault
from bot.server import Draining
from bot.web import create_app
from queueing.contract import MessageStatus
from queueing.errors import QueueUnavailable
from queueing.events import Acked
from queueing.limits import OFF
from queueing.message import Message, MessageState
from tests.bot.served import Gunicorn, application, processes, sent_texts, settings_for
from tests.conftest import wait_until

MESSAGES = "/api/v1/messages"
HI = {"chat_id": 42, "text": "hi"}


def sync(playground: Playground, redis_url: str | None, **more: Any) -> Any:
    given = {"rate_chat": OFF, "send_timeout": 3.0, "retry_base": 0.01, "max_attempts": 2, **more}
    return settings_for(playground.url, redis_url, sync_message_processing=True, **given)


@pytest.fixture(params=["redis", "memory"])
async def client(
    request: pytest.FixtureRequest,
    playground: Playground,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with application(sync(playground, redis_url if request.param == "redis" else None)) as client:
        yield client


async def test_the_answer_tells_that_it_was_sent(client: httpx.AsyncClient, playground: Playground) -> None:
    answer = await client.post(MESSAGES, json=HI)
    assert answer.status_code == 200
    assert answer.json()["status"] == "sent"
    assert answer.json()["telegram_message_id"] > 0
    assert answer.json() == (await client.get(f"{MESSAGES}/{answer.json()['id']}")).json()
    assert sent_texts(playground) == ["hi"]


async def test_the_answer_tells_that_it_is_dead_and_why(client: httpx.AsyncClient, playground: Playground) -> None:
    playground.world.faults.add(Fault(kind="blocked", chat=42), 42)
    answer = await client.post(MESSAGES, json=HI)
    assert answer.status_code == 200
    assert answer.json()["status"] == "dead"
    assert "blocked by the user" in answer.json()["error"]


async def test_an_array_is_answered_once_all_have_ended(client: httpx.AsyncClient, playground: Playground) -> None:
    playground.world.faults.add(Fault(kind="blocked", chat=43), 43)
    answer = await client.post(MESSAGES, json=[{"chat_id": 42 + n % 2, "text": str(n)} for n in range(10)])
    assert answer.status_code == 200
    told = answer.json()["messages"]
    assert [one["status"] for one in told] == ["sent", "dead"] * 5
    assert sent_texts(playground, 42) == ["0", "2", "4", "6", "8"]


async def test_retries_happen_within_the_call(client: httpx.AsyncClient, playground: Playground) -> None:
    playground.world.faults.add(Fault(kind="error", method="sendMessage", count=1), None)
    answer = await client.post(MESSAGES, json=HI)
    assert (answer.json()["status"], answer.json()["attempts"]) == ("sent", 1)


async def test_a_client_that_hangs_up_does_not_cancel_the_send(
    client: httpx.AsyncClient, playground: Playground
) -> None:
    playground.world.faults.add(Fault(kind="latency", method="sendMessage", ms=400), None)
    with pytest.raises(httpx.ReadTimeout):
        await client.post(MESSAGES, json={**HI, "id": "mine"}, timeout=0.2)

    async def sent() -> bool:
        return bool((await client.get(f"{MESSAGES}/mine")).json()["status"] == "sent")

    await wait_until(sent, "it to be sent")
    assert sent_texts(playground) == ["hi"]


async def test_repeated_calls_wait_for_the_same_message(client: httpx.AsyncClient, playground: Playground) -> None:
    playground.world.faults.add(Fault(kind="latency", method="sendMessage", ms=300), None)
    key = {"Idempotency-Key": "again"}
    answers = await asyncio.gather(*(client.post(MESSAGES, json=HI, headers=key) for _ in range(5)))
    answers.append(await client.post(MESSAGES, json=HI, headers=key))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert {answer.json()["status"] for answer in answers} == {"sent"}
    assert sent_texts(playground) == ["hi"]


async def test_what_has_not_ended_in_time_is_accepted_and_still_sent(
    playground: Playground, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.settings._SYNC_MOST", 0.5)
    async with application(sync(playground, redis_url)) as client:
        await client.post("/api/v1/pause", json={"chat_id": 42})
        answer = await client.post(MESSAGES, json=HI)
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["waiting"]["reason"]) == ("pending", "paused")
        await client.post("/api/v1/resume", json={"chat_id": 42})
        await wait_until(lambda: sent_texts(playground) == ["hi"], "it to be sent")


async def test_what_is_for_later_is_not_waited_for(playground: Playground, redis_url: str) -> None:
    async with application(sync(playground, redis_url, send_timeout=60.0)) as client:
        answer = await client.post(MESSAGES, json=[{**HI, "send_at": time.time() + 3600}], timeout=10)
    assert answer.status_code == 202
    assert answer.json()["messages"][0]["waiting"]["reason"] == "schedule"


async def test_a_process_that_drains_answers_those_who_wait(playground: Playground, redis_url: str) -> None:
    app = create_app(sync(playground, redis_url, send_timeout=60.0))
    server = Draining(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=5))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        await wait_until(lambda: server.started, "it to start")
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            await client.post("/api/v1/pause", json={"chat_id": 42})
            waiting = asyncio.create_task(client.post(MESSAGES, json={**HI, "id": "mine"}))

            async def taken() -> bool:
                return (await client.get(f"{MESSAGES}/mine")).status_code == 200

            await wait_until(taken, "the message")
            server.should_exit = True
            answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        await serving


async def test_six_processes_answer_whoever_sends_it(playground: Playground, redis_url: str, tmp_path: Path) -> None:
    rates = {"RATE_GLOBAL": "off", "RATE_CHAT": "off", "SYNC_MESSAGE_PROCESSING": "true"}
    playground.world.faults.add(Fault(kind="latency", method="sendMessage", ms=100), None)
    gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=6, **rates)
    async with processes(gunicorn) as client:
        posts = (client.post(MESSAGES, json={"chat_id": n % 90 + 1, "text": str(n)}) for n in range(180))
        answers = await asyncio.gather(*posts)
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "sent")}
    assert sorted(map(int, sent_texts(playground))) == list(range(180))


class Away:
    """A queue that answers with one status, unless its server is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.status: MessageStatus | None = MessageStatus("a", MessageState.SENDING, "1", "42", 0.0)

    async def __call__(self, id: str) -> MessageStatus | None:
        self.asked += 1
        if self.status is None:
            raise QueueUnavailable("away")
        return self.status


async def test_an_ending_of_this_process_wakes_at_once_and_another_is_looked_for_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bot.endings._FIRST_LOOK", 60.0)
    monkeypatch.setattr("bot.endings._LAST_PAUSE", 60.0)
    queue = Away()
    endings = Endings(queue)
    waiting = asyncio.create_task(endings.wait("a", asyncio.get_running_loop().time() + 60))
    await wait_until(lambda: queue.asked == 1, "the first look")
    endings(Acked(Message(bot="1", chat="42", body={}, id="another"), 0.1, 0.1))
    queue.status = MessageStatus("a", MessageState.SENT, "1", "42", 0.0)
    endings(Acked(Message(bot="1", chat="42", body={}, id="a"), 0.1, 0.1))
    async with asyncio.timeout(10):
        assert await waiting == queue.status
    assert queue.asked == 2


async def test_a_wait_of_a_second_costs_a_few_questions() -> None:
    queue = Away()
    await Endings(queue).wait("a", asyncio.get_running_loop().time() + 1)
    assert 2 <= queue.asked <= 8


async def test_while_the_server_is_away_the_wait_goes_on() -> None:
    queue = Away()
    queue.status = None
    waiting = asyncio.create_task(Endings(queue).wait("a", asyncio.get_running_loop().time() + 60))
    await wait_until(lambda: queue.asked == 2, "two looks in vain")
    queue.status = MessageStatus("a", MessageState.DEAD, "1", "42", 0.0)
    async with asyncio.timeout(10):
        assert await waiting == queue.status
