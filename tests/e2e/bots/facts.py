"""Facts about a person, kept in user_data: a conversation that goes in circles until it is done."""

from telegram import ReplyKeyboardMarkup, ReplyKeyboardRemove, Update
from telegram.ext import Application, CommandHandler, ContextTypes, ConversationHandler, MessageHandler, filters

Context = ContextTypes.DEFAULT_TYPE

CHOOSING, ANSWERING = range(2)
KEYBOARD = ReplyKeyboardMarkup([["Age", "Colour"], ["Done"]], one_time_keyboard=True)


def told(facts: dict[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in sorted(facts.items())) or "nothing"


async def start(update: Update, context: Context) -> int:
    known = told(context.user_data)
    await update.message.reply_text(f"I know {known}. What will you tell me?", reply_markup=KEYBOARD)
    return CHOOSING


async def chosen(update: Update, context: Context) -> int:
    context.user_data["asked"] = update.message.text.lower()
    await update.message.reply_text(f"Your {context.user_data['asked']}?")
    return ANSWERING


async def answered(update: Update, context: Context) -> int:
    context.user_data[context.user_data.pop("asked")] = update.message.text
    await update.message.reply_text(f"So I know {told(context.user_data)}.", reply_markup=KEYBOARD)
    return CHOOSING


async def done(update: Update, context: Context) -> int:
    context.user_data.pop("asked", None)
    await update.message.reply_text(f"In the end: {told(context.user_data)}.", reply_markup=ReplyKeyboardRemove())
    return ConversationHandler.END


def conversation(**options: object) -> ConversationHandler:
    done_handler = MessageHandler(filters.Regex("^Done$"), done)
    return ConversationHandler(
        entry_points=[CommandHandler("start", start)],
        states={
            CHOOSING: [MessageHandler(filters.Regex("^(Age|Colour)$"), chosen)],
            ANSWERING: [MessageHandler(filters.TEXT & ~(filters.COMMAND | filters.Regex("^Done$")), answered)],
        },
        fallbacks=[done_handler],
        **options,
    )


def setup(application: Application) -> None:
    application.add_handler(conversation())
