"""A conversation of buttons within one message, state by state (`per_message`), and one by the chat's messages."""

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import Application, CallbackQueryHandler, CommandHandler, ContextTypes, ConversationHandler

Context = ContextTypes.DEFAULT_TYPE

FIRST, SECOND = range(2)


def keyboard(*words: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[InlineKeyboardButton(word, callback_data=word) for word in words]])


async def start(update: Update, context: Context) -> int:
    await update.message.reply_text("Round one: choose.", reply_markup=keyboard("1", "2"))
    return FIRST


async def one(update: Update, context: Context) -> int:
    query = update.callback_query
    await query.answer()
    await query.edit_message_text(f"You took {query.data}. Another round?", reply_markup=keyboard("Again", "Enough"))
    return SECOND


async def again(update: Update, context: Context) -> int:
    query = update.callback_query
    await query.answer()
    await query.edit_message_text("Round one again: choose.", reply_markup=keyboard("1", "2"))
    return FIRST


async def end(update: Update, context: Context) -> int:
    query = update.callback_query
    await query.answer()
    await query.edit_message_text("See you next time.")
    return ConversationHandler.END


async def dice(update: Update, context: Context) -> None:
    await update.message.reply_text("Up or down?", reply_markup=keyboard("up"))


async def up(update: Update, context: Context) -> int:
    await update.callback_query.answer()
    await update.callback_query.edit_message_text("One up.", reply_markup=keyboard("up", "down"))
    return FIRST


async def up_again(update: Update, context: Context) -> int:
    await update.callback_query.answer()
    await update.callback_query.edit_message_text("Two up.", reply_markup=keyboard("down"))
    return SECOND


async def down(update: Update, context: Context) -> int:
    await update.callback_query.answer()
    await update.callback_query.edit_message_text("All the way down.")
    return ConversationHandler.END


def setup(application: Application) -> None:
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={
                FIRST: [CallbackQueryHandler(one, pattern="^[12]$")],
                SECOND: [
                    CallbackQueryHandler(again, pattern="^Again$"),
                    CallbackQueryHandler(end, pattern="^Enough$"),
                ],
            },
            fallbacks=[CommandHandler("start", start)],
        )
    )
    application.add_handler(CommandHandler("dice", dice))
    application.add_handler(
        ConversationHandler(
            entry_points=[CallbackQueryHandler(up, pattern="^up$")],
            states={
                FIRST: [CallbackQueryHandler(up_again, pattern="^up$"), CallbackQueryHandler(down, pattern="^down$")],
                SECOND: [CallbackQueryHandler(down, pattern="^down$")],
            },
            fallbacks=[],
            per_message=True,
        )
    )
