"""Which chat and which user an update is about, told from its JSON: the lanes that it holds while it is handled.

They are those of PTB's `effective_chat` and `effective_user`, since those choose the state that handlers see; a test
holds the two together for all kinds of updates.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from queueing.message import Message

NO_LANE: Final = "other"
"""The lane of what belongs to no chat and no user, such as a poll's new state."""

_MESSAGES = (
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "business_message",
    "edited_business_message",
    "guest_message",
)
_CHATS = (
    *_MESSAGES,
    "deleted_business_messages",
    "my_chat_member",
    "chat_member",
    "chat_join_request",
    "chat_boost",
    "removed_chat_boost",
    "message_reaction",
    "message_reaction_count",
)
_FROM = (
    *_MESSAGES,
    "inline_query",
    "chosen_inline_result",
    "callback_query",
    "shipping_query",
    "pre_checkout_query",
    "my_chat_member",
    "chat_member",
    "chat_join_request",
    "purchased_paid_media",
)
_USER = ("poll_answer", "message_reaction", "business_connection", "managed_bot")


def lanes_of(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Chat and user of an update's JSON, whatever that holds; None: it has none."""
    callback_query = _object(fields, "callback_query")
    chats = chain(_objects(fields, _CHATS), _objects(callback_query, ("message",)))
    users = chain(_each(_objects(fields, _FROM), "from"), _each(_objects(fields, _USER), "user"))
    return _first(map(lane_of, _each(chats, "chat"))), _first(map(lane_of, users))


def update_message(bot: str, update_id: int, fields: Mapping[str, Any]) -> Message:
    """The message that stands for an update in the inbox.

    A private chat and its person have the same lane, and it is named twice then: only who names a lane in `also` waits
    for those who did so before, as an update of the person in a group does.
    """
    chat, user = lanes_of(fields)
    lane = chat or user or NO_LANE
    return Message(bot=bot, chat=lane, also=user, id=f"u{update_id}", body={"update": dict(fields)})


def lane_of(about: object) -> str | None:
    """That of a user's or a chat's JSON, whatever that is; None: it names nobody."""
    value = about.get("id") if isinstance(about, dict) else None
    return str(value) if type(value) is int and abs(value) < 2**53 else None


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _objects(holder: Mapping[str, Any], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Of those that there are, in this order."""
    return (_object(holder, name) for name in names if name in holder)


def _each(holders: Iterable[Mapping[str, Any]], name: str) -> Iterator[Mapping[str, Any]]:
    return (_object(holder, name) for holder in holders)


def _first(ids: Iterator[str | None]) -> str | None:
    return next((id for id in ids if id is not None), None)
