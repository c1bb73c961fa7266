"""A conversation of four questions, two of which may be skipped: text, photo, location, text."""

from telegram import ReplyKeyboardMarkup, ReplyKeyboardRemove, Update
from telegram.ext import Application, CommandHandler, ContextTypes, ConversationHandler, MessageHandler, filters

Context = ContextTypes.DEFAULT_TYPE

PET, PICTURE, HOME, STORY = range(4)


async def start(update: Update, context: Context) -> int:
    keyboard = ReplyKeyboardMarkup([["Cat", "Dog", "Snail"]], one_time_keyboard=True)
    await update.message.reply_text("Which pet do you have?", reply_markup=keyboard)
    return PET


async def pet(update: Update, context: Context) -> int:
    await update.message.reply_text(
        f"A {update.message.text.lower()}! Show me a picture, or /skip.", reply_markup=ReplyKeyboardRemove()
    )
    return PICTURE


async def picture(update: Update, context: Context) -> int:
    file = await update.message.photo[-1].get_file()
    await update.message.reply_text(f"Sweet ({file.file_id}). Where does it live? Or /skip.")
    return HOME


async def no_picture(update: Update, context: Context) -> int:
    await update.message.reply_text("No picture, then. Where does it live? Or /skip.")
    return HOME


async def home(update: Update, context: Context) -> int:
    place = update.message.location
    await update.message.reply_text(f"At {place.latitude:.1f}, {place.longitude:.1f}. Tell me its story.")
    return STORY


async def no_home(update: Update, context: Context) -> int:
    await update.message.reply_text("You keep that to yourself. Tell me its story.")
    return STORY


async def story(update: Update, context: Context) -> int:
    await update.message.reply_text(f"Thank you. I heard: {update.message.text}")
    return ConversationHandler.END


async def cancel(update: Update, context: Context) -> int:
    await update.message.reply_text("Bye.", reply_markup=ReplyKeyboardRemove())
    return ConversationHandler.END


def setup(application: Application) -> None:
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("start", start)],
            states={
                PET: [MessageHandler(filters.Regex("^(Cat|Dog|Snail)$"), pet)],
                PICTURE: [MessageHandler(filters.PHOTO, picture), CommandHandler("skip", no_picture)],
                HOME: [MessageHandler(filters.LOCATION, home), CommandHandler("skip", no_home)],
                STORY: [MessageHandler(filters.TEXT & ~filters.COMMAND, story)],
            },
            fallbacks=[CommandHandler("cancel", cancel)],
        )
    )
