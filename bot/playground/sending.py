"""Methods that put messages into a chat: send*, copy*, forward*."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson

from bot.playground import entities
from bot.playground.chats import parse_chat
from bot.playground.media import MEDIA, media_content
from bot.playground.params import Params, bad_request
from bot.playground.registry import Context, method

MAX_TEXT = 4096  # UTF-16 units after parsing
MAX_CAPTION = 1024
_PLAIN = frozenset(("chat_id", "text", "disable_notification", "protect_content", "message_thread_id"))
_DICE_SIDES = {"🎲": 6, "🎯": 6, "🎳": 6, "🏀": 5, "⚽": 5, "🎰": 64}


@method("sendMessage", sends=True)
def send_message(call: Context) -> bytes:
    """Text. Without formatting and keyboard the answer is put together from bytes: this is what benchmarks call."""
    params = call.params
    text = params.text("text")
    plain = params.values.keys() <= _PLAIN
    if plain and len(text) <= MAX_TEXT // 2 and text and not text.isspace() and call.chat not in call.bot.timelines:
        return _post_plain(call, text)
    return post(call, formatted(params, "text"))


def _post_plain(call: Context, text: str) -> bytes:
    bot, chat = call.bot, call.chat
    call.message_id = number = bot.next_id(chat)
    message = b'{"message_id":%d,"from":%s,"chat":%s,"date":%d,"text":%s}' % (
        number, bot.user_json, orjson.dumps(call.world.people.chat(chat)), call.date, orjson.dumps(text),
    )  # fmt: skip
    bot.keep(chat, number, message)
    return message


def post(call: Context, content: dict[str, Any], chat: int | None = None) -> bytes:
    """Put a message of the bot with this content into the chat; returns it as JSON."""
    bot, world = call.bot, call.world
    chat = call.chat if chat is None else chat
    number = bot.next_id(chat)
    call.message_id = call.message_id or number
    message = {
        "message_id": number, "from": bot.user, "chat": world.people.chat(chat), "date": call.date, **content,
        **_surroundings(call),
    }  # fmt: skip
    encoded = orjson.dumps(message)
    bot.keep(chat, number, encoded)
    world.record(bot, chat, "bot", message, call.arrival_ns, _reply_keyboard(call.params))
    return encoded


def formatted(params: Params, name: str) -> dict[str, Any]:
    """`text` or `caption` with its entities, checked as Telegram does. A caption may be missing, a text may not."""
    source = params.text(name)
    given = params.json("entities" if name == "text" else "caption_entities")
    text, found = (source, given) if given else entities.parse(source, params.text("parse_mode"))
    if not text.strip():
        if name == "text":
            raise bad_request("message text is empty")
        return {}
    limit = MAX_TEXT if name == "text" else MAX_CAPTION
    if entities.units(text) > limit:
        raise bad_request("message is too long" if name == "text" else "message caption is too long")
    content: dict[str, Any] = {name: text}
    if found:
        content["entities" if name == "text" else "caption_entities"] = found
    return content


def keyboard(params: Params) -> dict[str, Any]:
    """The inline keyboard as it appears in the message; other markups do not."""
    markup = params.json("reply_markup")
    if markup is None:
        return {}
    if not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    rows = markup.get("inline_keyboard")
    if rows is None:
        return {}
    for button in (button for row in rows for button in row):
        if not button.get("text"):
            raise bad_request("can't parse inline keyboard button: Text buttons must have text")
        if len(str(button.get("callback_data", "")).encode()) > 64:
            raise bad_request("BUTTON_DATA_INVALID")
    return {"reply_markup": {"inline_keyboard": rows}} if rows else {}


def _reply_keyboard(params: Params) -> list[list[str]] | None:
    """The texts of a reply keyboard; it is shown to the person, but is no part of the message. Empty: taken away."""
    markup = params.json("reply_markup")
    if not isinstance(markup, dict):
        return None
    if markup.get("remove_keyboard"):
        return []
    rows = markup.get("keyboard")
    if rows is None:
        return None
    return [[button if isinstance(button, str) else str(button.get("text", "")) for button in row] for row in rows]


def _surroundings(call: Context) -> dict[str, Any]:
    """Keyboard, reply and thread."""
    params = call.params
    found = keyboard(params)
    if params.integer("message_thread_id"):
        found["message_thread_id"] = params.integer("message_thread_id")
    reply = params.json("reply_parameters") or {}
    target = reply.get("message_id") or params.integer("reply_to_message_id")
    if not target:
        return found
    original = call.bot.message(call.chat, int(target))
    if original is not None:
        original.pop("reply_to_message", None)
        found["reply_to_message"] = original
    elif not (reply.get("allow_sending_without_reply") or params.flag("allow_sending_without_reply")):
        raise bad_request("message to be replied not found")
    return found


# --- media


def _sender_of(kind: str) -> Callable[[Context], bytes]:
    def send(call: Context) -> bytes:
        content = media_content(call.world, call.params, kind, call.params.values.get(kind))
        if kind not in ("sticker", "video_note"):
            content |= formatted(call.params, "caption")
        return post(call, content)

    return send


for _kind, _name in MEDIA.items():
    method(_name, sends=True)(_sender_of(_kind))


@method("sendMediaGroup", sends=True)
def send_media_group(call: Context) -> bytes:
    items = call.params.json("media")
    if not isinstance(items, list) or not 2 <= len(items) <= 10:
        raise bad_request("there must be 2-10 media in an album" if items else "media is empty")
    contents = []
    for item in items:
        kind = item.get("type", "")
        if kind not in MEDIA:
            raise bad_request("can't parse InputMedia: type is invalid")
        content = media_content(call.world, Params(item, call.params.files), kind, item.get("media"))
        contents.append(content | formatted(Params(item), "caption"))
    album = str(call.arrival_ns)
    return b"[" + b",".join(post(call, {"media_group_id": album, **content}) for content in contents) + b"]"


# --- everything else that can be sent


@method("sendLocation", sends=True)
def send_location(call: Context) -> bytes:
    return post(call, {"location": _location(call.params)})


@method("sendVenue", sends=True)
def send_venue(call: Context) -> bytes:
    title, address = call.params.text("title"), call.params.text("address")
    if not title or not address:
        raise bad_request("venue title and address must be non-empty")
    location = _location(call.params)
    return post(call, {"location": location, "venue": {"location": location, "title": title, "address": address}})


def _location(params: Params) -> dict[str, float]:
    if "latitude" not in params or "longitude" not in params:
        raise bad_request("latitude and longitude must be specified")
    return {"latitude": params.number("latitude"), "longitude": params.number("longitude")}


@method("sendContact", sends=True)
def send_contact(call: Context) -> bytes:
    phone, name = call.params.text("phone_number"), call.params.text("first_name")
    if not phone or not name:
        raise bad_request("phone number and first name must be non-empty")
    return post(call, {"contact": {"phone_number": phone, "first_name": name}})


@method("sendPoll", sends=True)
def send_poll(call: Context) -> bytes:
    params = call.params
    options = params.json("options")
    if not params.text("question"):
        raise bad_request("poll question must be non-empty")
    if not isinstance(options, list) or len(options) < 2:
        raise bad_request("poll must have at least 2 option")
    texts = [option.get("text", "") if isinstance(option, dict) else str(option) for option in options]
    poll = {
        "id": str(call.arrival_ns), "question": params.text("question"),
        "options": [{"persistent_id": str(at), "text": text, "voter_count": 0} for at, text in enumerate(texts)],
        "total_voter_count": 0, "is_closed": params.flag("is_closed"),
        "is_anonymous": "is_anonymous" not in params or params.flag("is_anonymous"),
        "type": params.text("type") or "regular", "allows_multiple_answers": params.flag("allows_multiple_answers"),
        "allows_revoting": False, "members_only": False,
    }  # fmt: skip
    return post(call, {"poll": poll})


@method("sendDice", sends=True)
def send_dice(call: Context) -> bytes:
    emoji = call.params.text("emoji") or "🎲"
    if emoji not in _DICE_SIDES:
        raise bad_request("wrong dice emoji specified")
    value = random.Random(call.arrival_ns).randint(1, _DICE_SIDES[emoji])
    return post(call, {"dice": {"emoji": emoji, "value": value}})


@method("sendChatAction", needs_chat=True)
def send_chat_action(call: Context) -> bool:
    action = call.params.text("action")
    if not action:
        raise bad_request("wrong parameter action in request")
    if call.chat in call.bot.timelines:
        call.world.events.publish("action", bot=call.bot.id, chat=call.chat, action=action)
    return True


# --- copies


def _source(call: Context, message_id: int, verb: str) -> dict[str, Any] | None:
    source = parse_chat(call.params.values.get("from_chat_id"))
    if source == 0:
        raise bad_request(f"chat to {verb} from not found" if verb == "copy" else "chat not found")
    return call.bot.message(source, message_id)


def _content_of(message: dict[str, Any]) -> dict[str, Any]:
    """What a copy takes along: everything but where the original stood."""
    left = {"message_id", "from", "chat", "date", "edit_date", "reply_to_message", "reply_markup", "message_thread_id"}
    return {name: value for name, value in message.items() if name not in left}


@method("copyMessage", sends=True)
def copy_message(call: Context) -> dict[str, int]:
    original = _source(call, call.params.integer("message_id"), "copy")
    if original is None:
        raise bad_request("message to copy not found")
    content = _content_of(original)
    if "caption" in call.params:
        content = {name: value for name, value in content.items() if not name.startswith("caption")}
        content |= formatted(call.params, "caption")
    post(call, content)
    return {"message_id": call.message_id}


@method("forwardMessage", sends=True)
def forward_message(call: Context) -> bytes:
    original = _source(call, call.params.integer("message_id"), "forward")
    if original is None:
        raise bad_request("message to forward not found")
    return post(call, _forwarded(original))


def _forwarded(original: dict[str, Any]) -> dict[str, Any]:
    origin = {"type": "user", "date": original["date"], "sender_user": original["from"]}
    return {**_content_of(original), "forward_origin": origin}


@method("copyMessages", sends=True)
def copy_messages(call: Context) -> list[dict[str, int]]:
    return _many(call, "copy", _content_of)


@method("forwardMessages", sends=True)
def forward_messages(call: Context) -> list[dict[str, int]]:
    return _many(call, "forward", _forwarded)


def _many(call: Context, verb: str, take: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, int]]:
    """Those of the messages that can be found, as Telegram does it; none at all is an error."""
    numbers = call.params.json("message_ids")
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= 100:
        raise bad_request("there must be 1-100 message identifiers")
    originals = [_source(call, int(number), verb) for number in numbers]
    sent = [orjson.loads(post(call, take(original))) for original in originals if original is not None]
    if not sent:
        raise bad_request(f"there are no messages to {verb}")
    return [{"message_id": message["message_id"]} for message in sent]
