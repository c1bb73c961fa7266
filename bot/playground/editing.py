"""Methods that change or remove what is in a chat: edit*, delete*, pins, stopPoll."""

from __future__ import annotations

from typing import Any

import orjson

from bot.playground.media import MEDIA, media_content
from bot.playground.params import Params, bad_request
from bot.playground.registry import Context, method, require_chat
from bot.playground.sending import formatted, keyboard


def _original(call: Context, verb: str = "edit") -> dict[str, Any]:
    require_chat(call.params, call.chat)
    found = call.bot.message(call.chat, call.params.integer("message_id"))
    if found is None:
        raise bad_request(f"message to {verb} not found")
    return found


def _edit(call: Context, content: dict[str, Any], without: set[str]) -> bytes | bool:
    """Replace fields of a message (`without` are those that go), and its keyboard with what was sent, or nothing."""
    if "inline_message_id" in call.params:
        return True
    before = _original(call)
    if before["from"]["id"] != call.bot.id:
        raise bad_request("message can't be edited")
    kept = {name: value for name, value in before.items() if name not in without | {"reply_markup", "edit_date"}}
    after = {**kept, **content, **keyboard(call.params)}
    if {**after, "edit_date": 0} == {**before, "edit_date": 0}:
        raise bad_request(
            "message is not modified: specified new message content and reply markup are exactly the same as a "
            "current content and reply markup of the message"
        )
    after["edit_date"] = call.date
    return _store(call, after)


def _store(call: Context, message: dict[str, Any]) -> bytes:
    encoded = orjson.dumps(message)
    call.message_id = message["message_id"]
    call.bot.keep(call.chat, call.message_id, encoded)
    call.world.amend(call.bot, call.chat, call.message_id, message)
    return encoded


@method("editMessageText")
def edit_message_text(call: Context) -> bytes | bool:
    content = formatted(call.params, "text")
    if "inline_message_id" not in call.params and "text" not in _original(call):
        raise bad_request("there is no text in the message to edit")
    return _edit(call, content, {"text", "entities"})


@method("editMessageCaption")
def edit_message_caption(call: Context) -> bytes | bool:
    return _edit(call, formatted(call.params, "caption"), {"caption", "caption_entities"})


@method("editMessageReplyMarkup")
def edit_message_reply_markup(call: Context) -> bytes | bool:
    return _edit(call, {}, set())


@method("editMessageMedia")
def edit_message_media(call: Context) -> bytes | bool:
    media = call.params.json("media")
    if not isinstance(media, dict) or media.get("type") not in MEDIA:
        raise bad_request("can't parse InputMedia: type is invalid")
    item = Params(media, call.params.files)
    content = media_content(call.world, item, media["type"], media.get("media")) | formatted(item, "caption")
    return _edit(call, content, {*MEDIA, "caption", "caption_entities"})


@method("setChatPhoto", needs_chat=True)
def set_chat_photo(call: Context) -> bool:
    if "photo" not in call.params.files:
        raise bad_request("there is no photo in the request")  # Telegram takes none but a new one
    media_content(call.world, call.params, "photo", None)
    return True


@method("editMessageLiveLocation")
def edit_message_live_location(call: Context) -> bytes | bool:
    place = {"latitude": call.params.number("latitude"), "longitude": call.params.number("longitude")}
    return _edit(call, {"location": place}, set())


@method("stopPoll", needs_chat=True)
def stop_poll(call: Context) -> dict[str, Any]:
    message = _original(call, "stop poll in")
    if "poll" not in message:
        raise bad_request("message with poll to stop not found")
    if message["poll"]["is_closed"]:
        raise bad_request("poll has already been closed")
    message["poll"]["is_closed"] = True
    _store(call, message)
    poll: dict[str, Any] = message["poll"]
    return poll


@method("deleteMessage", needs_chat=True)
def delete_message(call: Context) -> bool:
    if not _delete(call, call.params.integer("message_id")):
        raise bad_request("message to delete not found")
    return True


@method("deleteMessages", needs_chat=True)
def delete_messages(call: Context) -> bool:
    numbers = call.params.json("message_ids")
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= 100:
        raise bad_request("there must be 1-100 message identifiers")
    for number in numbers:
        _delete(call, int(number))
    return True


def _delete(call: Context, message_id: int) -> bool:
    found = call.bot.forget(call.chat, message_id)
    if found:
        call.world.amend(call.bot, call.chat, message_id, None)
    return found


@method("pinChatMessage", needs_chat=True)
def pin_chat_message(call: Context) -> bool:
    call.bot.pinned[call.chat] = _original(call, "pin")["message_id"]
    return True


@method("unpinChatMessage", needs_chat=True)
def unpin_chat_message(call: Context) -> bool:
    call.bot.pinned.pop(call.chat, None)
    return True


@method("unpinAllChatMessages", needs_chat=True)
def unpin_all_chat_messages(call: Context) -> bool:
    call.bot.pinned.pop(call.chat, None)
    return True
