"""Methods that ask or tell about the bot and its chats, and those that answer queries."""

from __future__ import annotations

import time
from typing import Any

from bot.playground.params import ApiError, bad_request
from bot.playground.registry import Context, method

QUERY_LIFETIME = 150.0  # seconds; later answers are refused
_RIGHTS = (
    "can_be_edited", "can_manage_chat", "can_delete_messages", "can_manage_video_chats", "can_restrict_members",
    "can_promote_members", "can_change_info", "can_invite_users", "can_post_stories", "can_edit_stories",
    "can_delete_stories", "can_pin_messages", "can_manage_topics",
)  # fmt: skip


@method("getMe")
def get_me(call: Context) -> dict[str, Any]:
    able = {"can_join_groups": True, "can_read_all_group_messages": True, "supports_inline_queries": False,
            "can_connect_to_business": False, "has_main_web_app": False, "has_topics_enabled": False,
            "allows_users_to_create_topics": False, "can_manage_bots": False}  # fmt: skip
    return {**call.bot.user, **able}


@method("getChat", needs_chat=True)
def get_chat(call: Context) -> dict[str, Any]:
    gifts = dict.fromkeys(
        ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels"), True
    )
    found: dict[str, Any] = {
        **call.world.people.chat(call.chat), "accent_color_id": 0, "max_reaction_count": 11,
        "accepted_gift_types": gifts,
    }  # fmt: skip
    pinned = call.bot.message(call.chat, call.bot.pinned.get(call.chat, 0))
    return found if pinned is None else {**found, "pinned_message": pinned}


@method("getChatMember", needs_chat=True)
def get_chat_member(call: Context) -> dict[str, Any]:
    user = call.params.integer("user_id")
    if user <= 0:
        raise bad_request("invalid user_id specified")
    if user == call.bot.id:
        return _bot_as_admin(call)
    return {"status": "member", "user": call.world.people.user(user)}


def _bot_as_admin(call: Context) -> dict[str, Any]:
    return {"status": "administrator", "user": call.bot.user, "is_anonymous": False, **dict.fromkeys(_RIGHTS, True)}


@method("getChatAdministrators", needs_chat=True)
def get_chat_administrators(call: Context) -> list[dict[str, Any]]:
    if call.chat > 0:
        raise bad_request("there are no administrators in the private chat")
    return [_bot_as_admin(call)]


@method("getChatMemberCount", needs_chat=True)
def get_chat_member_count(call: Context) -> int:
    return 2 if call.chat > 0 else max(2, len(call.world.people.users) + 1)


@method("createChatInviteLink", needs_chat=True)
def create_chat_invite_link(call: Context) -> dict[str, Any]:
    return {"invite_link": _invite(call), "creator": call.bot.user, "creates_join_request": False,
            "is_primary": False, "is_revoked": False}  # fmt: skip


@method("exportChatInviteLink", needs_chat=True)
def export_chat_invite_link(call: Context) -> str:
    return _invite(call)


def _invite(call: Context) -> str:
    return f"https://t.me/+playground{abs(call.chat)}"


def _agree(_: Context) -> bool:
    return True


for _name in ("leaveChat", "banChatMember", "unbanChatMember", "restrictChatMember", "promoteChatMember",
              "setChatTitle", "setChatDescription", "setMessageReaction"):  # fmt: skip
    method(_name, needs_chat=True)(_agree)
for _name in ("logOut", "close", "setMyName", "setMyDescription", "setMyShortDescription", "setChatMenuButton"):
    method(_name)(_agree)


# --- commands


def _scope(call: Context) -> str:
    """Commands are kept by scope and language."""
    return call.params.text("scope") + "|" + call.params.text("language_code")


@method("setMyCommands")
def set_my_commands(call: Context) -> bool:
    commands = call.params.json("commands")
    if not isinstance(commands, list) or not all(isinstance(each, dict) and each.get("command") for each in commands):
        raise bad_request("can't parse commands JSON array")
    call.bot.commands[_scope(call)] = commands
    call.world.events.publish("commands", bot=call.bot.id, commands=commands)
    return True


@method("getMyCommands")
def get_my_commands(call: Context) -> list[dict[str, Any]]:
    return call.bot.commands.get(_scope(call), [])


@method("deleteMyCommands")
def delete_my_commands(call: Context) -> bool:
    call.bot.commands.pop(_scope(call), None)
    return True


# --- files and queries


@method("getFile")
def get_file(call: Context) -> dict[str, Any]:
    file_id = call.params.text("file_id")
    upload = call.world.files.get(file_id)
    if upload is None:
        raise bad_request("invalid file_id")
    return {"file_id": file_id, "file_unique_id": file_id.rpartition("-")[2], "file_size": len(upload.content),
            "file_path": f"documents/{file_id}"}  # fmt: skip


def _close_query(call: Context, name: str) -> str:
    query = call.params.text(name)
    asked = call.bot.queries.pop(query, None)
    if asked is None or time.monotonic() - asked > QUERY_LIFETIME:
        raise bad_request("query is too old and response timeout expired or query ID is invalid")
    return query


@method("answerCallbackQuery")
def answer_callback_query(call: Context) -> bool:
    query = _close_query(call, "callback_query_id")
    call.world.events.publish(
        "answered", bot=call.bot.id, query=query, text=call.params.text("text"), alert=call.params.flag("show_alert")
    )
    return True


@method("answerInlineQuery")
def answer_inline_query(call: Context) -> bool:
    if not isinstance(call.params.json("results"), list):
        raise ApiError(400, "Bad Request: can't parse inline query results JSON array")
    _close_query(call, "inline_query_id")
    return True
