"""What the Bot API would answer to a call, as far as that is known before it is made.

Of a text with a parse mode, the entities are not derived: its text is the one that was given.
"""

import time
from collections.abc import Mapping
from typing import Any

from bot.methods import EDITS

_KEPT = ("message_thread_id", "business_connection_id", "link_preview_options", "entities", "caption_entities")
_CONTENT = ("text", "caption", "show_caption_above_media")


def result_of(
    method: str, chat: str, parameters: Mapping[str, Any], message_id: int, bot: Mapping[str, Any] | None
) -> bool | dict[str, Any]:
    """The result of a method whose way is DERIVED.

    chat: canonical. message_id: of what is sent. bot: the User that sends it, if it is known.
    """
    if method == "sendMessage":
        return _message(chat, parameters, message_id, bot) | _reply(chat, parameters)
    if method in EDITS:
        edited = parameters.get("message_id")
        return _message(chat, parameters, edited if type(edited) is int else 0, bot) | {"edit_date": int(time.time())}
    return True


def _message(
    chat: str, parameters: Mapping[str, Any], message_id: int, bot: Mapping[str, Any] | None
) -> dict[str, Any]:
    message: dict[str, Any] = {"message_id": message_id, "date": int(time.time()), "chat": chat_of(chat)}
    if bot is not None and message["chat"]["type"] != "channel":
        message["from"] = dict(bot)
    message |= {name: parameters[name] for name in (*_CONTENT, *_KEPT) if name in parameters}
    if "message_thread_id" in parameters:  # of a forum's topic: PTB sends what answers it there only if it says so
        message["is_topic_message"] = True
    if "message_effect_id" in parameters:
        message["effect_id"] = parameters["message_effect_id"]
    if parameters.get("protect_content") is True:
        message["has_protected_content"] = True
    markup = parameters.get("reply_markup")
    if isinstance(markup, Mapping) and "inline_keyboard" in markup:  # others stay with the client
        message["reply_markup"] = markup
    return message


def _reply(chat: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The message that is replied to: only its id is known. The Bot API leaves it out if it is another chat's."""
    reply = parameters.get("reply_parameters")
    if not isinstance(reply, Mapping) or str(reply.get("chat_id", chat)).lower() != chat:
        return {}
    replied = reply.get("message_id")
    return (
        {}
        if type(replied) is not int
        else {"reply_to_message": {"message_id": replied, "date": 0, "chat": chat_of(chat)}}
    )


def chat_of(chat: str) -> dict[str, Any]:
    """What can be told of a chat by its name alone. Ids below -100… are supergroups' and channels'. The id of one that
    is known by its @name is that name, so that a later call for the message finds its chat."""
    if chat.startswith("@"):
        return {"id": chat, "type": "channel", "username": chat[1:]}
    kind = "private" if not chat.startswith("-") else "supergroup" if chat.startswith("-100") else "group"
    return {"id": int(chat), "type": kind}
