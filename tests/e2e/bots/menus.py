"""Knows its menus by the ids of their messages, and catches what Telegram says of a text: for WAIT_FOR_SENDS."""

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.error import BadRequest
from telegram.ext import Application, CallbackQueryHandler, CommandHandler, ContextTypes

Context = ContextTypes.DEFAULT_TYPE


async def start(update: Update, context: Context) -> None:
    word = context.args[0]
    keyboard = InlineKeyboardMarkup([[InlineKeyboardButton(word, callback_data="x")]])
    menu = await update.message.reply_text(f"The menu {word}.", reply_markup=keyboard)
    context.bot_data[menu.message_id] = word


async def pressed(update: Update, context: Context) -> None:
    query = update.callback_query
    await query.answer()
    word = context.bot_data[query.message.message_id]
    await query.edit_message_text(f"It was {word}.")
    try:
        await query.edit_message_text(f"It was {word}.")
    except BadRequest as error:
        await context.bot.send_message(update.effective_chat.id, error.message)


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("start", start))
    application.add_handler(CallbackQueryHandler(pressed))
