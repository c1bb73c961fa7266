"""The message, its states, and its JSON in the list. Producers that are not ours write the same JSON by hand."""

import json
import os
import re
import time
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import Any, TypeGuard

import msgspec
import orjson

from queueing.errors import MalformedMessage

_ID = re.compile(r"[\w.:@+-]{1,128}", re.ASCII)
_LANE = re.compile(r"[\w.@+-]{1,128}", re.ASCII)
_PLAIN_CHAT = re.compile(r"-?[0-9]{1,15}")
_CHAT_NUMBER = re.compile(r"-?[0-9]{1,16}")
_CHAT_NAME = re.compile(r"@\w{1,64}", re.ASCII)
_AFTER_MOST = 100
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FIELDS = frozenset(
    {
        "bot",
        "bot_token",
        "chat_id",
        "lane",
        "id",
        "priority",
        "track",
        "max_attempts",
        "ttl",
        "send_at",
        "dedup_key",
        "uncertain",
        "accepted",
        "after",
        "also",
        "open",
        "provisional",
        "awaited",
        "group",
    }
)

_RARE = ("provisional", "awaited", "also", "group", "max_attempts", "ttl", "send_at", "dedup_key", "uncertain")
_NONE_OF_THEM = (False, False, None, None, None, None, None, None, None)
_rare_of = attrgetter(*_RARE)
_RARE_FIELDS = frozenset({*_RARE, "after"})
_AS_JSON_HAS_IT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

MOST_SECONDS = 366 * 86_400
"""How far ahead a message may be scheduled, and how long it may wait at most: beyond, somebody meant milliseconds."""


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


_PRIORITIES: Mapping[str, Priority] = {priority.value: priority for priority in Priority}


class Uncertain(StrEnum):
    """What becomes of a message of which nobody knows whether it was delivered."""

    RESEND = "resend"
    HOLD = "hold"


class MessageState(StrEnum):
    """Where a message is. The values are public: the HTTP API and `telequeue status` show them."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    RETRYING = "retrying"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"


def new_id() -> str:
    """An id that no other message has: 96 random bits, safe in a URL and in a key."""
    return b2a_base64(os.urandom(12), newline=False).translate(_URL_SAFE).decode()


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be delivered. A struct: a frozen dataclass of as many fields takes ten times as long to make.

    bot:    whose budget it uses (digits; for Telegram the number before the token's colon).
    chat:   its lane: messages of one (bot, chat) leave in order, one at a time. A chat's canonical name or, where
            something else than Telegram receives it, any 1 to 128 letters, digits or any of `_.@+-`.
    body:   what the handler needs to deliver it; JSON, opaque to the queue.
    id:     unique; given by the producer or made here.
    track:  keep a status that can be asked for by id.
    max_attempts: overrides the policy's, 1 or more.
    ttl:    seconds after its acceptance, or after `send_at`, at which it expires if it was not sent; None: never.
    send_at: Unix seconds before which it is not sent; None: at once. For the order it counts as accepted then.
    dedup_key: of several messages of the bot with the same key within 24 hours, only the first is taken.
    uncertain: whether it is sent again or held for a person, if nobody knows whether it was delivered; None: as the
               queue is told for all.
    accepted: Unix seconds at which the queue took it; None until then.
    after:  ids of `provisional` messages, 100 at most, that have to be sent before it; it dies with any of them.
    also:   another lane of the bot that it holds together with its own: in the order of acceptance it waits for the
            last message with the same one, or whose own lane that is, to end. RedisQueue only.
    provisional: others may be `after` it. Its id is taken once, and what came of it is kept for 30 days
                 after its end, or after the last that was `after` it.
    awaited: somebody waits for its end, which all processes are told of. Implies `track`.
    group:  messages that are counted together; see Front.group.
    results: by the ids of `after`, what came of each (as in MessageStatus.result); given by the queue with the grant.
    """

    bot: str
    chat: str
    body: Mapping[str, Any]
    id: str = msgspec.field(default_factory=new_id)
    priority: Priority = Priority.NORMAL
    track: bool = False
    max_attempts: int | None = None
    ttl: float | None = None
    send_at: float | None = None
    dedup_key: str | None = None
    uncertain: Uncertain | None = None
    accepted: float | None = None
    after: Sequence[str] = ()
    also: str | None = None
    provisional: bool = False
    awaited: bool = False
    group: str | None = None
    results: Mapping[str, str] = msgspec.field(default_factory=dict)

    def changed(self, **fields: Any) -> "Message":
        """The same message, but for these fields."""
        return msgspec.structs.replace(self, **fields)

    @property
    def paid(self) -> bool:
        """Whether it uses the bot's paid budget instead of the free one. The same rule stands in lua/element.lua."""
        kwargs = self.body.get("kwargs")
        return isinstance(kwargs, Mapping) and kwargs.get("allow_paid_broadcast") is True


def canonical_chat(value: object) -> str:
    """The one name of a chat: "42" and 42 are the same, @names are compared without case.

    The same rule stands in lua/element.lua, for elements that other programs push.

    Raises MalformedMessage if the value cannot name a chat.
    """
    if isinstance(value, int) and not isinstance(value, bool) and -(2**53) < value < 2**53:
        return str(value)
    if isinstance(value, str):
        name = value.strip()
        if _CHAT_NUMBER.fullmatch(name) and abs(int(name)) < 2**53:
            return str(int(name))
        if _CHAT_NAME.fullmatch(name):
            return name.lower()
    raise MalformedMessage("chat_id must be a whole number or an @name")


def _lane_field(chat: str) -> str:
    """The field in which an element names its lane. The same rule stands in lua/element.lua."""
    try:
        canonical_chat(chat)
    except MalformedMessage:
        if _LANE.fullmatch(chat):
            return "lane"
        raise
    return "chat_id"


def without_chat(kwargs: Mapping[str, Any], chat: object) -> dict[str, Any]:
    """A call's parameters without `chat_id`, which may only name the message's own chat again: order and limits are
    that one's, and it may have another name by the time the message leaves. None: the parameter was its only name.

    Raises MalformedMessage if it names another chat.
    """
    rest = dict(kwargs)
    if "chat_id" in rest:
        again = rest.pop("chat_id")
        try:
            same = chat is None or canonical_chat(again) == canonical_chat(chat)
        except MalformedMessage:
            same = False
        if not same:
            raise MalformedMessage("kwargs.chat_id names another chat than chat_id")
    return rest


def encode(message: Message) -> bytes:
    """The element that goes into the list. Raises MalformedMessage if the body is no JSON, or the chat no lane."""
    element: dict[str, Any] = {
        **message.body,
        "id": message.id,
        "bot": message.bot,
        "chat_id" if _PLAIN_CHAT.fullmatch(message.chat) else _lane_field(message.chat): message.chat,
    }
    if message.priority is not Priority.NORMAL:
        element["priority"] = message.priority
    if message.after:
        element["after"] = list(message.after)
    if message.track or message.awaited:
        element["track"] = True
    if (rare := _rare_of(message)) != _NONE_OF_THEM:
        element |= {
            name: value for name, value in zip(_RARE, rare, strict=True) if value is not None and value is not False
        }
    try:
        written = orjson.dumps(element, option=_AS_JSON_HAS_IT)
    except orjson.JSONEncodeError:
        return _written(element)
    # It writes null for what is no number, too.
    return written if b"null" not in written else _written(element)


def _written(element: Mapping[str, Any]) -> bytes:
    """The same, slower, for all that JSON can say: numbers of any size among it."""
    try:
        return json.dumps(element, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"the body cannot be written as JSON: {error}") from error


def _read(element: bytes) -> Any:
    """The JSON in an element. Raises MalformedMessage."""
    try:
        return msgspec.json.decode(element)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # json takes a little more, and says what is wrong
    try:
        return json.loads(element.decode())  # strictly UTF-8; given bytes, json lets half a surrogate pair pass
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"not JSON: {error}") from None


def decode(element: bytes, *, bot: str, chat: str, id: str, accepted: float) -> Message:
    """The message in an element. `bot`, `chat`, `id` and `accepted` are what the queue found or gave when it took it;
    `chat` may be another name of the element's.

    Raises MalformedMessage, which says what is wrong, for anything the queue cannot work with.
    """
    fields = _read(element)
    if not isinstance(fields, dict):
        raise MalformedMessage("not a JSON object")
    body = {key: value for key, value in fields.items() if key not in _FIELDS}
    if isinstance(body.get("kwargs"), dict):
        body["kwargs"] = without_chat(body["kwargs"], fields.get("chat_id"))
    return Message(
        bot=bot,
        chat=chat,
        body=body,
        id=id,
        priority=_priority(fields.get("priority")),
        track=_flag("track", fields.get("track")),
        accepted=accepted,
        **({} if _RARE_FIELDS.isdisjoint(fields) else _rare_in(fields)),
    )


def _rare_in(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those that most elements do not have."""
    return {
        "max_attempts": _max_attempts(fields.get("max_attempts")),
        "ttl": check_ttl(fields.get("ttl")),
        "send_at": check_send_at(fields.get("send_at")),
        "dedup_key": check_dedup_key(fields.get("dedup_key")),
        "uncertain": check_uncertain(fields.get("uncertain")),
        "after": check_after(fields.get("after")),
        "also": check_lane("also", fields.get("also")),
        "provisional": _flag("provisional", fields.get("provisional")),
        "awaited": _flag("awaited", fields.get("awaited")),
        "group": check_lane("group", fields.get("group")),
    }


def check_id(value: object) -> str:
    """The id a producer gave, if it can be one: 1 to 128 letters, digits or any of `_.:@+-`."""
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise MalformedMessage("id must be 1 to 128 letters, digits or any of _ . : @ + -")


def check_ttl(value: object) -> float | None:
    """The ttl a producer gave, in seconds. The same rules stand in lua/drain.lua, as for the two below."""
    if value is None or (_is_number(value) and 0 < value <= MOST_SECONDS):
        return value
    raise MalformedMessage("ttl must be seconds, more than 0 and at most 366 days")


def check_send_at(value: object) -> float | None:
    """The time a producer gave, in Unix seconds. One that has passed means: at once."""
    if value is None or (_is_number(value) and 0 <= value <= time.time() + MOST_SECONDS):
        return value
    raise MalformedMessage("send_at must be Unix seconds, at most 366 days ahead")


def check_dedup_key(value: object) -> str | None:
    """The dedup key a producer gave."""
    if value is None or (isinstance(value, str) and 1 <= len(value.encode(errors="replace")) <= 256):
        return value
    raise MalformedMessage("dedup_key must be a string of 1 to 256 bytes")


def check_uncertain(value: object) -> Uncertain | None:
    """What a producer wants done in doubt."""
    if value is None:
        return None
    try:
        return Uncertain(value)  # type: ignore[arg-type]
    except ValueError:
        raise MalformedMessage("uncertain must be resend or hold") from None


def check_after(value: object) -> Sequence[str]:
    """The ids of messages that have to be sent before."""
    if value is None:
        return ()
    if isinstance(value, list | tuple) and 1 <= len(value) <= _AFTER_MOST:
        try:
            return tuple(map(check_id, value))
        except MalformedMessage:
            pass
    raise MalformedMessage(f"after must be 1 to {_AFTER_MOST} ids of messages")


def check_lane(name: str, value: object) -> str | None:
    """A name of the producer's own choice, for the field `name`: 1 to 128 letters, digits or any of `_.@+-`."""
    if value is None or (isinstance(value, str) and _LANE.fullmatch(value)):
        return value
    raise MalformedMessage(f"{name} must be 1 to 128 letters, digits or any of _ . @ + -")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _priority(value: object) -> Priority:
    if value is None:
        return Priority.NORMAL
    if isinstance(value, str) and (priority := _PRIORITIES.get(value)):
        return priority
    raise MalformedMessage("priority must be interactive, normal or bulk")


def _flag(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise MalformedMessage(f"{name} must be true or false")


def _max_attempts(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return value
    raise MalformedMessage("max_attempts must be a whole number from 1 to 1000")
