"""Buttons that carry objects: pressed in another process than the one that made them. The stand-in is Telegram."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InlineQueryResultArticle,
    InputTextMessageContent,
    Update,
)
from telegram.ext import (
    ApplicationBuilder,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    InlineQueryHandler,
    InvalidCallbackData,
)

from bot.pickling import StateError
from bot.playground import Playground
from bot.stateful import StatefulApplication
from tests.bot.processes import BOT, TOKEN, Process, message, press, process
from tests.bot.served import telegram
from tests.conftest import wait_until

Context = ContextTypes.DEFAULT_TYPE
KEYBOARDS = f"{{telegram_messages}}:keyboard:{BOT}:*"
CHAT = 1001


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    async with telegram(TOKEN) as running:
        yield running


class Basket:
    """A bot whose buttons carry what is chosen."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def setup(self, builder: ApplicationBuilder) -> StatefulApplication:
        application = builder.build()
        application.add_handler(CommandHandler("start", self.start))
        application.add_handler(CommandHandler("clear", self.clear))
        application.add_handler(CommandHandler("fail", self.fail))
        application.add_handler(CallbackQueryHandler(self.invalid, pattern=InvalidCallbackData))
        application.add_handler(CallbackQueryHandler(self.press))
        return application

    async def start(self, update: Update, context: Context) -> None:
        sent = await update.message.reply_text("?", reply_markup=keyboard({"n": 1}, ("two", 2)))
        self.seen.append(sent.reply_markup.inline_keyboard[1][0].callback_data)

    async def clear(self, update: Update, context: Context) -> None:
        context.bot.callback_data_cache.clear_callback_data()
        context.bot.callback_data_cache.clear_callback_queries()

    async def fail(self, update: Update, context: Context) -> None:
        await update.message.reply_text("?", reply_markup=keyboard("after all"))
        if not self.seen:
            self.seen.append("failed")
            raise ValueError("no")

    async def press(self, update: Update, context: Context) -> None:
        query = update.callback_query
        shown = [button.callback_data for row in query.message.reply_markup.inline_keyboard for button in row]
        self.seen.append((query.data, shown))
        if query.data == {"n": 1}:
            context.drop_callback_data(query)

    async def invalid(self, update: Update, context: Context) -> None:
        assert isinstance(update.callback_query.data, InvalidCallbackData)
        self.seen.append("invalid")
        with pytest.raises(KeyError, match="not found in cache"):
            context.drop_callback_data(update.callback_query)

    def take(self) -> list[Any]:
        taken, self.seen = self.seen, []
        return taken


def keyboard(*data: object) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup.from_column([InlineKeyboardButton("x", callback_data=item) for item in data])


@pytest.fixture
def basket() -> Basket:
    return Basket()


@pytest.fixture
async def two(redis_url: str, basket: Basket, playground: Playground) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        made = (process(redis_url, basket.setup, url=playground.url, arbitrary_callback_data=True) for _ in range(2))
        yield [await stack.enter_async_context(one) for one in made]


def sent(playground: Playground, number: int = -1) -> list[list[str]]:
    """The callback data of the last message's buttons, as Telegram got them."""
    call = list(playground.world.ledger.select(method="sendMessage"))[number]
    message = playground.world.bots[int(BOT)].message(call.chat, call.message_id)
    assert message
    rows = message["reply_markup"]["inline_keyboard"]
    return [[button["callback_data"] for button in row] for row in rows]


def pressed(playground: Playground, row: int, number: int = -1) -> dict[str, Any]:
    """Somebody presses a button of that message."""
    rows = sent(playground, number)
    shown = {"inline_keyboard": [[{"text": "x", "callback_data": data} for data in line] for line in rows]}
    return press(rows[row][0], reply_markup=shown)


async def test_a_button_pressed_in_another_process_has_its_data(
    two: list[Process], basket: Basket, playground: Playground, redis: Redis
) -> None:
    one, other = two
    await one.handle(message("/start"))
    (key,) = await redis.keys(KEYBOARDS)
    assert 29 * 86400 < await redis.ttl(key) <= 30 * 86400
    await other.handle(pressed(playground, 1))
    assert basket.take() == [("two", 2), (("two", 2), [{"n": 1}, ("two", 2)])]


async def test_data_that_was_dropped_is_invalid_everywhere(
    two: list[Process], basket: Basket, playground: Playground, redis: Redis
) -> None:
    one, other = two
    await one.handle(message("/start"))
    await other.handle(pressed(playground, 0))
    assert await redis.keys(KEYBOARDS) == []
    await one.handle(pressed(playground, 0))
    assert basket.take()[1:] == [({"n": 1}, [{"n": 1}, ("two", 2)]), "invalid"]


@pytest.mark.parametrize("data", ["a" * 64, "no keyboard", "{telegram_messages}"])
async def test_data_that_no_process_made_is_invalid(two: list[Process], basket: Basket, data: str) -> None:
    await two[0].handle(press(data))
    assert basket.take() == ["invalid"]


async def test_what_is_cleared_is_cleared_for_all(two: list[Process], basket: Basket, playground: Playground) -> None:
    one, other = two
    await one.handle(message("/start"))
    await other.handle(message("/clear"))
    await one.handle(pressed(playground, 1))
    await one.handle(message("/start"))
    await other.handle(pressed(playground, 1))
    assert basket.take() == [("two", 2), "invalid", ("two", 2), (("two", 2), [{"n": 1}, ("two", 2)])]


async def test_a_use_keeps_a_keyboard_for_another_thirty_days(
    two: list[Process], basket: Basket, playground: Playground, redis: Redis
) -> None:
    one, other = two
    await one.handle(message("/start"))
    (key,) = await redis.keys(KEYBOARDS)
    await redis.expire(key, 100)
    await other.handle(pressed(playground, 1))
    assert await redis.ttl(key) > 29 * 86400


async def test_a_run_that_is_repeated_gives_its_buttons_the_same_data(
    two: list[Process], basket: Basket, playground: Playground
) -> None:
    """The message of the first run may have been sent; its buttons work when the second has ended."""
    one, other = two
    with pytest.raises(ValueError, match="no"):
        await one.handle(message("/fail"), origin="the same")
    await other.handle(message("/fail"), origin="the same")
    assert sent(playground, 0) == sent(playground, 1)
    await one.handle(pressed(playground, 0, number=0))
    assert basket.take()[1:] == [("after all", ["after all"])]


async def test_other_updates_buttons_cannot_be_guessed(two: list[Process], playground: Playground) -> None:
    await two[0].handle(message("/start"), origin="one")
    await two[0].handle(message("/start"), origin="other")
    assert sent(playground, 0)[0][0][:32] != sent(playground, 1)[0][0][:32]
    shared = two[0].application.bot.callback_data_cache
    assert shared.bot.token.partition(":")[2] not in str(sent(playground))


async def test_a_send_outside_of_a_run_stores_its_buttons_at_once(
    two: list[Process], basket: Basket, playground: Playground, redis: Redis
) -> None:
    one, other = two
    await one.application.bot.send_message(CHAT, "?", reply_markup=keyboard("from outside"))
    await one.keeper.close()
    await other.handle(pressed(playground, 0))
    assert basket.take() == [("from outside", ["from outside"])]


async def test_the_buttons_of_a_run_that_takes_long_are_stored_before_its_end(
    two: list[Process], basket: Basket, playground: Playground, redis: Redis
) -> None:
    """Its messages are on their way by then, and another chat may have got one."""
    one, other = two

    async def long() -> None:
        await one.application.bot.send_message(CHAT, "?", reply_markup=keyboard("early"))

        async def stored() -> bool:
            return bool(await redis.keys(KEYBOARDS))

        await wait_until(stored, "the buttons to be stored")
        await other.handle(pressed(playground, 0))

    await one.run(None, long)
    assert basket.take() == [("early", ["early"])]


async def test_buttons_of_inline_results_and_of_messages_that_are_answered(
    redis_url: str, playground: Playground, redis: Redis
) -> None:
    seen = []

    async def look(update: Update, context: Context) -> None:
        markup = update.message.reply_to_message.reply_markup
        seen.append(markup.inline_keyboard[0][0].callback_data)

    async def inline(update: Update, context: Context) -> None:
        result = InlineQueryResultArticle("1", "x", InputTextMessageContent("x"), reply_markup=keyboard([1]))
        await update.inline_query.answer([result])

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = builder.build()
        application.add_handler(CommandHandler("look", look))
        application.add_handler(InlineQueryHandler(inline))
        return application

    async with (
        process(redis_url, setup, url=playground.url, arbitrary_callback_data=True) as one,
        process(redis_url, setup, url=playground.url, arbitrary_callback_data=True) as other,
    ):
        person = {"id": 1, "is_bot": False, "first_name": "A"}
        query = {"id": "1", "from": person, "query": "", "offset": ""}
        playground.world.bots[int(BOT)].ask("1")
        await one.handle({"update_id": 1, "inline_query": query})
        (key,) = await redis.keys(KEYBOARDS)
        answered = press(key.rpartition(":")[2] + "0" * 32)["callback_query"]["message"]
        await other.handle(message("/look", reply_to_message=answered))
    assert seen == [[1]]


async def test_a_cutoff_clears_what_was_last_used_before(
    two: list[Process], basket: Basket, playground: Playground
) -> None:
    one, other = two
    cache = other.application.bot.callback_data_cache
    await one.handle(message("/start"))

    async def clear(cutoff: float | datetime) -> None:
        async def work() -> None:
            cache.clear_callback_data(cutoff)

        await other.run(None, work)

    await clear(time.time() - 3600)
    await one.handle(pressed(playground, 1))
    await clear(datetime.fromtimestamp(time.time() + 3600, UTC))
    await one.handle(pressed(playground, 1))
    assert basket.take()[1:] == [(("two", 2), [{"n": 1}, ("two", 2)]), "invalid"]


async def test_data_that_does_not_pickle_fails_the_update(redis_url: str, playground: Playground) -> None:
    async def start(update: Update, context: Context) -> None:
        await update.message.reply_text("?", reply_markup=keyboard(lambda: 0))

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = builder.build()
        application.add_handler(CommandHandler("start", start))
        return application

    async with process(redis_url, setup, url=playground.url, arbitrary_callback_data=True) as only:
        with pytest.raises(StateError, match="callback_data cannot be stored"):
            await only.handle(message("/start"))
