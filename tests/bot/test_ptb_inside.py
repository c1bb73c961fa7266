"""What the shared state needs of PTB's inside, which PTB may change without a word. Each line says what breaks then."""

import inspect
from typing import Any

import pytest
from telegram import Bot, TelegramObject, Update
from telegram.ext import Application, CallbackContext, CallbackDataCache, CommandHandler, ConversationHandler, ExtBot
from telegram.ext._handlers.conversationhandler import PendingState


def source(of: Any) -> str:
    return inspect.getsource(of)


HANDLER: ConversationHandler[Any] = ConversationHandler([CommandHandler("x", print)], {}, [])
BOT = ExtBot("1:a", arbitrary_callback_data=True)


def of_context(name: str) -> str:
    return source(getattr(CallbackContext, name).fget)


NEEDED = {
    "conversations: states are in `_conversations`, a dict by key": HANDLER._conversations == {},
    "conversations: timeouts are in `timeout_jobs`, a dict by key": HANDLER.timeout_jobs == {},
    "conversations: `_get_key` tells the key, or raises RuntimeError": "RuntimeError" in source(HANDLER._get_key),
    "conversations: the key is of the update alone": list(inspect.signature(HANDLER._get_key).parameters) == ["update"],
    "conversations: check_update passes by channel posts": "channel_post" in source(HANDLER.check_update),
    "conversations: a state is looked up by key": "_conversations.get(key)" in source(HANDLER.check_update),
    "conversations: a new state is set by key": "_conversations[key] =" in source(HANDLER._update_state),
    "conversations: a pending state has the old one, and a task": {"old_state", "task"} <= set(PendingState.__slots__),
    "conversations: a pending state resolves": callable(PendingState.resolve) and callable(PendingState.done),
    "data: user_data is looked up by id in `_user_data`": "_user_data" in source(Application.drop_user_data),
    "data: chat_data is looked up by id in `_chat_data`": "_chat_data" in source(Application.migrate_chat_data),
    "data: contexts look at the application's data": "_application.user_data[" in of_context("user_data"),
    "data: contexts look at the application's bot_data": "application.bot_data" in of_context("bot_data"),
    "data: who is to be stored is marked by `_mark_for_persistence_update`": callable(
        Application._mark_for_persistence_update
    ),
    "callback data: the bot has its cache in `_callback_data_cache`": isinstance(
        BOT._callback_data_cache, CallbackDataCache
    ),
    "callback data: keyboards are in `_keyboard_data`": "_keyboard_data" in CallbackDataCache.__slots__,
    "callback data: queries are in `_callback_queries`": "_callback_queries" in CallbackDataCache.__slots__,
    "callback data: persistent data becomes keyboards with to_tuple": "to_tuple"
    in source(CallbackDataCache.persistence_data.fget),
    "pickling: an object's bot is in `_bot`": "_bot" in TelegramObject.__slots__,
    "pickling: a state leaves the bot out": "_bot" not in Update(1).__getstate__(),  # type: ignore[operator]
    "pickling: a bot is a Telegram object": issubclass(Bot, TelegramObject),
}


@pytest.mark.parametrize("what", NEEDED)
def test_ptb_is_inside_as_the_shared_state_needs_it(what: str) -> None:
    assert NEEDED[what], f"this PTB is another inside, see bot/conversations.py, state.py, callback_data.py: {what}"
