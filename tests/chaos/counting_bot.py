"""Answers every text, and writes down by itself, past all that is measured, each time that its handler runs."""

import os

from telegram import Update
from telegram.ext import Application, ContextTypes, MessageHandler, filters

FILE = "RUNS_OF_HANDLERS"
"""The environment variable that names the file: a line for each run, the update's text."""


def setup(application: Application) -> None:
    file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def answer(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        os.write(file, f"{update.message.text}\n".encode())
        await update.message.reply_text(update.message.text)

    application.add_handler(MessageHandler(filters.TEXT, answer))
