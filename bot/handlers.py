"""What the bot says: plain python-telegram-bot handlers, as any bot has them. A demonstration, to be replaced.

Edited messages are not answered: the first version was.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from queueing.contract import QueueStats

Stats = Callable[[], Awaitable[QueueStats]]

HELP = """/ping: am I there?
/queue: how long is the queue, and how long do messages wait in it?
/help: this list

I answer any other text, too."""

_ECHO_LENGTH = 1_000


def add_handlers(application: Application[Any, Any, Any, Any, Any, Any], stats: Stats) -> None:
    """Adds the handlers. `stats` is asked for /queue."""

    async def queue(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        await _answer(update, describe(await stats()))

    new = filters.UpdateType.MESSAGE
    for name, handler in (("start", start), ("help", help_), ("ping", ping), ("queue", queue)):
        application.add_handler(CommandHandler(name, handler, filters=new))
    application.add_handler(MessageHandler(new & filters.COMMAND & filters.ChatType.PRIVATE, unknown))
    application.add_handler(MessageHandler(new & filters.TEXT & ~filters.COMMAND, echo))


async def start(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    name = update.effective_user.first_name if update.effective_user else "there"
    await _answer(update, f"Hello, {name}! I am a demonstration: all I say goes through one shared queue.\n\n{HELP}")


async def help_(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await _answer(update, HELP)


async def ping(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await _answer(update, "pong")


async def unknown(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await _answer(update, "I don't know that command. /help lists those I do.")


async def echo(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    text = (update.effective_message and update.effective_message.text) or ""
    await _answer(update, f"You said: {text[:_ECHO_LENGTH]}\n\n(I am a demonstration. /help shows what I can do.)")


def describe(stats: QueueStats) -> str:
    """The queue in plain words."""
    depth, age = stats.depth, stats.oldest_age
    if not depth:
        return "The queue is empty: a message leaves at once."
    count = "1 message is" if depth == 1 else f"{depth:,} messages are"
    if age is None or age < 1:
        return f"{count} in the queue, and none has waited for as long as a second."
    return f"{count} in the queue. The one that has waited longest has waited for {_duration(age)}."


def _duration(seconds: float) -> str:
    whole = round(seconds)
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if whole >= 2 * size:
            return f"{whole // size} {name}s"
    return "1 second" if whole == 1 else f"{whole} seconds"


async def _answer(update: Update, text: str) -> None:
    if update.effective_message:
        await update.effective_message.reply_text(text)
