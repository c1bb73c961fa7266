"""Contexts and data of its own classes: clicks counted by message in the chat's data, users known to the bot's."""

from __future__ import annotations

from collections import Counter

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackContext,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ExtBot,
    TypeHandler,
)


class ChatData:
    def __init__(self) -> None:
        self.clicks: Counter[int] = Counter()


class Context(CallbackContext[ExtBot, dict, ChatData, dict]):
    def __init__(self, application: Application, chat_id: int | None = None, user_id: int | None = None) -> None:
        super().__init__(application=application, chat_id=chat_id, user_id=user_id)
        self._message_id: int | None = None

    @property
    def users(self) -> set[int]:
        return self.bot_data.setdefault("users", set())

    @property
    def clicks(self) -> int:
        return self.chat_data.clicks[self._message_id]

    @clicks.setter
    def clicks(self, value: int) -> None:
        self.chat_data.clicks[self._message_id] = value

    @classmethod
    def from_update(cls, update: object, application: Application) -> Context:
        context = super().from_update(update, application)
        if context.chat_data is not None and isinstance(update, Update) and update.effective_message:
            context._message_id = update.effective_message.message_id
        return context


async def start(update: Update, context: Context) -> None:
    button = InlineKeyboardButton("Click", callback_data="click")
    await update.message.reply_html("Clicked 0 times.", reply_markup=InlineKeyboardMarkup.from_button(button))


async def click(update: Update, context: Context) -> None:
    context.clicks += 1
    await update.callback_query.answer()
    button = InlineKeyboardButton("Click", callback_data="click")
    await update.effective_message.edit_text(
        f"Clicked {context.clicks} times.", reply_markup=InlineKeyboardMarkup.from_button(button)
    )


async def users(update: Update, context: Context) -> None:
    await update.message.reply_text(f"Users: {', '.join(str(user) for user in sorted(context.users))}.")


async def note_user(update: Update, context: Context) -> None:
    if update.effective_user:
        context.users.add(update.effective_user.id)


def setup(builder: ApplicationBuilder) -> Application:
    application = builder.context_types(ContextTypes(context=Context, chat_data=ChatData)).build()
    application.add_handler(TypeHandler(Update, note_user), group=-1)
    application.add_handler(CommandHandler("start", start))
    application.add_handler(CallbackQueryHandler(click))
    application.add_handler(CommandHandler("users", users))
    return application
