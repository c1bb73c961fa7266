"""What the bot says, to whom, and when it keeps quiet."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from telegram import Update
from telegram.ext import Application

from bot import texts
from bot.application import Builder, Parts
from bot.chat import ChatBackend
from bot.handlers import add_handlers, commands
from bot.line import MemoryLine
from bot.outbox import Outbox
from bot.queued_bot import GetMeCache, QueuedBot
from bot.services import Services
from bot.transport import AiohttpRequest
from queueing.contract import QueueStats
from queueing.errors import QueueError, QueueUnavailable
from queueing.limits import OFF, Rate, RateLimits
from queueing.memory_queue import MemoryQueue

BOT = 110201543
PRIVATE = {"id": 1001, "type": "private", "first_name": "Ada"}
GROUP = {"id": -42, "type": "group", "title": "Friends"}
LIMITS = RateLimits(Rate(30), Rate(1), Rate(20, 60.0))
App = Application[Any, Any, Any, Any, Any, Any]


class Chats:
    """Subscribers in memory."""

    def __init__(self) -> None:
        self.chats: set[int | str] = set()

    async def add(self, chat: int | str) -> bool:
        new = chat not in self.chats
        self.chats.add(chat)
        return new

    async def remove(self, chat: int | str) -> bool:
        was = chat in self.chats
        self.chats.discard(chat)
        return was

    async def count(self) -> int:
        return len(self.chats)


async def two_waiting() -> QueueStats:
    return QueueStats(ready=2, oldest_age=3.0)


async def away() -> QueueStats:
    raise QueueUnavailable


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
def chats() -> Chats:
    return Chats()


@pytest.fixture
def services(chats: Chats) -> Services:
    return Services(two_waiting, LIMITS, MemoryLine(), subscribers=chats)


def make_application(queue: MemoryQueue, services: Services) -> App:
    """An application that knows its name already, and never gets to Telegram."""

    async def load() -> str:
        return f'{{"id": {BOT}, "is_bot": true, "first_name": "Demo", "username": "demo_bot"}}'

    async def save(text: str) -> None: ...

    def make_bot(**said: Any) -> QueuedBot:
        return QueuedBot(
            f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
            api_url="http://127.0.0.1:9",
            outbox=Outbox(queue, lambda event: None, str(BOT)),
            request=AiohttpRequest(1.0),
            get_me_cache=GetMeCache(load, save),
            **said,
        )

    application = Builder(Parts(make_bot, services, shared=True)).build()
    add_handlers(application)
    return application


@pytest.fixture
async def application(queue: MemoryQueue, services: Services) -> AsyncIterator[App]:
    async with make_application(queue, services) as application:
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
        ("/help", "/status"),
        ("/ping", "pong"),
        ("/PING", "pong"),
        ("/status", "2 messages are in the queue. The one that has waited longest has waited for 3 seconds."),
        ("/status", "I send at most 1 message a second to this chat, and 30 messages a second to all chats together."),
        ("/queue", "2 messages are in the queue"),
        ("good morning", "good morning"),
        ("/nonsense", "/help"),
        ("x" * 4096, "x" * 1000),
        ("/subscribe", "Subscribed"),
        ("/unsubscribe", "was not subscribed"),
        ("/new", "/help"),
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
    [
        ("/ping@demo_bot", "pong"),
        ("/ping@Demo_Bot", "pong"),
        ("/ping", "pong"),
        ("/status", "at most 20 messages a minute to this chat"),
        ("hello all", "hello all"),
    ],
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


async def test_a_queue_that_cannot_be_asked_is_the_handler_s_error(queue: MemoryQueue) -> None:
    errors: list[Exception | None] = []

    async def remember(_: object, context: Any) -> None:
        errors.append(context.error)

    async with make_application(queue, Services(away, LIMITS, MemoryLine())) as application:
        application.add_error_handler(remember)
        await application.process_update(update(application, "/status"))
    [error] = errors
    assert isinstance(error, QueueError)


async def test_subscribing_twice_is_as_once(application: App, queue: MemoryQueue, chats: Chats) -> None:
    for said in ("/subscribe", "/subscribe"):
        await application.process_update(update(application, said, GROUP))
    assert chats.chats == {-42}
    await application.process_update(update(application, "/unsubscribe", GROUP))
    assert chats.chats == set()
    [(_, first)] = await answers(queue)  # the others wait for their turn in this chat
    assert "Subscribed" in first


async def test_it_offers_only_what_there_is(queue: MemoryQueue, chats: Chats) -> None:
    plain = Services(two_waiting, LIMITS, MemoryLine())
    assert [name for name, _ in commands(plain)] == ["status", "ping", "help"]
    chat = ChatBackend("http://127.0.0.1:9/v1", "small")
    whole = Services(two_waiting, LIMITS, MemoryLine(), chat, chats)
    assert [name for name, _ in commands(whole)] == ["status", "ping", "new", "subscribe", "unsubscribe", "help"]
    async with make_application(queue, plain) as application:
        await application.process_update(update(application, "/subscribe"))
    [(_, text)] = await answers(queue)
    assert text == texts.UNKNOWN


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
    assert text in texts.queue(stats)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (LIMITS, "I send at most 1 message a second to this chat, and 30 messages a second to all chats together."),
        (RateLimits(), "There is no limit to how much I send."),
        (RateLimits(bot=Rate(30)), "as many messages as I like to this chat, and 30 messages a second to all"),
        (RateLimits(chat=Rate(5, 10.0)), "I send at most 5 messages in 10 seconds to this chat."),
        (RateLimits(Rate(30), Rate(1), chats={"1001": OFF}), "as many messages as I like to this chat"),
    ],
)
def test_the_limits_in_plain_words(limits: RateLimits, text: str) -> None:
    assert text in texts.limits(limits, "1001")


@pytest.mark.parametrize(
    ("asking", "text"),
    [
        (0, "Nobody waits"),
        (1, "I am answering 1 question, and yours would be answered at once"),
        (4, "I am answering 4 questions; 0 wait in line"),
        (9, "I am answering 4 questions; 5 wait in line, and yours would be next"),
    ],
)
def test_the_line_in_plain_words(asking: int, text: str) -> None:
    assert text in texts.line(asking, 4)
