"""State with the real inbox and runner: it is stored with the commit of its update, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import Update
from telegram.ext import CommandHandler, ContextTypes, ConversationHandler, MessageHandler, TypeHandler, filters

from bot.playground import Playground
from bot.state import Keeper
from queueing.redis_inbox import RedisInbox
from tests.bot.handled import Bot, Process, running_bot, say, text_update
from tests.bot.processes import message
from tests.bot.served import BOT

Context = ContextTypes.DEFAULT_TYPE
STATE = f"{{telegram_messages}}:state:{BOT}"


@pytest.fixture
async def start(redis_url: str, playground: Playground) -> AsyncIterator[Any]:
    """Starts processes with an application each, to which `setup` adds handlers."""
    async with AsyncExitStack() as stack:

        async def started(setup: Any, number: int = 2) -> list[tuple[Bot, Process]]:
            made = []
            for _ in range(number):
                bot = await stack.enter_async_context(running_bot(redis_url, playground.url))
                store = RedisInbox(redis_url, BOT)
                await store.start()
                stack.push_async_callback(store.close)
                setup(bot.application)
                made.append((bot, await bot.process(Keeper(bot.application, store, BOT))))
            return made

        yield started


def on_update(callback: Any) -> Any:
    return lambda application: application.add_handler(TypeHandler(Update, callback))


async def test_a_conversation_goes_on_in_any_process(start: Any) -> None:
    seen: list[str] = []

    async def begin(update: Update, context: Context) -> int:
        context.user_data["texts"] = []
        return 0

    async def step(update: Update, context: Context) -> int:
        context.user_data["texts"].append(update.message.text)
        if len(context.user_data["texts"]) < 5:
            return 0
        seen.append(" ".join(context.user_data.pop("texts")))
        return ConversationHandler.END

    def setup(application: Any) -> None:
        states = {0: [MessageHandler(filters.TEXT & ~filters.COMMAND, step)]}
        application.add_handler(ConversationHandler([CommandHandler("start", begin)], states, []))

    processes = await start(setup)
    turns = cycle(process for _, process in processes)
    for text in ("/start", "1", "2", "3", "4", "5", "6"):
        await next(turns).take(message(text))
    await processes[0][1].idle()
    assert seen == ["1 2 3 4 5"]


async def test_rule_21_state_sends_and_the_update_s_end_are_stored_together(start: Any, redis: Redis) -> None:
    """A run that raises at first leaves nothing; the second leaves all, once."""
    runs: list[int] = []

    async def handler(update: Update, context: Context) -> None:
        context.user_data["n"] = context.user_data.get("n", 0) + 1
        context.bot_data["n"] = context.bot_data.get("n", 0) + 1
        say(f"n is {context.user_data['n']} {context.bot_data['n']}")
        runs.append(update.update_id)
        if len(runs) == 1:
            assert await redis.keys(STATE) == []
            raise ValueError("not yet")

    ((bot, process), _) = await start(on_update(handler))
    await process.take(text_update())
    await process.idle()
    assert len(runs) == 2
    assert await bot.sent() == ["n is 1 1"]


async def test_state_that_cannot_be_stored_makes_a_dead_letter_that_names_it(
    start: Any, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(update: Update, context: Context) -> None:
        context.user_data["lock"] = asyncio.Lock()

    ((_, process),) = await start(on_update(handler), 1)
    await process.take(text_update(chat=42))
    await process.idle()
    (letter,) = (await process.inbox.dead_page(10)).letters
    assert letter.reason == "handler_failed"
    assert "user_data of 42['lock'] cannot be stored" in letter.error
    assert "at fault: user_data of 42['lock']" in caplog.text
    assert await redis.keys(STATE) == []


async def test_rule_20_bot_data_counts_every_update_once(start: Any) -> None:
    """Runs of six processes, up to 64 at a time in each, change the same key."""

    async def handler(update: Update, context: Context) -> None:
        context.bot_data["n"] = context.bot_data.get("n", 0) + 1
        await asyncio.sleep(0)

    made = await start(on_update(handler), 6)
    turns = cycle(process for _, process in made)
    for number in range(600):
        await next(turns).take(text_update(number, chat=1 + number % 300))
    await made[0][1].idle()
    store = made[0][1].inbox
    assert list(await store.read_all(f"bot_data:{BOT}")) == ["=n"]
    seen: list[int] = []

    async def look(update: Update, context: Context) -> None:
        seen.append(context.bot_data["n"])

    for bot, _ in made:
        bot.application.add_handler(TypeHandler(Update, look), group=1)
    await made[0][1].take(text_update(1000))
    await made[0][1].idle()
    assert seen == [601]
