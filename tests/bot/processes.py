"""Processes of a bot for tests of its state: applications that share a real Redis and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from redis.asyncio import Redis
from telegram import Update, User
from telegram.ext import ApplicationBuilder, ExtBot

from bot.run import CURRENT, Run
from bot.state import Keeper, Loaded
from bot.stateful import StatefulApplication
from bot.transport import AiohttpRequest
from queueing.inbox import ANYTHING, Conflict, Write

TOKEN = "123456:a-token-of-tests"
BOT = "123456"
NOWHERE = "http://127.0.0.1:9"

_numbers = count(1)

# The fields of each write: key, field, "=value" or "", "*" or "-" or "=seen", ttl.
_WRITE = """
local found = {}
for i = 1, #ARGV, 5 do
  local key, field, was = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local is = redis.call('HGET', key, field)
  if was ~= '*' and (is and '=' .. is or '-') ~= was then
    found[#found + 1] = (i - 1) / 5
    found[#found + 1] = is
  end
end
if #found > 0 then return found end
for i = 1, #ARGV, 5 do
  local key, field, value, ttl = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  if value == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, string.sub(value, 2)) end
  if ttl ~= '' then redis.call('EXPIRE', key, ttl) end
end
return {}
"""


class RedisStore:
    """What an inbox does with state."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url)
        self.reads = 0
        self.conflicts = 0

    async def close(self) -> None:
        await self._redis.aclose()

    async def read(self, fields: Sequence[tuple[str, str]]) -> Sequence[bytes | None]:
        self.reads += 1
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, field in fields:
                pipeline.hget(_key(key), field)
            return await pipeline.execute()

    async def read_all(self, key: str) -> dict[str, bytes]:
        return {field.decode(): value for field, value in (await self._redis.hgetall(_key(key))).items()}

    async def write(self, writes: Sequence[Write]) -> Sequence[Conflict]:
        arguments: list[Any] = []
        for write in writes:
            arguments += [_key(write.key), write.field, b"" if write.value is None else b"=" + write.value]
            seen = write.seen
            arguments.append("*" if seen is ANYTHING else "-" if seen is None else b"=" + seen)
            arguments.append("" if write.ttl is None else write.ttl)
        found = await self._redis.eval(_WRITE, 0, *arguments)
        self.conflicts += len(found) // 2
        return [Conflict(writes[at], holds) for at, holds in zip(found[::2], found[1::2], strict=True)]


def _key(name: str) -> str:
    return f"{{telegram_messages}}:{name}"


class Running(StatefulApplication):
    """It knows the tasks of a run, and what its handlers raised."""

    def create_task(self, coroutine: Any, update: object | None = None, *, name: str | None = None) -> Any:
        task = super().create_task(coroutine, update, name=name)
        run = CURRENT.get()
        if run is not None and update is not None:
            run.tasks.append(task)
        return task

    async def process_error(self, update: object, error: Exception, job: Any = None, coroutine: Any = None) -> bool:
        run = CURRENT.get()
        if run is not None:
            run.errors.append(error)
        return await super().process_error(update, error, job, coroutine)


class Process:
    """One of them."""

    def __init__(self, application: Running, store: RedisStore) -> None:
        self.application = application
        self.store = store
        self.keeper = Keeper(application, store, BOT)
        self._merging = asyncio.Lock()

    async def handle(self, fields: dict[str, Any], origin: str | None = None) -> None:
        """An update. Raises what a handler raised; then nothing is stored."""
        await self.run(Update.de_json(fields, self.application.bot), origin=origin)

    async def run(
        self,
        update: Update | None,
        work: Callable[[], Any] | None = None,
        *,
        chat: int | None = None,
        user: int | None = None,
        origin: str | None = None,
    ) -> None:
        """An update, or `work` for a chat and user, in a task of its own."""

        async def handlers() -> None:
            if work is not None:
                await work()
            else:
                self.application.bot.insert_callback_data(update)
                await self.application.process_update(update)

        await asyncio.create_task(self._run(update, handlers, chat, user, origin or f"test:{next(_numbers)}"))

    async def _run(self, update: Update | None, work: Any, chat: int | None, user: int | None, origin: str) -> None:
        run = Run(origin)
        CURRENT.set(run)
        loaded = await self.keeper.load(update, chat, user)
        try:
            await asyncio.create_task(work())
            for task in run.tasks:
                await asyncio.wait({task})
            for error in run.errors:
                raise error
            await self._commit(loaded)
        finally:
            loaded.discard()

    async def _commit(self, loaded: Loaded) -> None:
        """Those that have conflicts go one after the other, or each would spoil it for the rest."""
        if conflicts := await self.store.write(loaded.writes()):
            async with self._merging:
                while conflicts:
                    conflicts = await self.store.write(loaded.merge(conflicts))


class KnownBot(ExtBot[None]):
    """It knows its name without asking."""

    async def get_me(self, **_: Any) -> User:
        self._bot_user = User(int(BOT), "Bot", is_bot=True, username="test_bot")
        return self._bot_user


Setup = Callable[[ApplicationBuilder], StatefulApplication]


@asynccontextmanager
async def process(
    redis_url: str, setup: Setup, *, url: str = NOWHERE, arbitrary_callback_data: bool = False
) -> AsyncIterator[Process]:
    """A process of the bot that `setup` makes. url: of the Telegram that it speaks to."""
    request = AiohttpRequest(5.0)
    bot = KnownBot(
        TOKEN,
        base_url=f"{url}/bot",
        request=request,
        get_updates_request=request,
        arbitrary_callback_data=arbitrary_callback_data,
    )
    builder = ApplicationBuilder().application_class(Running).bot(bot).updater(None).job_queue(None)
    application = setup(builder)
    store = RedisStore(redis_url)
    running = Process(application, store)
    async with application:
        await application.start()
        try:
            yield running
        finally:
            await running.keeper.close()
            await application.stop()
            await store.close()


def message(text: str, *, user: int = 1001, chat: int | None = None, **more: Any) -> dict[str, Any]:
    """An update: somebody writes to the bot; in private, if no chat is given."""
    entities = [{"type": "bot_command", "offset": 0, "length": len(text.split()[0])}] if text.startswith("/") else []
    fields = {
        "message_id": next(_numbers),
        "date": 1,
        "chat": _chat(user if chat is None else chat),
        "from": _person(user),
        "text": text,
        "entities": entities,
    }
    return {"update_id": next(_numbers), "message": {**fields, **more}}


def press(data: str, *, user: int = 1001, chat: int | None = None, message_id: int = 7, **more: Any) -> dict[str, Any]:
    """An update: somebody presses a button of a message of the bot's."""
    of_bot = {
        "message_id": message_id,
        "date": 1,
        "chat": _chat(user if chat is None else chat),
        "from": {"id": int(BOT), "is_bot": True, "first_name": "Bot"},
        "text": "Press!",
        "reply_markup": {"inline_keyboard": [[{"text": "Button", "callback_data": data}]]},
    }
    query = {
        "id": str(next(_numbers)),
        "from": _person(user),
        "chat_instance": "1",
        "data": data,
        "message": {**of_bot, **more},
    }
    return {"update_id": next(_numbers), "callback_query": query}


def _person(user: int) -> dict[str, Any]:
    return {"id": user, "is_bot": False, "first_name": f"Person {user}"}


def _chat(chat: int) -> dict[str, Any]:
    return {"id": chat, "type": "private"} if chat > 0 else {"id": chat, "type": "group", "title": "Group"}
