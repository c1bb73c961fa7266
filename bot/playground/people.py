"""What people do: write to the bot and press its buttons. Becomes updates, and lines on the page."""

from __future__ import annotations

import itertools
import re
import time
from typing import Any

import msgspec
import orjson

from bot.playground.chats import parse_chat
from bot.playground.entities import units
from bot.playground.world import Bot, World

_COMMAND = re.compile(r"(?<!\S)/\w+(?:@\w+)?")
_QUERY_NUMBERS = itertools.count(1)


class Press(msgspec.Struct, forbid_unknown_fields=True):
    """A press on an inline button: of which message, with which callback_data."""

    message_id: int
    data: str


class Deed(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody does; the element of `POST /playground/updates`.

    Either `text` (a message), or `press` (a callback query), or `kind` and `content` (any update, given as it is).
    `user` may be left out in a private chat, `bot` where there is only one.
    """

    chat: int | str = 0
    user: int = 0
    text: str = ""
    press: Press | None = None
    kind: str = ""
    content: dict[str, Any] = {}
    bot: int = 0


class Done(msgspec.Struct):
    """What came of it. `update_id` is 0 if the bot has not asked for this kind of update."""

    update_id: int
    message_id: int = 0
    query_id: str = ""


def perform(world: World, bot: Bot, deed: Deed) -> Done:
    """Turn a deed into an update of the bot; ValueError says what is missing."""
    chat = parse_chat(deed.chat)
    user = deed.user or (max(0, chat))
    if deed.kind:
        return _raw(bot, deed, chat or user)
    if chat == 0:
        raise ValueError("chat is missing or is no chat id")
    if user <= 0:
        raise ValueError("user is missing: in a group it cannot be derived from the chat")
    if deed.press is not None:
        return _press(world, bot, chat, user, deed.press)
    if not deed.text.strip():
        raise ValueError("text, press or kind is missing")
    return _write(world, bot, chat, user, deed.text)


def _write(world: World, bot: Bot, chat: int, user: int, text: str) -> Done:
    now = time.monotonic_ns()
    number = bot.next_id(chat)
    message = {
        "message_id": number, "from": world.people.user(user), "chat": world.people.chat(chat),
        "date": int(time.time()), "text": text,
    }  # fmt: skip
    commands = [
        {"type": "bot_command", "offset": units(text[: found.start()]), "length": units(found[0])}
        for found in _COMMAND.finditer(text)
    ]
    if commands:
        message["entities"] = commands
    bot.keep(chat, number, orjson.dumps(message))
    world.record(bot, chat, "user", message, now)
    return Done(bot.mailbox.put("message", message, ("chat", chat)), number)


def _press(world: World, bot: Bot, chat: int, user: int, press: Press) -> Done:
    message = bot.message(chat, press.message_id)
    if message is None:
        raise ValueError(f"message {press.message_id} is not in this chat")
    query = str(time.time_ns() * 1000 + next(_QUERY_NUMBERS) % 1000)
    content = {
        "id": query, "from": world.people.user(user), "message": message, "chat_instance": str(chat),
        "data": press.data,
    }  # fmt: skip
    bot.ask(query)
    return Done(bot.mailbox.put("callback_query", content, ("user", user)), press.message_id, query)


def _raw(bot: Bot, deed: Deed, lane: int) -> Done:
    if deed.kind in ("callback_query", "inline_query") and "id" in deed.content:
        bot.ask(str(deed.content["id"]))
    return Done(bot.mailbox.put(deed.kind, deed.content, ("chat", lane)))
