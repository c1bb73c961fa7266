"""Buttons whose message is edited to say which was pressed."""

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import Application, CallbackQueryHandler, CommandHandler, ContextTypes

Context = ContextTypes.DEFAULT_TYPE


async def start(update: Update, context: Context) -> None:
    rows = [[InlineKeyboardButton("Red", callback_data="red"), InlineKeyboardButton("Blue", callback_data="blue")]]
    await update.message.reply_text("Which?", reply_markup=InlineKeyboardMarkup(rows))


async def pressed(update: Update, context: Context) -> None:
    query = update.callback_query
    await query.answer()
    await query.edit_message_text(text=f"It is {query.data}.")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("start", start))
    application.add_handler(CallbackQueryHandler(pressed))
