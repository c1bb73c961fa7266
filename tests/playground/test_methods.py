"""The Bot API's methods: python-telegram-bot understands every answer, and refusals are worded as Telegram's."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import telegram
from telegram.ext import ExtBot

from bot.playground.entities import parse
from bot.playground.params import ApiError

from .conftest import BOT, TOKEN


@pytest_asyncio.fixture
async def ptb(playground) -> AsyncIterator[ExtBot]:
    async with ExtBot(TOKEN, base_url=f"{playground.url}/bot", base_file_url=f"{playground.url}/file/bot") as bot:
        yield bot


async def test_who_am_i(ptb):
    assert (ptb.bot.id, ptb.bot.username) == (BOT, "test_bot")


async def test_text_with_everything(ptb):
    first = await ptb.send_message(1, "<b>bold</b> 😀 <i>it</i>", parse_mode="HTML")
    assert [(each.type, each.offset, each.length) for each in first.entities] == [("bold", 0, 4), ("italic", 8, 2)]
    keyboard = telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Go", callback_data="go")]])
    second = await ptb.send_message(1, "x", reply_to_message_id=first.message_id, reply_markup=keyboard)
    assert second.message_id == first.message_id + 1
    assert second.reply_to_message.text == "bold 😀 it"
    assert second.reply_markup == keyboard
    assert (await ptb.send_message(-7, "x")).chat.type == "group"
    channel = (await ptb.send_message("@News_channel", "x")).chat
    assert (channel.type, channel.username) == ("channel", "News_channel")
    assert (await ptb.send_message(channel.id, "x")).chat == channel
    assert (await ptb.send_message(-1009999999999, "x")).chat.type == "supergroup"


async def test_every_other_send(ptb):
    for kind in ("photo", "document", "audio", "video", "voice", "animation", "video_note", "sticker"):
        sent = await getattr(ptb, f"send_{kind}")(1, b"content")
        assert getattr(sent, kind)
    assert (await ptb.send_photo(1, "https://example.org/a.png", caption="*c*", parse_mode="MarkdownV2")).caption == "c"
    assert (await ptb.send_location(1, 1.5, 2.5)).location.latitude == 1.5
    assert (await ptb.send_venue(1, 1, 2, "title", "address")).venue.title == "title"
    assert (await ptb.send_contact(1, "+123", "Ada")).contact.first_name == "Ada"
    assert 1 <= (await ptb.send_dice(1)).dice.value <= 6
    assert await ptb.send_chat_action(1, "typing") is True
    poll = await ptb.send_poll(1, "q?", ["a", "b"])
    assert (await ptb.stop_poll(1, poll.message_id)).is_closed


async def test_album_weighs_its_size(ptb, playground):
    album = await ptb.send_media_group(1, [telegram.InputMediaPhoto(b"a"), telegram.InputMediaPhoto("file-id")])
    assert [message.message_id for message in album] == [1, 2]
    assert next(playground.world.ledger.select(method="sendMediaGroup")).weight == 2


async def test_files_come_back(ptb):
    sent = await ptb.send_document(1, b"hello", filename="a.txt")
    assert sent.document.file_name == "a.txt"
    file = await ptb.get_file(sent.document.file_id)
    assert bytes(await file.download_as_bytearray()) == b"hello"


async def test_thumbnails_come_back(ptb):
    async def content(file_id: str) -> bytes:
        return bytes(await (await ptb.get_file(file_id)).download_as_bytearray())

    sent = await ptb.send_video(1, b"moving", thumbnail=b"small")
    assert (await content(sent.video.file_id), await content(sent.video.thumbnail.file_id)) == (b"moving", b"small")
    media = telegram.InputMediaDocument(b"text", filename="ä.txt", thumbnail=b"first page")
    [document, _] = await ptb.send_media_group(1, [media, telegram.InputMediaDocument(b"other")])
    assert document.document.file_name == "ä.txt"
    assert await content(document.document.thumbnail.file_id) == b"first page"
    changed = await ptb.edit_message_media(telegram.InputMediaVideo(b"new", thumbnail=b"n"), 1, sent.message_id)
    assert await content(changed.video.thumbnail.file_id) == b"n"


async def test_a_chats_photo_is_an_upload(ptb):
    assert await ptb.set_chat_photo(-7, b"pixels")
    with pytest.raises(telegram.error.BadRequest, match="no photo"):
        await ptb.set_chat_photo(-7, "file-id")


async def test_copies_and_forwards(ptb):
    first = await ptb.send_message(1, "x")
    copied = await ptb.copy_message(2, 1, first.message_id)
    assert copied.message_id == 1
    assert (await ptb.forward_message(2, 1, first.message_id)).forward_origin.sender_user.id == BOT
    assert len(await ptb.copy_messages(2, 1, [first.message_id, 99])) == 1
    assert len(await ptb.forward_messages(2, 1, [first.message_id])) == 1


async def test_edits_and_deletes(ptb):
    sent = await ptb.send_message(1, "x")
    edited = await ptb.edit_message_text("y", 1, sent.message_id)
    assert edited.text == "y"
    assert edited.edit_date
    with pytest.raises(telegram.error.BadRequest, match="not modified"):
        await ptb.edit_message_text("y", 1, sent.message_id)
    photo = await ptb.send_photo(1, b"p", caption="c")
    assert (await ptb.edit_message_caption(1, photo.message_id, caption="d")).caption == "d"
    changed = await ptb.edit_message_media(telegram.InputMediaDocument(b"d"), 1, photo.message_id)
    assert changed.document
    assert not changed.photo
    keyboard = telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Go", callback_data="go")]])
    assert (await ptb.edit_message_reply_markup(1, photo.message_id, reply_markup=keyboard)).reply_markup == keyboard
    assert await ptb.pin_chat_message(1, sent.message_id)
    assert (await ptb.get_chat(1)).pinned_message.message_id == sent.message_id
    assert await ptb.unpin_chat_message(1)
    assert await ptb.delete_message(1, sent.message_id)
    assert await ptb.delete_messages(1, [photo.message_id, 99])
    with pytest.raises(telegram.error.BadRequest, match="not found"):
        await ptb.delete_message(1, sent.message_id)


async def test_chats_and_members(ptb):
    assert (await ptb.get_chat(-7)).title == "Group 7"
    assert (await ptb.get_chat_member(-7, 5)).status == "member"
    assert (await ptb.get_chat_administrators(-7))[0].user.id == BOT
    assert await ptb.get_chat_member_count(1) == 2
    assert (await ptb.create_chat_invite_link(-7)).invite_link.startswith("https://t.me/")
    assert await ptb.export_chat_invite_link(-7)
    for done in (ptb.ban_chat_member(-7, 5), ptb.unban_chat_member(-7, 5), ptb.leave_chat(-7), ptb.log_out()):
        assert await done is True
    await ptb.set_my_commands([("start", "begin")])
    assert (await ptb.get_my_commands())[0].command == "start"


@pytest.mark.parametrize(
    ("method", "params", "code", "description"),
    [
        ("sendMessage", {"text": "x"}, 400, "Bad Request: chat_id is empty"),
        ("sendMessage", {"chat_id": "x y", "text": "x"}, 400, "Bad Request: chat not found"),
        ("sendMessage", {"chat_id": 1}, 400, "Bad Request: message text is empty"),
        ("sendMessage", {"chat_id": 1, "text": " \n"}, 400, "Bad Request: message text is empty"),
        ("sendMessage", {"chat_id": 1, "text": "x" * 4097}, 400, "Bad Request: message is too long"),
        ("sendPhoto", {"chat_id": 1, "photo": "f", "caption": "x" * 1025}, 400,
         "Bad Request: message caption is too long"),
        ("sendMessage", {"chat_id": 1, "text": "<b>x", "parse_mode": "HTML"}, 400,
         'Bad Request: can\'t parse entities: Can\'t find end tag corresponding to start tag "b" at byte offset 0'),
        ("sendMessage", {"chat_id": 1, "text": "x", "reply_to_message_id": 9}, 400,
         "Bad Request: message to be replied not found"),
        ("sendMessage", {"chat_id": 1, "text": "x", "reply_markup": "{"}, 400,
         "Bad Request: can't parse reply markup JSON object"),
        ("deleteMessages", {"chat_id": 1, "message_ids": ["a"]}, 400,
         "Bad Request: a parameter has the wrong form"),
        ("answerCallbackQuery", {"callback_query_id": "1"}, 400,
         "Bad Request: query is too old and response timeout expired or query ID is invalid"),
        ("sendNonsense", {"chat_id": 1}, 404, "Not Found"),
    ],
)  # fmt: skip
async def test_refusals(call, method, params, code, description):
    answer = await call(method, **params)
    assert (answer["error_code"], answer["description"]) == (code, description)


@pytest.mark.parametrize(("token", "status"), [("abc", 404), ("12:a b", 401), ("0:abc", 401), (":", 401)])
async def test_tokens(http, token, status):
    async with http.get(f"/bot{token}/getMe") as answer:
        assert answer.status == status


async def test_unknown_parameters_are_ignored(call):
    assert (await call("sendMessage", chat_id=1, text="x", of_tomorrow=True))["ok"]


@pytest.mark.parametrize(
    ("mode", "source", "text", "found"),
    [
        ("HTML", "a &lt; <b>b<i>c</i></b>", "a < bc", [("bold", 4, 2), ("italic", 5, 1)]),
        ("HTML", '<a href="http://x">l</a>', "l", [("text_link", 0, 1)]),
        ("HTML", "<pre>a</pre>", "a", [("pre", 0, 1)]),
        ("Markdown", "*b* _i_ `c` \\*", "b i c *", [("bold", 0, 1), ("italic", 2, 1), ("code", 4, 1)]),
        ("MarkdownV2", "__u__ ||s|| ~t~", "u s t", [("underline", 0, 1), ("spoiler", 2, 1), ("strikethrough", 4, 1)]),
        ("MarkdownV2", "[l](http://x) 1\\.", "l 1.", [("text_link", 0, 1)]),
        ("MarkdownV2", "```py\nx=1```", "x=1", [("pre", 0, 3)]),
        ("MarkdownV2", ">q\nr", "q\nr", [("blockquote", 0, 2)]),
    ],
)
def test_entities(mode, source, text, found):
    plain, entities = parse(source, mode)
    assert plain == text
    assert [(each["type"], each["offset"], each["length"]) for each in entities] == found


@pytest.mark.parametrize(
    ("mode", "source", "reason"),
    [
        ("HTML", "<x>", 'Unsupported start tag "x" at byte offset 0'),
        ("HTML", "<b><i></b>", 'Unmatched end tag at byte offset 6, expected "</i>", found "</b>"'),
        ("Markdown", "ä *b", "Can't find end of Bold entity at byte offset 3"),
        ("MarkdownV2", "1.", "Character '.' is reserved and must be escaped"),
        ("MarkdownV2", "[l]", "Can't find end of a URL at byte offset 3"),
        ("YAML", "x", "unsupported parse_mode"),
    ],
)
def test_broken_entities(mode, source, reason):
    with pytest.raises(ApiError) as raised:
        parse(source, mode)
    assert reason in raised.value.description
