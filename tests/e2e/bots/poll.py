"""A poll, and a quiz: what was asked is kept in bot_data by the poll's id, and looked up when answers come."""

from telegram import Poll, Update
from telegram.ext import Application, CommandHandler, ContextTypes, PollAnswerHandler, PollHandler

Context = ContextTypes.DEFAULT_TYPE

MOST_VOTES = 2
WORDS = ["Fine", "So so", "Bad"]


async def poll(update: Update, context: Context) -> None:
    message = await context.bot.send_poll(update.effective_chat.id, "How are you?", WORDS, is_anonymous=False)
    context.bot_data[message.poll.id] = {
        "message_id": message.message_id,
        "chat_id": update.effective_chat.id,
        "answers": 0,
    }


async def answer(update: Update, context: Context) -> None:
    given = update.poll_answer
    asked = context.bot_data.get(given.poll_id)
    if asked is None:  # an old poll
        return
    words = " and ".join(WORDS[number] for number in given.option_ids)
    await context.bot.send_message(asked["chat_id"], f"{update.effective_user.first_name} feels {words}.")
    asked["answers"] += 1
    if asked["answers"] == MOST_VOTES:
        await context.bot.stop_poll(asked["chat_id"], asked["message_id"])
        await context.bot.send_message(asked["chat_id"], "The poll is closed.")


async def quiz(update: Update, context: Context) -> None:
    message = await update.effective_message.reply_poll(
        "How many eggs for a cake?", ["1", "2", "20"], type=Poll.QUIZ, correct_option_id=1
    )
    context.bot_data[message.poll.id] = {"chat_id": update.effective_chat.id, "message_id": message.message_id}


async def voted(update: Update, context: Context) -> None:
    if update.poll.is_closed:
        return
    asked = context.bot_data.get(update.poll.id)
    if asked is not None and update.poll.total_voter_count == MOST_VOTES:
        await context.bot.stop_poll(asked["chat_id"], asked["message_id"])
        await context.bot.send_message(asked["chat_id"], "The quiz is over.")


def setup(application: Application) -> None:
    application.add_handler(CommandHandler("poll", poll))
    application.add_handler(CommandHandler("quiz", quiz))
    application.add_handler(PollAnswerHandler(answer))
    application.add_handler(PollHandler(voted))
