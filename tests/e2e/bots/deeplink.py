"""Links that start the bot with a word: one after the other, each leads to the next."""

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update, helpers
from telegram.ext import Application, CallbackQueryHandler, CommandHandler, ContextTypes, filters

Context = ContextTypes.DEFAULT_TYPE

ONE, TWO, THREE = "one", "two-of-three", "three"


async def start(update: Update, context: Context) -> None:
    await update.message.reply_text(f"Go on at {helpers.create_deep_linked_url(context.bot.username, ONE)}")


async def one(update: Update, context: Context) -> None:
    url = helpers.create_deep_linked_url(context.bot.username, TWO)
    button = InlineKeyboardButton("Further", url=url)
    await update.message.reply_text("The first door.", reply_markup=InlineKeyboardMarkup([[button]]))


async def two(update: Update, context: Context) -> None:
    button = InlineKeyboardButton("Last", callback_data=THREE)
    await update.message.reply_text("The second door.", reply_markup=InlineKeyboardMarkup([[button]]))


async def three(update: Update, context: Context) -> None:
    await update.callback_query.answer(url=helpers.create_deep_linked_url(context.bot.username, THREE))


async def end(update: Update, context: Context) -> None:
    await update.message.reply_text(f"You are there. Your word was {context.args[0]}.")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("start", one, filters.Regex(ONE)))
    application.add_handler(CommandHandler("start", two, filters.Regex(TWO)))
    application.add_handler(CommandHandler("start", end, filters.Regex(THREE)))
    application.add_handler(CallbackQueryHandler(three, pattern=THREE))
    application.add_handler(CommandHandler("start", start))
