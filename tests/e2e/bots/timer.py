"""An alarm by the JobQueue: one a chat, set anew or taken back from any process; and a conversation that times out."""

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, ConversationHandler, MessageHandler, filters

Context = ContextTypes.DEFAULT_TYPE

WAITING = 0


async def alarm(context: Context) -> None:
    await context.bot.send_message(context.job.chat_id, text=f"Ring! {context.job.data} s are over.")


def remove(name: str, context: Context) -> bool:
    jobs = context.job_queue.get_jobs_by_name(name)
    for job in jobs:
        job.schedule_removal()
    return bool(jobs)


async def set_(update: Update, context: Context) -> None:
    chat = update.effective_message.chat_id
    try:
        seconds = float(context.args[0])
    except (IndexError, ValueError):
        await update.effective_message.reply_text("How many seconds?")
        return
    replaced = remove(str(chat), context)
    context.job_queue.run_once(alarm, seconds, chat_id=chat, name=str(chat), data=seconds)
    await update.effective_message.reply_text("Set anew." if replaced else "Set.")


async def unset(update: Update, context: Context) -> None:
    removed = remove(str(update.message.chat_id), context)
    await update.message.reply_text("Taken back." if removed else "There is no alarm.")


async def tick(context: Context) -> None:
    context.chat_data["ticks"] = context.chat_data.get("ticks", 0) + 1
    await context.bot.send_message(context.job.chat_id, text=f"Tick {context.chat_data['ticks']}.")
    if context.chat_data["ticks"] == 3:
        context.job.schedule_removal()


async def ticks(update: Update, context: Context) -> None:
    chat = update.effective_chat.id
    context.job_queue.run_repeating(tick, interval=0.3, first=0.1, chat_id=chat, name=f"ticks {chat}")
    await update.message.reply_text("Three ticks follow.")


async def wait(update: Update, context: Context) -> int:
    await update.message.reply_text("You have a second.")
    return WAITING


async def in_time(update: Update, context: Context) -> int:
    await update.message.reply_text("In time.")
    return ConversationHandler.END


async def too_late(update: Update, context: Context) -> None:
    await update.message.reply_text("Too late.")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("set", set_))
    application.add_handler(CommandHandler("unset", unset))
    application.add_handler(CommandHandler("ticks", ticks))
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("wait", wait)],
            states={
                WAITING: [MessageHandler(filters.TEXT & ~filters.COMMAND, in_time)],
                ConversationHandler.TIMEOUT: [MessageHandler(filters.ALL, too_late)],
            },
            fallbacks=[],
            conversation_timeout=1.0,
        )
    )
