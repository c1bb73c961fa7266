"""The lanes of an update's JSON are those of PTB's effective_chat and effective_user, for every kind of update."""

from typing import Any

import pytest
from telegram import Update
from telegram.constants import UpdateType

from bot.lanes import NO_LANE, lane_of, lanes_of, update_message

PERSON = {"id": 7, "first_name": "Ada", "is_bot": False}
OTHER = {"id": 8, "first_name": "Bob", "is_bot": True}
CHAT = {"id": -100123, "type": "supergroup", "title": "x"}
MESSAGE = {"message_id": 1, "date": 1, "chat": CHAT, "from": PERSON, "text": "hi"}
POST = {"message_id": 1, "date": 1, "chat": CHAT, "sender_chat": CHAT, "text": "hi"}
MEMBER = {"chat": CHAT, "from": PERSON, "date": 1}
LEFT = {"status": "left", "user": OTHER}
BOOST_SOURCE = {"source": "premium", "user": PERSON}
QUERY = {"id": "1", "from": PERSON, "chat_instance": "1", "data": "x"}
POLL = {
    "id": "1", "question": "?", "options": [], "total_voter_count": 0, "is_closed": False, "is_anonymous": True,
    "type": "regular", "allows_multiple_answers": False, "allows_revoting": False, "members_only": False,
}  # fmt: skip

CASES: dict[str, list[dict[str, Any]]] = {
    "message": [MESSAGE, {**MESSAGE, "chat": {"id": 7, "type": "private"}}, POST],
    "edited_message": [MESSAGE],
    "channel_post": [POST, MESSAGE],
    "edited_channel_post": [POST],
    "business_connection": [
        {"id": "b", "user": PERSON, "user_chat_id": 9, "date": 1, "can_reply": True, "is_enabled": True}
    ],
    "business_message": [MESSAGE],
    "edited_business_message": [MESSAGE],
    "deleted_business_messages": [{"business_connection_id": "b", "chat": CHAT, "message_ids": [1]}],
    "guest_message": [MESSAGE],
    "message_reaction": [
        {"chat": CHAT, "message_id": 1, "date": 1, "old_reaction": [], "new_reaction": [], "user": PERSON},
        {"chat": CHAT, "message_id": 1, "date": 1, "old_reaction": [], "new_reaction": [], "actor_chat": CHAT},
    ],
    "message_reaction_count": [{"chat": CHAT, "message_id": 1, "date": 1, "reactions": []}],
    "inline_query": [{"id": "1", "from": PERSON, "query": "", "offset": ""}],
    "chosen_inline_result": [{"result_id": "1", "from": PERSON, "query": ""}],
    "callback_query": [
        {**QUERY, "message": MESSAGE},
        {**QUERY, "message": {"chat": CHAT, "message_id": 1, "date": 0}},
        {**QUERY, "inline_message_id": "x"},
    ],
    "shipping_query": [{"id": "1", "from": PERSON, "invoice_payload": "", "shipping_address": {
        "country_code": "", "state": "", "city": "", "street_line1": "", "street_line2": "", "post_code": "",
    }}],
    "pre_checkout_query": [{"id": "1", "from": PERSON, "currency": "EUR", "total_amount": 1, "invoice_payload": ""}],
    "purchased_paid_media": [{"from": PERSON, "paid_media_payload": ""}],
    "poll": [POLL],
    "poll_answer": [
        {"poll_id": "1", "user": PERSON, "option_ids": [], "option_persistent_ids": []},
        {"poll_id": "1", "voter_chat": CHAT, "option_ids": [], "option_persistent_ids": []},
    ],
    "my_chat_member": [{**MEMBER, "old_chat_member": LEFT, "new_chat_member": LEFT}],
    "chat_member": [{**MEMBER, "old_chat_member": LEFT, "new_chat_member": LEFT}],
    "chat_join_request": [{**MEMBER, "user_chat_id": 9}],
    "chat_boost": [
        {"chat": CHAT, "boost": {"boost_id": "1", "add_date": 1, "expiration_date": 2, "source": BOOST_SOURCE}}
    ],
    "removed_chat_boost": [{"chat": CHAT, "boost_id": "1", "remove_date": 1, "source": BOOST_SOURCE}],
    "managed_bot": [{"user": PERSON, "bot": OTHER}],
}  # fmt: skip


def test_all_kinds_of_updates_that_ptb_knows_are_tried() -> None:
    assert set(CASES) == {kind.value for kind in UpdateType}


@pytest.mark.parametrize(("kind", "content"), [(kind, content) for kind, many in CASES.items() for content in many])
def test_rule_20_the_lanes_are_the_chat_and_the_user_whose_state_handlers_see(
    kind: str, content: dict[str, Any]
) -> None:
    fields = {"update_id": 1, kind: content}
    update = Update.de_json(fields, None)
    assert getattr(update, kind) is not None
    chat, user = update.effective_chat, update.effective_user
    assert lanes_of(fields) == (str(chat.id) if chat else None, str(user.id) if user else None)


@pytest.mark.parametrize(
    ("fields", "lane", "also"),
    [
        ({"message": MESSAGE}, "-100123", "7"),
        ({"message": {**MESSAGE, "chat": {"id": 7}}}, "7", "7"),
        ({"inline_query": {"from": PERSON}}, "7", "7"),
        ({"channel_post": POST}, "-100123", None),
        ({"poll": POLL}, NO_LANE, None),
        ({"message": {"chat": "nonsense", "from": [1]}}, NO_LANE, None),
        ({"message": {"chat": {"id": True}, "from": {"id": 2**53}}}, NO_LANE, None),
        ({"message": None}, NO_LANE, None),
        ({"something_new": {"chat": {"id": 5}}}, NO_LANE, None),
    ],
)
def test_what_an_update_holds(fields: dict[str, Any], lane: str, also: str | None) -> None:
    message = update_message("1", 17, {"update_id": 17, **fields})
    assert (message.id, message.chat, message.also) == ("u17", lane, also)
    assert message.body == {"update": {"update_id": 17, **fields}}


@pytest.mark.parametrize(
    ("about", "lane"),
    [({"id": 7}, "7"), ({"id": -100}, "-100"), ({"id": True}, None), ({"id": 2**53}, None), ({"id": "7"}, None)]
    + [(nobody, None) for nobody in (None, {}, [7], "7")],
)
def test_whom_a_user_or_a_chat_names(about: object, lane: str | None) -> None:
    """Also in the origin of a failed send, which any program may have pushed."""
    assert lane_of(about) == lane
