"""The smallest bot: commands, and every text comes back."""

from telegram import ForceReply, Update
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

Context = ContextTypes.DEFAULT_TYPE


async def start(update: Update, context: Context) -> None:
    await update.message.reply_html(
        f"Welcome, {update.effective_user.mention_html()}!", reply_markup=ForceReply(selective=True)
    )


async def help_(update: Update, context: Context) -> None:
    await update.message.reply_text("I repeat what you write.")


async def echo(update: Update, context: Context) -> None:
    await update.message.reply_text(update.message.text)


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("start", start))
    application.add_handler(CommandHandler("help", help_))
    application.add_handler(MessageHandler(filters.TEXT & ~filters.COMMAND, echo))
