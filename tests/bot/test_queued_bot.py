"""Plain PTB handlers over the queued bot: what they send is queued, what they ask is answered."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
    Update,
)
from telegram.constants import ParseMode
from telegram.error import BadRequest, InvalidToken, NetworkError
from telegram.ext import Application, ContextTypes, Defaults, MessageHandler, filters

from bot.outbox import Outbox
from bot.playground import Playground, start_playground
from bot.queued_bot import GetMeCache, QueuedBot
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.errors import QueueFull
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, Priority
from queueing.retry import RetryPolicy
from queueing.worker import Worker
from tests.bot.raw_server import RawServer, refuse
from tests.conftest import wait_until

BOT = "110201543"
TOKEN = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
SECRET = TOKEN.partition(":")[2]


class Kept:
    """A cache of getMe in memory."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    async def load(self) -> str | None:
        return self.text

    async def save(self, text: str) -> None:
        self.text = text

    @property
    def cache(self) -> GetMeCache:
        return GetMeCache(self.load, self.save)


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    playground = await start_playground()
    yield playground
    await playground.close()


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(queue_max=5)


def make_bot(url: str, queue: MemoryQueue, kept: Kept | None = None, defaults: Defaults | None = None) -> QueuedBot:
    return QueuedBot(
        TOKEN,
        api_url=url,
        outbox=Outbox(queue, lambda event: None, BOT),
        request=AiohttpRequest(5.0),
        get_me_cache=(kept or Kept()).cache,
        defaults=defaults,
    )


@pytest.fixture
async def bot(playground: Playground, queue: MemoryQueue) -> AsyncIterator[QueuedBot]:
    async with make_bot(playground.url, queue) as bot:
        yield bot


async def queued(queue: MemoryQueue) -> list[Message]:
    return [lease.message for lease in (await queue.claim(10)).leases]


def methods(playground: Playground) -> list[str]:
    ledger = playground.world.ledger
    return [ledger[seq].method for seq in range(len(ledger))]


async def test_a_send_is_queued_and_returns_at_once(bot: QueuedBot, queue: MemoryQueue, playground: Playground) -> None:
    before = datetime.now(UTC)
    message = await bot.send_message(1001, "hello")
    assert methods(playground) == ["getMe"]
    [waiting] = await queued(queue)
    assert (waiting.bot, waiting.chat, waiting.body) == (BOT, "1001", {"text": "hello"})
    assert waiting.priority is Priority.INTERACTIVE
    assert (message.message_id, message.text, message.chat.id) == (0, "hello", 1001)
    assert before - timedelta(seconds=1) <= message.date <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("chat_id", "lane", "id", "type"),
    [
        (1001, "1001", 1001, "private"),
        ("1001", "1001", 1001, "private"),
        (-42, "-42", -42, "group"),
        (-1001234567890, "-1001234567890", -1001234567890, "supergroup"),
        ("@News", "@news", 0, "channel"),
    ],
)
async def test_the_message_it_returns_names_the_chat(
    bot: QueuedBot, queue: MemoryQueue, chat_id: int | str, lane: str, id: int, type: str
) -> None:
    message = await bot.send_message(chat_id, "hello")
    assert (message.chat.id, message.chat.type) == (id, type)
    assert [waiting.chat for waiting in await queued(queue)] == [lane]


async def test_parameters_are_written_as_ptb_writes_them(bot: QueuedBot, queue: MemoryQueue) -> None:
    await bot.send_message(
        1001,
        "hello",
        parse_mode=ParseMode.HTML,
        entities=[MessageEntity(MessageEntity.BOLD, 0, 5)],
        reply_markup=InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data="b")]]),
        reply_parameters=ReplyParameters(7),
        link_preview_options=LinkPreviewOptions(is_disabled=True),
        disable_notification=True,
        api_kwargs={"new_parameter": timedelta(seconds=5)},
    )
    [waiting] = await queued(queue)
    assert waiting.body["kwargs"] == {
        "parse_mode": "HTML",
        "entities": [{"type": "bold", "offset": 0, "length": 5}],
        "reply_markup": {"inline_keyboard": [[{"text": "a", "callback_data": "b"}]]},
        "reply_parameters": {"message_id": 7},
        "link_preview_options": {"is_disabled": True},
        "disable_notification": True,
        "new_parameter": 5,
    }


async def test_defaults_are_applied(playground: Playground, queue: MemoryQueue) -> None:
    defaults = Defaults(parse_mode=ParseMode.HTML, disable_notification=True, do_quote=True)
    async with make_bot(playground.url, queue, defaults=defaults) as bot:
        await bot.send_message(1001, "hello")
    [waiting] = await queued(queue)
    assert waiting.body["kwargs"] == {"parse_mode": "HTML", "disable_notification": True}


async def test_other_methods_are_called_at_once_and_bring_their_result(
    bot: QueuedBot, queue: MemoryQueue, playground: Playground
) -> None:
    document = await bot.send_document(1001, b"content", filename="a.txt")
    assert document.message_id > 0
    edited = await bot.edit_message_caption(1001, document.message_id, caption="better")
    assert not isinstance(edited, bool)
    assert edited.caption == "better"
    assert methods(playground) == ["getMe", "sendDocument", "editMessageCaption"]
    assert await queued(queue) == []


async def test_a_full_queue_reaches_the_handler_as_what_it_is(bot: QueuedBot) -> None:
    for _ in range(5):
        await bot.send_message(1001, "hello")
    with pytest.raises(QueueFull):
        await bot.send_message(1001, "one too many")


@pytest.mark.parametrize(("chat_id", "text"), [("no chat", "hello"), (1001, "x" * 2_000_000), (1001, "half \ud83d")])
async def test_what_could_never_be_sent_is_a_bad_request(
    bot: QueuedBot, queue: MemoryQueue, chat_id: str | int, text: str
) -> None:
    with pytest.raises(BadRequest):
        await bot.send_message(chat_id, text)
    assert await queued(queue) == []


# --- getMe


async def test_one_process_asks_who_it_is_and_the_others_read_it(playground: Playground, queue: MemoryQueue) -> None:
    kept = Kept()
    names = []
    for _ in range(3):
        async with make_bot(playground.url, queue, kept) as bot:
            names.append((bot.id, bot.username))
    assert methods(playground) == ["getMe"]
    assert names == [names[0]] * 3
    assert names[0][0] == int(BOT)


async def test_who_asks_telegram_gets_its_answer(playground: Playground, queue: MemoryQueue) -> None:
    kept = Kept()
    async with make_bot(playground.url, queue, kept) as bot:
        kept.text = None
        assert (await bot.get_me()).id == int(BOT)
    assert methods(playground) == ["getMe", "getMe"]
    assert kept.text


async def test_what_another_bot_left_in_the_cache_is_not_believed(playground: Playground, queue: MemoryQueue) -> None:
    kept = Kept('{"id": 999, "is_bot": true, "first_name": "Other", "username": "other_bot"}')
    async with make_bot(playground.url, queue, kept) as bot:
        assert bot.id == int(BOT)


async def test_a_refused_token_is_not_told(queue: MemoryQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with RawServer(refuse(401, "Unauthorized")) as server:
        bot = make_bot(server.url, queue)
        with pytest.raises(InvalidToken, match=f"bot {BOT}") as caught:
            await bot.initialize()
        await bot.shutdown()
    assert caught.value.__context__ is None
    assert SECRET not in str(caught.value) + repr(bot) + str(bot) + caplog.text


async def test_telegram_being_away_is_a_network_error(queue: MemoryQueue) -> None:
    async with RawServer(refuse(401, "Unauthorized")) as server:
        url = server.url
    bot = make_bot(url, queue)
    with pytest.raises(NetworkError):
        await bot.initialize()
    await bot.shutdown()


# --- the whole


async def test_a_plain_handler_s_answers_go_through_the_queue_and_arrive_in_order(playground: Playground) -> None:
    async def greet(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        assert update.effective_message
        assert update.effective_chat
        await update.effective_message.reply_text("one")
        await update.effective_message.reply_html("<b>two</b>")
        await update.effective_chat.send_message("three")
        await context.bot.send_message(update.effective_chat.id, "four")

    queue = MemoryQueue()
    await queue.register(BOT, TOKEN)
    request = AiohttpRequest(5.0)
    sender = Sender(queue, api_url=playground.url, send_timeout=5.0, request=request)
    worker = Worker(queue, sender.deliver, workers=10, policy=RetryPolicy(), observe=lambda event: None)
    application = Application.builder().bot(make_bot(playground.url, queue)).updater(None).build()
    application.add_handler(MessageHandler(filters.ALL, greet))
    person = {"id": 1001, "is_bot": False, "first_name": "Ada"}
    said = {"message_id": 5, "date": 1, "chat": {"id": 1001, "type": "private"}, "from": person, "text": "hi"}
    await worker.start()
    async with application:
        await application.process_update(Update.de_json({"update_id": 1, "message": said}, application.bot))
        ledger = playground.world.ledger
        await wait_until(lambda: methods(playground).count("sendMessage") == 4, "four messages")
    await worker.stop()
    await request.shutdown()
    assert [ledger[seq].text for seq in range(1, 5)] == ["one", "<b>two</b>", "three", "four"]
