"""A conversation of six steps, each of which says what it got and how far it is."""

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, ConversationHandler, MessageHandler, filters

Context = ContextTypes.DEFAULT_TYPE

STEPS = 6


async def start(update: Update, context: Context) -> int:
    context.user_data["said"] = []
    await update.message.reply_text("step 0")
    return 0


async def step(update: Update, context: Context) -> int:
    said = context.user_data["said"]
    said.append(update.message.text)
    context.bot_data["steps"] = context.bot_data.get("steps", 0) + 1
    await update.message.reply_text(f"step {len(said)}: {' '.join(said)}")
    return ConversationHandler.END if len(said) == STEPS else len(said)


async def lost(update: Update, context: Context) -> None:
    await update.message.reply_text(f"lost: {update.message.text}")


def setup(application: Application) -> None:
    text = filters.TEXT & ~filters.COMMAND
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={number: [MessageHandler(text, step)] for number in range(STEPS)},
            fallbacks=[],
        )
    )
    application.add_handler(MessageHandler(text, lost))
