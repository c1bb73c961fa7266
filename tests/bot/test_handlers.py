"""What the bot says, to whom, and when it keeps quiet."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from telegram import Update
from telegram.ext import Application

from bot.handlers import add_handlers, describe
from bot.outbox import Outbox
from bot.queued_bot import GetMeCache, QueuedBot
from bot.transport import AiohttpRequest
from queueing.contract import QueueStats
from queueing.errors import QueueError, QueueUnavailable
from queueing.memory_queue import MemoryQueue

BOT = 110201543
PRIVATE = {"id": 1001, "type": "private", "first_name": "Ada"}
GROUP = {"id": -42, "type": "group", "title": "Friends"}
App = Application[Any, Any, Any, Any, Any, Any]


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
async def application(queue: MemoryQueue) -> AsyncIterator[App]:
    """An application that knows its name already, and never gets to Telegram."""

    async def load() -> str:
        return f'{{"id": {BOT}, "is_bot": true, "first_name": "Demo", "username": "demo_bot"}}'

    async def save(text: str) -> None: ...

    async def stats() -> QueueStats:
        return QueueStats(ready=2, oldest_age=3.0)

    bot = QueuedBot(
        f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        api_url="http://127.0.0.1:9",
        outbox=Outbox(queue, lambda event: None, str(BOT)),
        request=AiohttpRequest(1.0),
        get_me_cache=GetMeCache(load, save),
    )
    application = Application.builder().bot(bot).updater(None).build()
    add_handlers(application, stats)
    async with application:
        yield application


def update(application: App, text: str, chat: dict[str, Any] = PRIVATE, kind: str = "message") -> Update:
    entities = []
    if text.startswith("/"):
        entities = [{"type": "bot_command", "offset": 0, "length": len(text.split()[0])}]
    message = {
        "message_id": 5,
        "date": 1,
        "chat": chat,
        "from": {"id": 1001, "is_bot": False, "first_name": "Ada"},
        "text": text,
        "entities": entities,
    }
    return Update.de_json({"update_id": 1, kind: message}, application.bot)


async def answers(queue: MemoryQueue) -> list[tuple[str, str]]:
    return [(lease.message.chat, lease.message.body["text"]) for lease in (await queue.claim(10)).leases]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("/start", "Hello, Ada!"),
        ("/start deep-link", "Hello, Ada!"),
        ("/help", "/queue"),
        ("/ping", "pong"),
        ("/PING", "pong"),
        ("/queue", "2 messages are in the queue"),
        ("good morning", "good morning"),
        ("/nonsense", "/help"),
        ("x" * 4096, "x" * 1000),
    ],
)
async def test_it_answers_a_person(application: App, queue: MemoryQueue, said: str, answer: str) -> None:
    await application.process_update(update(application, said))
    [(chat, text)] = await answers(queue)
    assert chat == "1001"
    assert answer in text
    assert len(text) <= 4096


@pytest.mark.parametrize(
    ("said", "answer"),
    [("/ping@demo_bot", "pong"), ("/ping@Demo_Bot", "pong"), ("/ping", "pong"), ("hello all", "hello all")],
)
async def test_it_answers_in_a_group(application: App, queue: MemoryQueue, said: str, answer: str) -> None:
    await application.process_update(update(application, said, GROUP))
    [(chat, text)] = await answers(queue)
    assert chat == "-42"
    assert answer in text


@pytest.mark.parametrize(
    ("said", "chat", "kind"),
    [
        ("/ping", PRIVATE, "edited_message"),
        ("good morning", PRIVATE, "edited_message"),
        ("/ping", {"id": -1007, "type": "channel"}, "channel_post"),
        ("/ping@other_bot", GROUP, "message"),
        ("/nonsense", GROUP, "message"),
    ],
)
async def test_it_keeps_quiet(application: App, queue: MemoryQueue, said: str, chat: dict[str, Any], kind: str) -> None:
    await application.process_update(update(application, said, chat, kind))
    assert await answers(queue) == []


async def test_a_queue_that_cannot_be_asked_is_the_handler_s_error(application: App, queue: MemoryQueue) -> None:
    errors: list[Exception | None] = []

    async def away() -> QueueStats:
        raise QueueUnavailable

    async def remember(_: object, context: Any) -> None:
        errors.append(context.error)

    application.handlers.clear()
    add_handlers(application, away)
    application.add_error_handler(remember)
    await application.process_update(update(application, "/queue"))
    [error] = errors
    assert isinstance(error, QueueError)


@pytest.mark.parametrize(
    ("stats", "text"),
    [
        (QueueStats(), "The queue is empty"),
        (QueueStats(dead=7), "The queue is empty"),
        (QueueStats(inflight=1), "1 message is in the queue, and none has waited for as long as a second"),
        (QueueStats(ready=1, oldest_age=0.4), "1 message is in the queue, and none has waited"),
        (QueueStats(ready=1200, oldest_age=1.2), "1,200 messages are in the queue. The one that has waited longest"),
        (QueueStats(ready=2, oldest_age=1.2), "for 1 second"),
        (QueueStats(ready=2, oldest_age=119), "for 119 seconds"),
        (QueueStats(ready=2, oldest_age=300), "for 5 minutes"),
        (QueueStats(ready=2, oldest_age=8000), "for 2 hours"),
        (QueueStats(ready=2, oldest_age=200_000), "for 2 days"),
    ],
)
def test_the_queue_in_plain_words(stats: QueueStats, text: str) -> None:
    assert text in describe(stats)
