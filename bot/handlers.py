"""Our own bot: plain python-telegram-bot handlers, loaded by BOT_APP as any bot is.

A question is answered within the handling of its update, not by a task beside it. So it survives its process (the
update is handled again, elsewhere), a chat's questions are answered one after the other, and what was said before is in
`chat_data`. The price: other messages of this chat wait for the answer, 3 minutes at most. Where more are asking than
the backend takes at once, the others wait in line and are told their place.

Edited messages are not answered: the first version was.
"""

import logging
from typing import Any, Final, cast

from telegram import Chat, Message, Update
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from bot import texts
from bot.answers import Answer, growing
from bot.application import TelequeueApplication
from bot.broadcast_handlers import add_broadcast_handlers
from bot.chat import ChatBackend, ChatFailed
from bot.line import AT_ONCE, Place
from bot.patience import until_done
from bot.services import Services

_logger = logging.getLogger(__name__)

_TURNS: Final = 12
"""Of the conversation, questions and answers, that the chat backend is told of."""
_REMEMBERED: Final = 12_000  # characters of them
_SYSTEM: Final = (
    "You are a helpful assistant in a chat. Answer briefly, in the language of the question, without Markdown."
)


def add_handlers(application: Application[Any, Any, Any, Any, Any, Any]) -> None:
    """Adds the handlers."""
    services = cast(TelequeueApplication, application).telequeue
    new = filters.UpdateType.MESSAGE
    handlers = {"start": start, "help": help_, "ping": ping, "status": status, "queue": status, "new": forget}
    if services.chat is None:
        del handlers["new"]
    if services.subscribers is not None:
        handlers |= {"subscribe": subscribe, "unsubscribe": unsubscribe}
    add_broadcast_handlers(application)
    for name, handler in handlers.items():
        application.add_handler(CommandHandler(name, handler, filters=new))
    application.add_handler(MessageHandler(new & filters.COMMAND & filters.ChatType.PRIVATE, unknown))
    application.add_handler(MessageHandler(new & filters.TEXT & ~filters.COMMAND, talk))

    async def show_commands() -> None:
        await until_done("setMyCommands", lambda: application.bot.set_my_commands(commands(services)))

    services.on_lead(show_commands)


def commands(services: Services) -> list[tuple[str, str]]:
    """Those that the bot shows, each with what it does."""
    listed = [("status", "how long is the queue, and what are the limits?"), ("ping", "am I there?")]
    if services.chat is not None:
        listed.append(("new", "forget what we talked about"))
    if services.subscribers is not None:
        listed += [("subscribe", "get the bot's news"), ("unsubscribe", "get no more news")]
    return [*listed, ("help", "this list")]


async def start(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    services = _services(context)
    name = update.effective_user.first_name if update.effective_user else "there"
    answers = services.chat is not None
    help_text = texts.help_text(commands(services), answers)
    await _message(update).reply_text(f"{texts.greeting(name, answers)}\n\n{help_text}")


async def help_(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    services = _services(context)
    await _message(update).reply_text(texts.help_text(commands(services), services.chat is not None))


async def ping(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await _message(update).reply_text("pong")


async def status(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    services, message = _services(context), _message(update)
    lines = [texts.queue(await services.stats()), texts.limits(services.limits, str(message.chat_id))]
    if services.chat is not None:
        lines.append(texts.line(await services.line.length(), AT_ONCE))
    await message.reply_text("\n".join(lines))


async def subscribe(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    message, subscribers = _message(update), _services(context).subscribers
    assert subscribers is not None
    await message.reply_text(texts.subscribed(await subscribers.add(message.chat_id)))


async def unsubscribe(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    message, subscribers = _message(update), _services(context).subscribers
    assert subscribers is not None
    await message.reply_text(texts.unsubscribed(await subscribers.remove(message.chat_id)))


async def forget(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    _chat_data(context).pop("turns", None)
    await _message(update).reply_text(texts.FORGOTTEN)


async def unknown(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    await _message(update).reply_text(texts.UNKNOWN)


async def talk(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    services, question = _services(context), _message(update)
    if services.chat is None:
        await question.reply_text(texts.echo(question.text or ""))
        return
    async with Place(services.line, f"{update.update_id}") as place:
        if place.ahead is None:
            await question.reply_text(texts.TOO_MANY)
            return
        message = await question.reply_text(
            texts.in_line(place.ahead),
            do_quote=question.chat.type != Chat.PRIVATE,  # or nobody would know who is answered
            allow_sending_without_reply=True,
        )
        async with Answer(question, message) as answer:
            async for ahead in place.moves():
                answer.text = texts.in_line(ahead)
            await answer.finish(await _ask(services.chat, question.text or "", _chat_data(context), answer))


async def _ask(chat: ChatBackend, question: str, data: dict[str, Any], shown: Answer) -> str:
    """The answer, which is shown as it comes, and remembered; or words about what went wrong."""
    turns: list[dict[str, str]] = [*data.get("turns", ()), {"role": "user", "content": question}]
    text = ""
    try:
        async for piece in chat.answer([{"role": "system", "content": _SYSTEM}, *turns]):
            text += piece
            shown.text = growing(text)
    except ChatFailed as error:
        _logger.warning("the chat backend failed: %s", error)
        return f"{text.strip()}\n\n{texts.BROKE_OFF}" if text.strip() else texts.NO_ANSWER
    if not text.strip():
        _logger.warning("the chat backend's answer is empty")
        return texts.NO_ANSWER
    data["turns"] = _remembered([*turns, {"role": "assistant", "content": text}])
    return text


def _remembered(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The newest, beginning with a question."""
    turns = turns[-_TURNS:]
    while len(turns) > 2 and sum(len(turn["content"]) for turn in turns) > _REMEMBERED:
        turns = turns[2:]
    return turns


def _services(context: ContextTypes.DEFAULT_TYPE) -> Services:
    return cast(TelequeueApplication, context.application).telequeue


def _message(update: Update) -> Message:
    assert update.effective_message is not None  # of each update that the filters let through
    return update.effective_message


def _chat_data(context: ContextTypes.DEFAULT_TYPE) -> dict[str, Any]:
    assert context.chat_data is not None
    return context.chat_data
