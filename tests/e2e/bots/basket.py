"""Buttons that carry objects (arbitrary callback data), and what becomes of those that are too old."""

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    InvalidCallbackData,
)

Context = ContextTypes.DEFAULT_TYPE


def keyboard(chosen: list[str]) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup.from_column(
        [InlineKeyboardButton(fruit, callback_data=(fruit, chosen)) for fruit in ("Apple", "Pear", "Plum")]
    )


async def start(update: Update, context: Context) -> None:
    await update.message.reply_text("Your basket is empty.", reply_markup=keyboard([]))


async def chosen(update: Update, context: Context) -> None:
    query = update.callback_query
    await query.answer()
    fruit, before = query.data
    basket = [*before, fruit]
    await query.edit_message_text(f"In your basket: {', '.join(basket)}.", reply_markup=keyboard(basket))
    context.drop_callback_data(query)


async def too_old(update: Update, context: Context) -> None:
    await update.callback_query.answer()
    await update.effective_message.edit_text("That button is too old.")


async def clear(update: Update, context: Context) -> None:
    context.bot.callback_data_cache.clear_callback_data()
    context.bot.callback_data_cache.clear_callback_queries()
    await update.effective_message.reply_text("All cleared.")


def setup(builder: ApplicationBuilder) -> Application:
    application = builder.arbitrary_callback_data(True).build()
    application.add_handler(CommandHandler("start", start))
    application.add_handler(CommandHandler("clear", clear))
    application.add_handler(CallbackQueryHandler(too_old, pattern=InvalidCallbackData))
    application.add_handler(CallbackQueryHandler(chosen))
    return application
