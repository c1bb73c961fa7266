"""A bot with jobs, and processes of it, for tests: its callbacks are at the top level, so that each finds them."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

from telegram import Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    ExtBot,
    MessageHandler,
    filters,
)

from bot.intake import IntakeApplication, QueuedIntake
from bot.jobs import SharedJobQueue
from bot.outbox import Outbox
from bot.runner import POLICY, Runner, updates_for
from bot.state import Keeper
from bot.store import connect
from queueing.redis_inbox import RedisInbox
from queueing.redis_queue import RedisQueue
from queueing.worker import Worker

BOT = "123456"
TOKEN = "123456:a-token-of-tests"

Context = ContextTypes.DEFAULT_TYPE
AnyApplication = Application[Any, Any, Any, Any, Any, Any]

HEARD: list[Any] = []
"""What callbacks were told, in all processes of a test that are within this one."""

FAILS: list[bool] = []
"""Whether `fail` does."""


async def note(context: Context) -> None:
    """A job that leaves a trace."""
    assert context.job is not None
    HEARD.append(context.job.data)


async def count_up(context: Context) -> None:
    """A job whose data is its memory."""
    assert context.job is not None
    context.job.data["times"] += 1
    HEARD.append(context.job.data["times"])


async def fail(context: Context) -> None:
    assert context.job is not None
    HEARD.append(context.job.data)
    if FAILS:
        raise RuntimeError("a mistake in a job")


async def stop_itself(context: Context) -> None:
    assert context.job is not None
    HEARD.append(context.job.data)
    context.job.schedule_removal()


async def take_long(context: Context) -> None:
    assert context.job is not None
    HEARD.append("begun")
    context.job.data["times"] += 1
    await asyncio.sleep(0.5)
    HEARD.append("ended")


async def hang(context: Context) -> None:
    """Until it is told to go on."""
    HEARD.append("hung")
    while "go on" not in HEARD:  # noqa: ASYNC110  # it is told by a list
        await asyncio.sleep(0.01)


async def note_error(_: object, context: Context) -> None:
    HEARD.append((type(context.error).__name__, context.job.data if context.job else None))


async def set_timer(update: Update, context: Context) -> None:
    """/set SECONDS: as bots with timers do it, one a chat, named after it."""
    assert update.effective_message
    assert context.args
    assert context.job_queue
    chat = update.effective_message.chat_id
    replaced = remove_by_name(str(chat), context)
    context.job_queue.run_once(note, float(context.args[0]), chat_id=chat, name=str(chat), data=f"timer of {chat}")
    HEARD.append("replaced" if replaced else "set")


async def unset_timer(update: Update, context: Context) -> None:
    assert update.effective_message
    HEARD.append("unset" if remove_by_name(str(update.effective_message.chat_id), context) else "none")


def remove_by_name(name: str, context: Context) -> bool:
    assert context.job_queue
    jobs = context.job_queue.get_jobs_by_name(name)
    for job in jobs:
        job.schedule_removal()
    return bool(jobs)


async def set_and_fail(update: Update, context: Context) -> None:
    assert context.job_queue
    HEARD.append("tried")
    context.job_queue.run_once(note, 0, data="of a run that failed")
    raise RuntimeError("after the job")


async def be_busy(update: Update, context: Context) -> None:
    HEARD.append("busy")
    await asyncio.sleep(0.5)
    HEARD.append("done")


def add_handlers(application: AnyApplication) -> None:
    for name, handler in (("set", set_timer), ("unset", unset_timer), ("fail", set_and_fail), ("busy", be_busy)):
        application.add_handler(CommandHandler(name, handler))


def make_jobs(job_queue: Any) -> None:
    """What a bot does in its main function."""
    job_queue.run_once(note, 0.3, data="at start, once")
    job_queue.run_repeating(note, interval=timedelta(hours=1), first=0.3, data="at start, hourly", name="hourly")


async def begin(update: Update, context: Context) -> int:
    assert context.chat_data is not None
    context.chat_data["begun"] = context.chat_data.get("begun", 0) + 1
    HEARD.append("begun")
    return 1


async def go_on(update: Update, context: Context) -> int:
    HEARD.append("on")
    return 1


async def timed_out(update: Update, context: Context) -> None:
    assert update.effective_message
    assert context.chat_data is not None
    HEARD.append(("timed out", update.effective_message.text, context.chat_data["begun"]))


async def outside(update: Update, context: Context) -> None:
    HEARD.append("outside")


def add_conversation(application: AnyApplication) -> None:
    """/begin starts a conversation, which any text keeps alive; half a second of silence ends it."""
    conversation: ConversationHandler[Context] = ConversationHandler(
        entry_points=[CommandHandler("begin", begin)],
        states={
            1: [MessageHandler(filters.TEXT & ~filters.COMMAND, go_on)],
            ConversationHandler.TIMEOUT: [MessageHandler(filters.ALL, timed_out)],
        },
        fallbacks=[],
        conversation_timeout=0.5,
    )
    application.add_handler(conversation)
    application.add_handler(MessageHandler(filters.ALL, outside))


class _Told(list[Any]):
    """Tells what it hears to whoever reads the process's output."""

    def append(self, heard: Any) -> None:
        sys.stdout.write(f"{heard}\n")
        sys.stdout.flush()


def main() -> None:
    """A process of its own: python -c … REDIS_URL TELEGRAM_URL. It ends when its input does."""
    global HEARD
    HEARD = _Told()
    asyncio.run(_serve(*sys.argv[1:3]))


async def _serve(redis_url: str, telegram_url: str) -> None:
    process = Process(redis_url, telegram_url)
    make_jobs(process.jobs)
    await process.start()
    await asyncio.to_thread(sys.stdin.read)
    await process.stop()


class Process:
    """What a process has of the bot."""

    def __init__(
        self,
        redis_url: str,
        telegram_url: str,
        *,
        updates_max: int = 1000,
        add: Callable[[AnyApplication], None] = add_handlers,
    ) -> None:
        self.inbox: Any = RedisInbox(redis_url, BOT, lease_seconds=2, updates_max=updates_max)
        self.queue = RedisQueue(redis_url)
        self.jobs = SharedJobQueue(BOT, self.inbox, partial(connect, redis_url, 2.0), 2.0)
        bot: Any = ExtBot(TOKEN, base_url=f"{telegram_url}/bot")
        builder: Any = ApplicationBuilder().application_class(IntakeApplication).bot(bot).updater(None)
        self.application = builder.job_queue(self.jobs).build()
        add(self.application)
        self.outbox = Outbox(self.queue, lambda _: None, BOT)
        kinds = {"update": updates_for(self.application), "job": self.jobs.work}
        keeper: Any = Keeper(self.application, self.inbox, BOT)
        self.runner = Runner(self.inbox, self.outbox, keeper, kinds)
        self.worker = Worker(self.inbox, self.runner.deliver, workers=8, policy=POLICY, observe=lambda _: None)
        self._intake = QueuedIntake(self.inbox, BOT)
        self._stack = AsyncExitStack()

    async def start(self, *, works: bool = True) -> None:
        """works: takes what is due; otherwise it only schedules."""
        for part in (self.inbox, self.queue):
            await part.start()
            self._stack.push_async_callback(part.close)
        await self.application.initialize()
        self._stack.push_async_callback(self.application.shutdown)
        await self.application.start()
        self._stack.push_async_callback(self.application.stop)
        if works:
            await self.worker.start()
            self._stack.push_async_callback(self.worker.stop)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def hear(self, update_id: int, text: str, chat: int = 42) -> None:
        """A person writes to the bot, and this process takes it in."""
        person = {"id": chat, "is_bot": False, "first_name": "Ada"}
        message: dict[str, Any] = {"message_id": update_id, "date": 1, "text": text, "from": person}
        message["chat"] = {"id": chat, "type": "private", "first_name": "Ada"}
        if text.startswith("/"):
            length = len(text.split()[0])
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
        taken = await self._intake.take(update_id, {"update_id": update_id, "message": message})
        assert taken.settled
