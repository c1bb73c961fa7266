"""How a job names what it calls, so that every process finds it again: by module and name, and the timeout of a
conversation by the place of its ConversationHandler in the application."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from telegram import Update
from telegram.ext import ConversationHandler
from telegram.ext._handlers.conversationhandler import _ConversationTimeoutContext  # what its timeout's job carries

from bot.conversations import conversations_of
from bot.stateful import AnyApplication

AnyConversation = ConversationHandler[Any]

_CONVERSATION = "conversation "
_TIMEOUT = "_trigger_timeout"


@dataclass(slots=True)
class Timeout:
    """What is kept of a conversation's timeout. arguments: `context.args` of the last update."""

    key: tuple[int | str, ...]
    update: Update
    arguments: list[str] | None


def reference(application: AnyApplication, callback: Callable[..., Any]) -> str:
    """The name of a callback. Raises ValueError, with what to do, if other processes could not find it by any."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, ConversationHandler) and getattr(callback, "__name__", "") == _TIMEOUT:
        return _CONVERSATION + _name_of(application, owner)
    name = f"{getattr(callback, '__module__', '')}:{getattr(callback, '__qualname__', '')}"
    try:
        found = _imported(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is None or found != callback:
        shown = getattr(callback, "__qualname__", None) or repr(callback)
        raise ValueError(
            f"{shown} cannot be the callback of a job: another process, or this one after a restart, could not find it."
            " Make it a function at the top level of a module (no lambda, no function within a function, no method of"
            " an object, no partial), and give it what it needs as the job's data"
        )
    return name


def resolve(application: AnyApplication, name: str) -> Callable[..., Any]:
    """The callback of that name. Raises LookupError if it is gone from the code."""
    try:
        if name.startswith(_CONVERSATION):
            handler = conversations_of(application)[name.removeprefix(_CONVERSATION)]
            return getattr(handler, _TIMEOUT)  # type: ignore[no-any-return]
        return _imported(name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, KeyError) as error:
        raise LookupError(f"the callback {name} of a job is not in the code any more") from error


def packed(data: object) -> tuple[object, int | None, int | None]:
    """A job's data as it is kept, and the chat and user whose turn a conversation's timeout is."""
    if not isinstance(data, _ConversationTimeoutContext):
        return data, None, None
    update = data.update
    kept = Timeout(data.conversation_key, update, getattr(data.callback_context, "args", None))
    chat, user = update.effective_chat, update.effective_user
    return kept, chat.id if chat else None, user.id if user else None


def place_of(data: object) -> dict[str, Any] | None:
    """Of a conversation's timeout, an update (as JSON) that belongs to the same conversation, with nothing else in it:
    one that is taken back waits in the inbox as long as the conversation might have."""
    if not isinstance(data, Timeout):
        return None
    update, query = data.update, data.update.callback_query
    chat = update.effective_chat and {"id": update.effective_chat.id, "type": update.effective_chat.type}
    user = update.effective_user and {"id": update.effective_user.id, "is_bot": False, "first_name": ""}
    message_id = query.message.message_id if query and query.message else 0
    message = {"message_id": message_id, "date": 0, "chat": chat} if chat else None
    fields: dict[str, Any] = {"update_id": update.update_id}
    if query:
        about = {"message": message, "inline_message_id": query.inline_message_id}
        given = {name: value for name, value in about.items() if value is not None}
        return {**fields, "callback_query": {"id": "", "from": user, "chat_instance": "", **given}}
    if message:
        return {**fields, "message": {**message, "from": user} if user else message}
    return {**fields, "inline_query": {"id": "", "from": user, "query": "", "offset": ""}}


def unpacked(application: AnyApplication, data: object) -> object:
    """The data again as the callback expects it. A conversation's timeout gets a new context for its last update."""
    if not isinstance(data, Timeout):
        return data
    context = application.context_types.context.from_update(data.update, application)
    context.args = data.arguments
    return _ConversationTimeoutContext(data.key, data.update, application, context)


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _name_of(application: AnyApplication, handler: AnyConversation) -> str:
    for name, found in conversations_of(application).items():
        if found is handler:
            return name
    raise ValueError("a conversation handler that was not added to the application has no timeout")
