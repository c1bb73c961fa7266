"""Chats and people: every id exists here, and its number says what it is, as in Telegram."""

from __future__ import annotations

import re
import zlib
from typing import Any

SUPERGROUPS_BELOW = -1_000_000_000_000
_NAME = re.compile(r"@[A-Za-z]\w{3,31}")
_LARGEST = 2**52  # Telegram promises that ids fit in 52 bits


def channel_id(name: str) -> int:
    """The id of the channel `@name`: derived from the name, so that it is the same in every run."""
    return SUPERGROUPS_BELOW - 1 - zlib.crc32(name.lower().encode())


def parse_chat(value: object) -> int:
    """A chat_id parameter as a number; 0 if it names no chat that could exist."""
    if isinstance(value, int):
        return value if -_LARGEST < value < _LARGEST else 0
    if not isinstance(value, str):
        return 0
    if _NAME.fullmatch(value):
        return channel_id(value)
    try:
        number = int(value)
    except ValueError:
        return 0
    return number if -_LARGEST < number < _LARGEST else 0


def chat_kind(chat: int) -> str:
    """private, group, supergroup or channel; channels are the ids that a @name gave."""
    if chat > 0:
        return "private"
    if chat >= SUPERGROUPS_BELOW:
        return "group"
    return "channel" if -(2**32) <= chat - SUPERGROUPS_BELOW + 1 <= 0 else "supergroup"


class People:
    """Names of chats and users, as far as somebody gave them one."""

    def __init__(self) -> None:
        self.chats: dict[int, dict[str, Any]] = {}
        self.users: dict[int, dict[str, Any]] = {}
        self.channels: dict[int, str] = {}

    def chat(self, chat: int) -> dict[str, Any]:
        """The Chat object."""
        known = self.chats.get(chat)
        if known is not None:
            return known
        kind = chat_kind(chat)
        if kind == "private":
            return {"id": chat, "type": kind, **_names(self.user(chat))}
        title = {"id": chat, "type": kind, "title": f"{kind.capitalize()} {abs(chat)}"}
        return {**title, "username": self.channels[chat]} if chat in self.channels else title

    def user(self, user: int) -> dict[str, Any]:
        """The User object of a person."""
        return self.users.get(user) or {"id": user, "is_bot": False, "first_name": f"User {user}"}

    def name_user(self, user: int, first_name: str, username: str | None = None) -> None:
        self.users[user] = {"id": user, "is_bot": False, "first_name": first_name, "language_code": "en"}
        if username:
            self.users[user]["username"] = username

    def note_channel(self, chat: int, name: object) -> None:
        """A channel that is called by its @name shows it from then on, as every one does that has a name."""
        if isinstance(name, str) and _NAME.fullmatch(name):
            self.channels[chat] = name[1:]

    def name_chat(self, chat: int, title: str) -> None:
        self.chats[chat] = {"id": chat, "type": chat_kind(chat), "title": title}


def _names(user: dict[str, Any]) -> dict[str, Any]:
    return {name: user[name] for name in ("first_name", "username") if name in user}
