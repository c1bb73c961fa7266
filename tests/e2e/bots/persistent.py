"""The bot of facts as one writes it to survive a restart: a persistence of its own, and a persistent conversation."""

import tempfile
from pathlib import Path

from telegram import Update
from telegram.ext import Application, ApplicationBuilder, CommandHandler, ContextTypes, PicklePersistence

from tests.e2e.bots.facts import conversation, told


async def show(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await update.message.reply_text(f"You told me {told(context.user_data)}.")


def setup(builder: ApplicationBuilder) -> Application:
    file = Path(tempfile.gettempdir()) / "facts-of-the-tests"
    application = builder.persistence(PicklePersistence(filepath=file)).build()
    application.add_handler(conversation(name="facts", persistent=True))
    application.add_handler(CommandHandler("show", show))
    return application
