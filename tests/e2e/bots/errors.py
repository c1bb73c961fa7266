"""A handler with a mistake, and the error handler that tells the developer of it."""

import html
import traceback

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes

Context = ContextTypes.DEFAULT_TYPE

DEVELOPER = 999


async def tell_developer(update: object, context: Context) -> None:
    error = "".join(traceback.format_exception_only(context.error))
    chat = update.effective_chat.id if isinstance(update, Update) else None
    await context.bot.send_message(DEVELOPER, f"In chat {chat}: <pre>{html.escape(error)}</pre>", parse_mode="HTML")


async def start(update: Update, context: Context) -> None:
    await update.effective_message.reply_html("Send <code>/bad</code> to have me fail.")


async def bad(update: Update, context: Context) -> None:
    await context.bot.wrong_method_name()


async def nobody(update: Update, context: Context) -> None:
    """The send is queued, and fails later: Telegram knows no such chat."""
    await context.bot.send_message(chat_id=404, text="Is anybody there?")
    await update.effective_message.reply_text("I asked.")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("start", start))
    application.add_handler(CommandHandler("bad", bad))
    application.add_handler(CommandHandler("nobody", nobody))
    application.add_error_handler(tell_developer)
