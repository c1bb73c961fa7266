"""The webhook: who may post, what is read, and 200 only once an update is safe."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from telegram import Update
from telegram.ext import ApplicationBuilder, MessageHandler, TypeHandler, filters

from bot.identity import own_get_me
from bot.intake import InlineIntake, Intake, IntakeApplication, QueuedIntake, Taken
from bot.outbox import Outbox
from bot.playground import Playground
from bot.queued_bot import QueuedBot
from bot.stateful import AnyApplication
from bot.transport import AiohttpRequest
from bot.updates import UpdateLog
from bot.web import create_app
from bot.webhook import MAX_BODY, Webhook
from queueing.contract import Settlement
from queueing.errors import QueueUnavailable
from queueing.memory_queue import MemoryQueue
from queueing.redis_inbox import RedisInbox
from queueing.retry import Ack
from tests.bot.served import SECRET, SECRET_HEADER, TOKEN, listening, settings_for
from tests.conftest import Server, wait_until


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(queue_max=100)


@pytest.fixture
async def bot(playground: Playground, queue: MemoryQueue) -> AsyncIterator[AnyApplication]:
    """An application without handlers, running."""
    made = QueuedBot(
        TOKEN,
        api_url=playground.url,
        outbox=Outbox(queue, lambda event: None, "123456"),
        request=AiohttpRequest(5.0),
        get_me_cache=own_get_me(),
    )
    application = ApplicationBuilder().application_class(IntakeApplication).bot(made).updater(None).build()
    await application.initialize()
    await application.start()
    yield application
    await application.stop()
    await application.shutdown()


@pytest.fixture
def updates() -> UpdateLog:
    return UpdateLog()


@pytest.fixture
def intake(bot: AnyApplication, updates: UpdateLog) -> Intake:
    return InlineIntake(bot, updates)


@pytest.fixture
def results() -> Counter[str]:
    return Counter()


@pytest.fixture
async def client(intake: Intake, results: Counter[str]) -> AsyncIterator[httpx.AsyncClient]:
    def count(result: str, seconds: float) -> None:
        assert seconds >= 0
        results[result] += 1

    webhook = Webhook(intake, SECRET, count)
    app = Starlette(routes=[Route("/", webhook, methods=["POST"])])
    async with listening(app) as client:
        client.headers.update(SECRET_HEADER)
        yield client


def message(update_id: int = 1, text: str = "hello", chat: int = 42) -> dict[str, Any]:
    person = {"id": chat, "first_name": "Ada", "is_bot": False}
    content = {"message_id": 1, "date": 1, "chat": {"id": chat, "type": "private"}, "from": person, "text": text}
    return {"update_id": update_id, "message": content}


def on_message(application: AnyApplication, callback: Any, **options: Any) -> None:
    application.add_handler(MessageHandler(filters.TEXT, callback, **options))


async def reply(update: Update, _context: Any) -> None:
    assert update.message
    await update.message.reply_text("an answer")


async def test_an_update_is_handled_and_its_answer_queued(
    client: httpx.AsyncClient, bot: AnyApplication, queue: MemoryQueue, results: Counter[str]
) -> None:
    on_message(bot, reply)
    response = await client.post("/", json=message())
    assert response.status_code == 200
    assert (await queue.stats()).depth == 1
    assert results == {"handled": 1}


async def test_the_same_update_twice_is_handled_once(
    client: httpx.AsyncClient, bot: AnyApplication, queue: MemoryQueue, results: Counter[str]
) -> None:
    on_message(bot, reply)
    responses = [await client.post("/", json=message()) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 200]
    assert (await queue.stats()).depth == 1
    assert results == {"handled": 1, "duplicate": 2}


async def test_while_an_update_is_being_handled_its_repetition_has_to_wait(
    client: httpx.AsyncClient, bot: AnyApplication, results: Counter[str]
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_update: Update, _context: Any) -> None:
        begun.set()
        await release.wait()

    on_message(bot, slow)
    first = asyncio.create_task(client.post("/", json=message()))
    await begun.wait()
    second = await client.post("/", json=message())
    assert second.status_code == 503
    assert int(second.headers["Retry-After"]) <= 5
    release.set()
    assert (await first).status_code == 200
    assert results == {"handled": 1, "busy": 1}


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", "ä"])
async def test_a_wrong_or_missing_secret_is_refused(
    client: httpx.AsyncClient, bot: AnyApplication, queue: MemoryQueue, results: Counter[str], secret: str | None
) -> None:
    on_message(bot, reply)
    del client.headers["X-Telegram-Bot-Api-Secret-Token"]
    headers = {} if secret is None else {b"X-Telegram-Bot-Api-Secret-Token": secret.encode()}
    response = await client.post("/", json=message(), headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 401
    assert (await queue.stats()).depth == 0
    assert results == {"unauthorized": 1}


async def test_without_a_secret_nothing_is_accepted(intake: Intake) -> None:
    webhook = Webhook(intake, None, lambda result, seconds: None)
    app = Starlette(routes=[Route("/", webhook, methods=["POST"])])
    async with listening(app) as client:
        for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": ""}):
            assert (await client.post("/", json=message(), headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1]",
        b"null",
        b"{}",
        b'{"update_id": "1"}',
        b'{"update_id": true}',
        b'{"update_id": 1.5}',
        b'{"update_id": -1}',
        b'{"update_id": 99999999999999999999}',
        b'{"update_id": 1, "message": "\xff"}',
    ],
)
async def test_a_body_that_is_no_update_gets_400(client: httpx.AsyncClient, results: Counter[str], body: bytes) -> None:
    response = await client.post("/", content=body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert results == {"malformed": 1}


async def test_an_update_that_cannot_be_read_does_not_block_its_chat(
    client: httpx.AsyncClient, results: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.post("/", json={"update_id": 1, "message": {"chat": "nonsense"}})
    assert response.status_code == 200
    assert "update 1 cannot be read" in caplog.text
    again = await client.post("/", json={"update_id": 1, "message": {"chat": "nonsense"}})
    assert again.status_code == 200
    assert results == {"malformed": 1, "duplicate": 1}


@pytest.mark.parametrize("size", [MAX_BODY + 1, 4 * MAX_BODY])
async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient, results: Counter[str], size: int) -> None:
    response = await client.post("/", content=b"x" * size)
    assert response.status_code == 413
    assert results == {"too_large": 1}


async def test_a_chunked_body_is_read_no_further_than_the_limit(
    client: httpx.AsyncClient, results: Counter[str]
) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 200 * MAX_BODY:
            given += 65536
            yield b" " * 65536

    try:
        response = await client.post("/", content=endless())
        assert response.status_code == 413
    except httpx.TransportError:
        pass  # the server closed the connection while the client was still writing
    await wait_until(lambda: results == {"too_large": 1}, "the refusal")
    assert given < 100 * MAX_BODY


async def test_a_mistake_in_a_handler_is_logged_and_does_not_block_the_chat(
    client: httpx.AsyncClient, bot: AnyApplication, results: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_update: Update, _context: Any) -> None:
        raise ZeroDivisionError("a mistake of the handler")

    on_message(bot, broken)
    assert (await client.post("/", json=message())).status_code == 200
    assert "a mistake of the handler" in caplog.text
    assert (await client.post("/", json=message())).status_code == 200
    assert results == {"failed": 1, "duplicate": 1}


async def test_when_the_queue_is_full_the_update_comes_again(
    client: httpx.AsyncClient, bot: AnyApplication, queue: MemoryQueue, results: Counter[str]
) -> None:
    on_message(bot, reply)
    queue._queue_max = 0
    response = await client.post("/", json=message())
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    queue._queue_max = 100
    assert (await client.post("/", json=message())).status_code == 200
    assert results == {"unavailable": 1, "handled": 1}


async def test_what_could_never_be_sent_is_the_handlers_mistake_not_the_queues(
    client: httpx.AsyncClient, bot: AnyApplication, results: Counter[str]
) -> None:
    async def too_much(update: Update, _context: Any) -> None:
        assert update.message
        await update.message.reply_text("x" * (1 << 20))

    on_message(bot, too_much)
    assert (await client.post("/", json=message())).status_code == 200
    assert results == {"failed": 1}


async def test_a_handler_that_does_not_block_is_awaited(intake: Intake, bot: AnyApplication) -> None:
    release, ended = asyncio.Event(), asyncio.Event()

    async def slow(_update: Update, _context: Any) -> None:
        await release.wait()
        ended.set()

    on_message(bot, slow, block=False)
    taking = asyncio.create_task(intake.take(1, message()))
    done, _ = await asyncio.wait({taking}, timeout=0.2)
    assert not done
    release.set()
    assert await taking is Taken.HANDLED
    assert ended.is_set()


async def test_a_queue_failure_in_a_handler_that_does_not_block_counts_too(intake: Intake, bot: AnyApplication) -> None:
    async def fails(_update: Update, _context: Any) -> None:
        await asyncio.sleep(0)
        raise QueueUnavailable

    on_message(bot, fails, block=False)
    assert await intake.take(1, message()) is Taken.UNAVAILABLE


async def test_a_failure_wrapped_by_the_handler_is_still_the_queues(intake: Intake, bot: AnyApplication) -> None:
    async def wraps(_update: Update, _context: Any) -> None:
        try:
            raise QueueUnavailable
        except QueueUnavailable as error:
            raise RuntimeError("could not answer") from error

    on_message(bot, wraps)
    assert await intake.take(1, message()) is Taken.UNAVAILABLE


async def test_a_cancelled_handler_counts_as_failed(intake: Intake, bot: AnyApplication) -> None:
    async def cancelled(_update: Update, _context: Any) -> None:
        raise asyncio.CancelledError

    on_message(bot, cancelled)
    assert await intake.take(1, message()) is Taken.FAILED


async def test_errors_of_two_updates_at_once_are_kept_apart(intake: Intake, bot: AnyApplication) -> None:
    both = asyncio.Barrier(2)

    async def sometimes(update: Update, _context: Any) -> None:
        await both.wait()
        if update.update_id == 1:
            raise QueueUnavailable

    bot.add_handler(TypeHandler(Update, sometimes))
    taken = await asyncio.gather(intake.take(1, message(1)), intake.take(2, message(2)))
    assert taken == [Taken.UNAVAILABLE, Taken.HANDLED]


async def test_before_the_bot_is_known_updates_wait(playground: Playground, queue: MemoryQueue) -> None:
    made = QueuedBot(
        TOKEN,
        api_url=playground.url,
        outbox=Outbox(queue, lambda event: None, "123456"),
        request=AiohttpRequest(5.0),
        get_me_cache=own_get_me(),
    )
    application = ApplicationBuilder().application_class(IntakeApplication).bot(made).updater(None).build()
    assert await InlineIntake(application, UpdateLog()).take(1, message()) is Taken.UNAVAILABLE


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[RedisInbox]:
    inbox = RedisInbox(redis_url, "123456", updates_max=2)
    await inbox.start()
    yield inbox
    await inbox.close()


@pytest.fixture
async def queued(inbox: RedisInbox, results: Counter[str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the webhook that takes updates into the inbox."""

    def count(result: str, _seconds: float) -> None:
        results[result] += 1

    webhook = Webhook(QueuedIntake(inbox, "123456"), SECRET, count)
    async with listening(Starlette(routes=[Route("/", webhook, methods=["POST"])])) as client:
        client.headers.update(SECRET_HEADER)
        yield client


async def test_rule_19_with_redis_an_update_gets_200_at_once_503_while_it_is_open_and_200_when_it_has_ended(
    queued: httpx.AsyncClient, inbox: RedisInbox, results: Counter[str]
) -> None:
    assert (await queued.post("/", json=message())).status_code == 200
    again = await queued.post("/", json=message())
    assert again.status_code == 503
    assert int(again.headers["Retry-After"]) <= 5
    claim = await inbox.claim(5)
    assert [lease.message.body for lease in claim.leases] == [{"update": message()}]
    assert (await queued.post("/", json=message())).status_code == 503
    await inbox.claim(0, [Settlement(lease, Ack()) for lease in claim.leases])
    assert (await queued.post("/", json=message())).status_code == 200
    assert results == {"accepted": 1, "busy": 2, "duplicate": 1}


async def test_with_too_many_waiting_the_load_is_shed(queued: httpx.AsyncClient, results: Counter[str]) -> None:
    codes = [(await queued.post("/", json=message(number))).status_code for number in (1, 2, 3)]
    assert codes == [200, 200, 503]
    assert "Retry-After" in (await queued.post("/", json=message(3))).headers
    assert results == {"accepted": 2, "full": 2}


async def test_an_update_of_an_unexpected_shape_is_taken_and_left_to_whoever_reads_it(
    queued: httpx.AsyncClient, inbox: RedisInbox
) -> None:
    odd = {"update_id": 1, "message": {"chat": "nonsense", "from": 5}}
    assert (await queued.post("/", json=odd)).status_code == 200
    (lease,) = (await inbox.claim(5)).leases
    assert (lease.message.chat, lease.message.also, lease.message.body) == ("other", None, {"update": odd})


async def test_when_redis_is_full_or_away_the_update_comes_again(own_server: Server) -> None:
    inbox = RedisInbox(own_server.url, "123456", timeout=0.5)
    await inbox.start()
    intake, redis = QueuedIntake(inbox, "123456"), inbox._patient
    await redis.config_set("maxmemory", 1)
    assert await intake.take(1, message()) is Taken.FULL
    await redis.config_set("maxmemory", 0)
    assert await intake.take(1, message()) is Taken.ACCEPTED
    own_server.kill()
    assert await intake.take(2, message(2)) is Taken.UNAVAILABLE
    await inbox.close()


async def test_below_a_root_path_updates_are_taken_as_well(playground: Playground, redis_url: str) -> None:
    app = create_app(settings_for(playground.url, redis_url, webhook_secret=SECRET))
    async with listening(app, root_path="/bots") as client:
        taken = await client.post("/telegram/webhook", json={"update_id": 1}, headers=SECRET_HEADER)
        assert (taken.status_code, taken.json()) == (200, {"ok": True})
        assert (await client.get("/telegram/webhook")).status_code == 405


async def test_a_mistake_of_ours_is_answered_as_everywhere(
    playground: Playground, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings_for(playground.url, redis_url, webhook_secret=SECRET))
    async with listening(app) as client:
        monkeypatch.delattr(QueuedIntake, "take")
        failed = await client.post("/telegram/webhook", json={"update_id": 1}, headers=SECRET_HEADER)
        assert (failed.status_code, list(failed.json())) == (500, ["error"])
