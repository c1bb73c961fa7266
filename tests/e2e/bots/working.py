"""Says that it works on something and then, in the same message, that it is done; notes how long it waited for that."""

import time

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters


async def work(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    word, started = update.message.text, time.monotonic()
    message = await update.message.reply_text(f"Working on {word} …")
    await message.edit_text(f"Done: {word}")
    waited = time.monotonic() - started
    context.bot_data["longest"] = max(context.bot_data.get("longest", 0.0), waited)


async def longest(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await update.message.reply_text(f"{context.bot_data['longest']:.3f}")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("longest", longest))
    application.add_handler(MessageHandler(filters.TEXT, work))
