"""Sends a photo, and says whether Telegram took it."""

from telegram import Update
from telegram.error import TelegramError
from telegram.ext import Application, CommandHandler, ContextTypes


async def photo(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    try:
        await update.message.reply_photo(b"a photo", caption="A photo.")
    except TelegramError:
        await update.message.reply_text("You blocked me.")
    else:
        await update.message.reply_text("There it is.")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("photo", photo))
