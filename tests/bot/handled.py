"""An application whose updates go through a real inbox, by as many processes as a test wants, for tests."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from telegram import Update
from telegram.ext import ApplicationBuilder

from bot.handling import Handling
from bot.identity import own_get_me
from bot.intake import IntakeApplication, QueuedIntake, Taken
from bot.outbox import Outbox
from bot.provisional import queue_id
from bot.queued_bot import QueuedBot
from bot.run import current_run
from bot.runner import Keeper, Kind, Loaded, Runner, updates_for
from bot.stateful import AnyApplication
from bot.transport import AiohttpRequest
from queueing.events import Event
from queueing.inbox import Conflict, Write
from queueing.message import Message
from queueing.redis_inbox import RedisInbox
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from tests.bot.served import BOT, TOKEN
from tests.conftest import wait_until


class Stateless:
    """A Keeper, and what it loads: there is none."""

    async def load(self, _update: Update | None, _chat_id: int | None, _user_id: int | None) -> Loaded:
        return self

    def writes(self) -> Sequence[Write]:
        return ()

    def merge(self, _conflicts: Sequence[Conflict]) -> Sequence[Write]:
        return ()

    def discard(self) -> None:
        """There is nothing."""


class Process:
    """What handles updates in one process. events: what its worker tells."""

    def __init__(
        self, redis_url: str, application: AnyApplication, outbox: Outbox, keeper: Keeper, **kinds: Kind
    ) -> None:
        self.events: list[Event] = []
        self.inbox = RedisInbox(redis_url, BOT)
        runner = Runner(self.inbox, outbox, keeper, {"update": updates_for(application), **kinds})
        self.handling = Handling(self.inbox, runner, self.events.append)
        self.intake = QueuedIntake(self.inbox, BOT)

    async def take(self, *updates: dict[str, Any]) -> None:
        for update in updates:
            assert await self.intake.take(update["update_id"], update) is Taken.ACCEPTED

    async def idle(self) -> None:
        """Until everything that was taken has ended."""

        async def empty() -> bool:
            return (await self.inbox.stats()).depth == 0

        await wait_until(empty, "all updates to be handled")


class Bot:
    """The application, the queue that takes what it sends, and its processes."""

    def __init__(self, redis_url: str, application: AnyApplication, messages: RedisQueue) -> None:
        self.application = application
        self.messages = messages
        self._redis_url = redis_url
        self._outbox = Outbox(messages, lambda event: None, BOT)
        self._processes: list[Process] = []

    async def process(self, keeper: Keeper | None = None, *, begin: bool = True, **kinds: Kind) -> Process:
        process = Process(self._redis_url, self.application, self._outbox, keeper or Stateless(), **kinds)
        self._processes.append(process)
        await process.handling.start()
        if begin:
            await process.handling.begin()
        return process

    async def sent(self) -> Sequence[str]:
        """The texts that were queued since this was asked last, in order."""
        claim, found = await self.messages.claim(10), []
        while claim.leases:
            found += [lease.message.body["text"] for lease in claim.leases]
            settled = [settlement(lease) for lease in claim.leases]
            claim = await self.messages.claim(10, settled)
        return found

    async def close(self) -> None:
        for process in self._processes:
            await process.handling.stop()
            await process.handling.close()


def settlement(lease: Any) -> Any:
    from queueing.contract import Settlement

    return Settlement(lease, Ack("1"))


@asynccontextmanager
async def running_bot(redis_url: str, telegram_url: str) -> AsyncIterator[Bot]:
    """A bot without handlers and without processes."""
    messages = RedisQueue(redis_url)
    await messages.start()
    made = QueuedBot(
        TOKEN,
        api_url=telegram_url,
        outbox=Outbox(messages, lambda event: None, BOT),
        request=AiohttpRequest(5.0),
        get_me_cache=own_get_me(),
    )
    application = ApplicationBuilder().application_class(IntakeApplication).bot(made).updater(None).build()
    await application.initialize()
    await application.start()
    bot = Bot(redis_url, application, messages)
    try:
        yield bot
    finally:
        await bot.close()
        await application.stop()
        await application.shutdown()
        await messages.close()


def say(text: str, chat: int = 42) -> None:
    """A send of a handler, held back until the commit."""
    run = current_run()
    assert run is not None
    assert run.sends is not None
    id = queue_id(run.next_number())
    run.sends.append(Message(bot=BOT, chat=str(chat), id=id, body={"text": text}, provisional=True))


def text_update(update_id: int = 1, text: str = "hello", chat: int = 42, user: int | None = None) -> dict[str, Any]:
    user = chat if user is None else user
    person = {"id": user, "first_name": "Ada", "is_bot": False}
    kind = "private" if chat > 0 else "supergroup"
    content = {"message_id": update_id, "date": 1, "chat": {"id": chat, "type": kind}, "from": person, "text": text}
    return {"update_id": update_id, "message": content}


@asynccontextmanager
async def started_inbox(redis_url: str) -> AsyncIterator[RedisInbox]:
    inbox = RedisInbox(redis_url, BOT)
    await inbox.start()
    yield inbox
    await inbox.close()
