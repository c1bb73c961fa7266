"""user_data, chat_data and bot_data of a bot whose updates are handled by two processes in turn."""

import asyncio
import enum
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import Update
from telegram.ext import (
    ApplicationBuilder,
    CallbackContext,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    DictPersistence,
    MessageHandler,
    TypeHandler,
    filters,
)

from bot.pickling import StateError
from bot.state import Keeper
from bot.stateful import StatefulApplication
from tests.bot.processes import BOT, Process, RedisStore, Setup, message, process

Context = ContextTypes.DEFAULT_TYPE
STATE = f"{{telegram_messages}}:state:{BOT}"
BOT_DATA = f"{{telegram_messages}}:bot_data:{BOT}"


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Any]:
    """Starts processes of a bot: two, if not told otherwise."""
    async with AsyncExitStack() as stack:

        async def started(setup: Setup, number: int = 2, **more: Any) -> list[Process]:
            return [await stack.enter_async_context(process(redis_url, setup, **more)) for _ in range(number)]

        yield started


def handling(callback: Any, **types: Any) -> Setup:
    """A bot whose one handler is `callback(update, context)`."""

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        if types:
            builder = builder.context_types(ContextTypes(**types))
        application = builder.build()
        application.add_handler(TypeHandler(Update, callback))
        return application

    return setup


async def test_what_one_process_keeps_of_a_user_and_a_chat_the_next_has(start: Any) -> None:
    seen = []

    async def count(update: Update, context: Context) -> None:
        seen.append((context.user_data.get("n", 0), context.chat_data.get("n", 0)))
        context.user_data["n"] = context.user_data.get("n", 0) + 1
        context.chat_data["n"] = context.chat_data.get("n", 0) + 1

    one, other = await start(handling(count))
    for user, at in zip((1, 2, 1, 1), cycle((one, other))):
        await at.handle(message("x", user=user, chat=-5))
    assert seen == [(0, 0), (0, 1), (1, 2), (2, 3)]


async def test_nothing_stays_in_the_process(start: Any) -> None:
    async def keep(update: Update, context: Context) -> None:
        context.user_data["n"] = context.chat_data["n"] = context.bot_data["n"] = 1

    (only,) = await start(handling(keep), 1)
    await only.handle(message("x"))
    assert dict(only.application.user_data) == dict(only.application.chat_data) == {}
    assert only.application.bot_data == {}
    assert only.application._chat_ids_to_be_updated_in_persistence == set()


async def test_what_is_emptied_is_stored_no_more(start: Any, redis: Redis) -> None:
    async def toggle(update: Update, context: Context) -> None:
        if context.user_data:
            context.user_data.clear()
        else:
            context.user_data["n"] = 1

    one, other = await start(handling(toggle))
    await one.handle(message("x", user=7))
    assert await redis.hkeys(STATE) == ["user 7"]
    await other.handle(message("x", user=7))
    assert await redis.hkeys(STATE) == []


async def test_looking_changes_nothing(start: Any, redis: Redis) -> None:
    async def look(update: Update, context: Context) -> None:
        assert context.user_data == {}
        assert context.chat_data == {}
        assert context.bot_data == {}

    (only,) = await start(handling(look), 1)
    await only.handle(message("x"))
    assert await redis.keys() == []


async def test_what_a_failed_run_changed_is_forgotten(start: Any) -> None:
    async def fail_once(update: Update, context: Context) -> None:
        context.user_data.setdefault("runs", []).append(update.update_id)
        context.bot_data["runs"] = context.user_data["runs"]
        if len(context.bot_data["runs"]) == 2:
            raise ValueError("no")

    one, other = await start(handling(fail_once))
    await one.handle({**message("x"), "update_id": 1})
    with pytest.raises(ValueError, match="no"):
        await other.handle({**message("x"), "update_id": 2})
    seen = []
    other.application.add_handler(TypeHandler(Update, _noting(seen)), group=-1)
    with pytest.raises(ValueError, match="no"):
        await other.handle({**message("x"), "update_id": 3})
    assert seen == ["{'runs': [1]} {'runs': [1]}"]


def _noting(seen: list[Any]) -> Any:
    async def note(update: Update, context: Context) -> None:
        seen.append(f"{context.user_data} {context.bot_data}")

    return note


@pytest.mark.parametrize("kind", ["user_data", "chat_data"])
async def test_the_data_of_somebody_else_is_an_error_that_says_why(start: Any, kind: str) -> None:
    async def pry(update: Update, context: Context) -> None:
        data = getattr(context.application, kind)
        for look in (lambda: data[7], lambda: data.get(7), lambda: 7 in data):
            with pytest.raises(StateError, match=f"{kind} of 7 is not loaded: the user and the chat"):
                look()
        assert list(data) == []
        getattr(context, kind)["x"] = 1
        assert list(data) == [1001]
        with pytest.raises(StateError, match="not loaded"):
            getattr(context.application, f"drop_{kind}")(7)

    (only,) = await start(handling(pry), 1)
    await only.handle(message("x"))
    with pytest.raises(StateError, match="no update"):
        getattr(only.application, kind)[1001]


async def test_data_is_dropped(start: Any, redis: Redis) -> None:
    async def step(update: Update, context: Context) -> None:
        if update.message.text == "keep":
            context.user_data["n"] = context.chat_data["n"] = 1
        else:
            context.application.drop_user_data(update.effective_user.id)
            context.application.drop_chat_data(update.effective_chat.id)
            assert context.user_data == context.chat_data == {}

    one, other = await start(handling(step))
    await one.handle(message("keep"))
    await other.handle(message("drop"))
    assert await redis.hkeys(STATE) == []


async def test_the_data_of_a_chat_migrates(start: Any, redis: Redis) -> None:
    async def step(update: Update, context: Context) -> None:
        if update.message.migrate_to_chat_id:
            context.application.migrate_chat_data(update.message)
        else:
            context.chat_data["n"] = 1

    one, other = await start(handling(step))
    await one.handle(message("x", chat=-5))
    await other.handle(message("x", chat=-5, migrate_to_chat_id=-1005))
    assert await redis.hkeys(STATE) == ["chat -1005"]


async def test_a_job_has_the_data_of_its_chat_and_user(start: Any) -> None:
    seen = []

    async def keep(update: Update, context: Context) -> None:
        context.user_data["n"], context.chat_data["n"] = 1, 2

    one, other = await start(handling(keep))
    await one.handle(message("x", user=7, chat=-5))

    async def job() -> None:
        context = CallbackContext(other.application, chat_id=-5, user_id=7)
        seen.append((dict(context.user_data), dict(context.chat_data)))

    await other.run(None, job, chat=-5, user=7)
    assert seen == [({"n": 1}, {"n": 2})]


class Color(enum.Enum):
    RED = 1


class UserData:
    def __init__(self) -> None:
        self.clicks = 0


class BotData:
    def __init__(self) -> None:
        self.users: set[int] = set()
        self.colors: dict[Color, int] = {}


class OwnContext(CallbackContext[Any, UserData, dict, BotData]):
    @property
    def clicks(self) -> int:
        return self.user_data.clicks


async def test_classes_of_the_bot_s_own_hold_its_data(start: Any) -> None:
    seen = []

    async def click(update: Update, context: OwnContext) -> None:
        context.user_data.clicks += 1
        context.bot_data.users.add(update.effective_user.id)
        context.bot_data.colors[Color.RED] = context.bot_data.colors.get(Color.RED, 0) + 1
        seen.append((context.clicks, sorted(context.bot_data.users), context.bot_data.colors[Color.RED]))

    one, other = await start(handling(click, context=OwnContext, user_data=UserData, bot_data=BotData))
    for user, at in zip((1, 2, 1), cycle((one, other))):
        await at.handle(message("x", user=user))
    assert seen == [(1, [1], 1), (1, [1, 2], 2), (2, [1, 2], 3)]


async def test_a_message_that_is_kept_can_still_be_answered(start: Any) -> None:
    seen = []

    async def keep(update: Update, context: Context) -> None:
        if "kept" in context.user_data:
            kept = context.user_data["kept"]
            seen.append((kept.text, kept.get_bot() is context.bot, context.user_data["bot"] is context.bot))
        context.user_data["kept"], context.user_data["bot"] = update.message, context.bot

    one, other = await start(handling(keep))
    await one.handle(message("first"))
    await other.handle(message("second"))
    assert seen == [("first", True, True)]


@pytest.mark.parametrize("where", ["user_data", "chat_data", "bot_data"])
async def test_what_does_not_pickle_is_named(start: Any, redis: Redis, where: str) -> None:
    async def keep(update: Update, context: Context) -> None:
        getattr(context, where)["fine"] = 1
        getattr(context, where)["lock"] = asyncio.Lock()

    (only,) = await start(handling(keep), 1)
    with pytest.raises(StateError, match=rf"{where}.*\['lock'\] cannot be stored"):
        await only.handle(message("x"))
    assert await redis.keys() == []


async def test_what_cannot_be_read_is_named(start: Any, redis: Redis) -> None:
    await redis.hset(STATE, "user 1001", "no pickle")

    async def look(update: Update, context: Context) -> None:
        context.user_data.get("x")

    (only,) = await start(handling(look), 1)
    with pytest.raises(StateError, match="user_data of 1001 cannot be read"):
        await only.handle(message("x"))


async def test_a_handler_that_does_not_block_is_awaited_before_its_state_is_stored(start: Any) -> None:
    seen = []

    async def slowly(update: Update, context: Context) -> None:
        await asyncio.sleep(0.01)
        context.user_data["n"] = context.user_data.get("n", 0) + 1
        seen.append(context.user_data["n"])

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = builder.build()
        application.add_handler(TypeHandler(Update, slowly, block=False))
        return application

    one, other = await start(setup)
    await one.handle(message("x"))
    await other.handle(message("x"))
    assert seen == [1, 2]


async def test_a_task_that_outlives_its_update_is_told_so(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    ended, told = asyncio.Event(), []

    async def later(context: Context) -> None:
        await ended.wait()
        with pytest.raises(StateError, match=r"create_task\(…, update=update\)"):
            context.user_data["x"] = 1
        told.append(context.bot_data)

    async def leave(update: Update, context: Context) -> None:
        tasks.append(asyncio.create_task(later(context)))

    tasks: list[asyncio.Task[None]] = []
    (only,) = await start(handling(leave), 1)
    await only.handle(message("x"))
    ended.set()
    await tasks[0]
    assert told == [{}]
    assert "bot_data is used after its update has ended" in caplog.text


async def test_runs_of_one_process_at_the_same_time_see_nothing_of_each_other(start: Any) -> None:
    everybody, seen = asyncio.Barrier(20), []

    async def wait(update: Update, context: Context) -> None:
        context.user_data["name"] = context.bot_data["name"] = update.effective_user.id
        await everybody.wait()
        seen.append(context.user_data["name"] == context.bot_data["name"] == update.effective_user.id)

    (only,) = await start(handling(wait), 1)
    await asyncio.gather(*(only.handle(message("x", user=user)) for user in range(1, 21)))
    assert seen == [True] * 20


async def add_one(update: Update, context: Context) -> None:
    context.bot_data["n"] = context.bot_data.get("n", 0) + 1
    await asyncio.sleep(0)
    context.bot_data.setdefault("users", set()).add(update.effective_user.id)
    context.bot_data.setdefault("log", []).append(update.update_id)
    context.bot_data.setdefault("by user", {}).setdefault(update.effective_user.id, []).append(update.update_id)


async def bot_data_of(at: Process) -> dict[Any, Any]:
    seen: list[dict[Any, Any]] = []

    async def look() -> None:
        seen.append(dict(at.application.bot_data))

    await at.run(None, look)
    return seen[0]


async def test_rule_20_bot_data_is_merged_by_key_under_compare_and_set(start: Any) -> None:
    """A thousand updates, by six processes, forty at a time, change the same four keys."""
    processes = await start(handling(add_one), 6)
    turns, left = cycle(processes), iter(range(1000))

    async def some() -> None:
        for number in left:
            await next(turns).handle({**message("x", user=number % 40 + 1), "update_id": number})

    await asyncio.gather(*(some() for _ in range(40)))
    data = await bot_data_of(processes[0])
    assert sum(at.store.conflicts for at in processes) > 0
    assert data["n"] == 1000
    assert data["users"] == set(range(1, 41))
    assert sorted(data["log"]) == list(range(1000))
    assert sorted(id for ids in data["by user"].values() for id in ids) == list(range(1000))


async def test_keys_that_are_deleted_are_gone_for_all(start: Any, redis: Redis) -> None:
    async def step(update: Update, context: Context) -> None:
        if update.message.text == "set":
            context.bot_data.update({"a": 1, ("b", Color.RED): 2})
        else:
            del context.bot_data["a"]

    one, other = await start(handling(step))
    await one.handle(message("set"))
    await other.handle(message("delete"))
    assert await bot_data_of(one) == {("b", Color.RED): 2}
    assert await redis.hlen(BOT_DATA) == 1


class Database:
    """Something that lives in its process."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()


async def test_what_a_process_puts_into_bot_data_itself_is_there_in_its_runs_and_not_stored(
    start: Any, redis: Redis
) -> None:
    seen = []

    async def step(update: Update, context: Context) -> None:
        seen.append((context.bot_data["db"], context.bot_data["limit"], sorted(context.bot_data["known"])))
        context.bot_data["known"].add(update.update_id)

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = handling(step)(builder)
        application.bot_data.update(db=Database(), limit=5, known=set())
        return application

    one, other = await start(setup)
    for at, number in ((one, 1), (other, 2), (one, 3)):
        await at.handle({**message("x"), "update_id": number})
    databases = [at.application.bot_data["db"] for at in (one, other)]
    assert seen == [(databases[0], 5, []), (databases[1], 5, [1]), (databases[0], 5, [1, 2])]
    assert await redis.hkeys(BOT_DATA) == ["=known"]
    assert one.application.bot_data["known"] == set()


async def test_what_a_process_put_there_itself_can_be_changed_and_deleted_for_all(start: Any) -> None:
    async def step(update: Update, context: Context) -> None:
        if update.message.text == "change":
            context.bot_data["limit"] = 6
        else:
            del context.bot_data["limit"]
            del context.bot_data["db"]

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = handling(step)(builder)
        application.bot_data.update(db=Database(), limit=5)
        return application

    one, other = await start(setup)
    await one.handle(message("change"))
    assert (await bot_data_of(other))["limit"] == 6
    await one.handle(message("delete"))
    assert await bot_data_of(other) == {}


async def test_a_bot_s_own_persistence_is_replaced_and_that_is_said_once(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def begin(update: Update, context: Context) -> int:
        return 0

    async def end(update: Update, context: Context) -> int:
        seen.append(update.message.text)
        return ConversationHandler.END

    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = builder.persistence(DictPersistence(user_data_json='{"1001": {"old": 1}}')).build()
        states = {0: [MessageHandler(filters.TEXT & ~filters.COMMAND, end)]}
        handler = ConversationHandler([CommandHandler("go", begin)], states, [], name="talk", persistent=True)
        application.add_handler(handler)
        return application

    seen: list[str] = []
    with caplog.at_level(logging.WARNING):
        one, other = await start(setup)
    assert caplog.text.count("DictPersistence is not used: all its data is in Redis") == 2
    for at, text in ((one, "/go"), (other, "first"), (one, "second")):
        await at.handle(message(text))
    assert seen == ["first"]


async def test_without_a_keeper_all_is_as_in_ptb() -> None:
    application = ApplicationBuilder().application_class(StatefulApplication).token("1:a").job_queue(None).build()
    application._user_data[7]["n"] = 1
    assert application.user_data[7] == {"n": 1}
    application.drop_user_data(7)
    assert application.user_data[7] == {}
    application._chat_data[-5]["n"] = 1
    application.migrate_chat_data(old_chat_id=-5, new_chat_id=-6)
    assert dict(application.chat_data) == {-6: {"n": 1}}
    application.bot_data["n"] = 1
    assert CallbackContext(application).bot_data == {"n": 1}


async def test_an_update_costs_one_round_trip_to_read(start: Any) -> None:
    (only,) = await start(handling(add_one), 1)
    before = only.store.reads
    await only.handle(message("x"))
    assert only.store.reads - before == 1


async def test_two_who_hold_the_same_user_at_once_lose_nothing(start: Any) -> None:
    """Lanes keep them apart, but for updates that do not tell their user."""
    both = asyncio.Barrier(2)

    async def keep(update: Update, context: Context) -> None:
        context.user_data[update.message.text] = context.user_data["n"] = 1
        await both.wait()

    one, other = await start(handling(keep))
    await asyncio.gather(one.handle(message("a", chat=-5)), other.handle(message("b", chat=-6)))
    seen = []

    async def look() -> None:
        seen.append(dict(other.application.user_data[1001]))

    await other.run(None, look, user=1001)
    assert seen == [{"a": 1, "b": 1, "n": 2}]


async def test_an_application_of_another_class_cannot_share_its_state() -> None:
    application = ApplicationBuilder().token("1:a").job_queue(None).updater(None).build()
    with pytest.raises(TypeError, match="Application cannot share its state"):
        Keeper(application, RedisStore("redis://127.0.0.1:9"), BOT)
