"""/broadcast, as an admin uses it, on the whole application with the shared queue."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from telegram import Chat, Message, MessageEntity

from bot.broadcast_handlers import CANCEL, SEND, USAGE, describe, text_after_command
from bot.broadcasts import Progress, Status
from bot.playground import Playground
from bot.playground.people import Deed, Press, perform
from queueing.limits import OFF
from tests.bot.served import BOT, application, say, sent_texts, settings_for
from tests.conftest import wait_until

ADMIN, GROUP, STRANGER = 42, -77, 43
SUBSCRIBERS = f"{{telegram_messages}}:subscribers:{BOT}"


@pytest.fixture
async def client(
    playground: Playground, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr("bot.spreading._SHOWN_EVERY", 0.05)
    quick = {"rate_chat": OFF, "rate_global": OFF, "rate_group": OFF, "admin_chat_ids": (ADMIN, GROUP)}
    async with application(settings_for(playground.url, redis_url, **quick)) as client:
        yield client


def messages(playground: Playground, chat: int) -> list[dict[str, Any]]:
    """What the bot has said there, as it is now."""
    bot = playground.world.bots[int(BOT)]
    ids = {call.message_id for call in playground.world.ledger.select(method="sendMessage", chat=chat)}
    return [message for id in sorted(ids) if (message := bot.message(chat, id))]


async def answer(playground: Playground, chat: int, beginning: str) -> dict[str, Any]:
    """The bot's last message in a chat, once it begins so."""

    def is_there() -> bool:
        said = messages(playground, chat)
        return bool(said and said[-1]["text"].startswith(beginning))

    await wait_until(is_there, f"{beginning!r} in {chat}")
    return messages(playground, chat)[-1]


def buttons(message: dict[str, Any]) -> dict[str, str]:
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    return {button["text"]: button["callback_data"] for row in rows for button in row}


def press(playground: Playground, message: dict[str, Any], data: str, user: int = ADMIN) -> None:
    chat = message["chat"]["id"]
    deed = Deed(chat=chat, user=user, press=Press(message["message_id"], data))
    perform(playground.world, playground.world.bots[int(BOT)], deed)


async def test_a_broadcast_from_its_text_to_its_end(
    client: httpx.AsyncClient, playground: Playground, redis: Redis
) -> None:
    await redis.sadd(SUBSCRIBERS, *range(1, 31))
    say(playground, ADMIN, "/broadcast Hello all,\nit is spring.")
    asked = await answer(playground, ADMIN, "Send this to 30 subscribers?")
    assert list(buttons(asked)) == ["Send", "Cancel"]
    for _ in range(2):  # pressed twice, it is sent once
        press(playground, asked, buttons(asked)["Send"])
    over = await answer(playground, ADMIN, "The broadcast is over.\n30 of 30 sent.")
    assert over["message_id"] == asked["message_id"], "the question became the progress"
    assert not buttons(over)
    for chat in range(1, 31):
        assert sent_texts(playground, chat) == ["Hello all,\nit is spring."]
    (listed,) = (await client.get("/api/v1/broadcasts")).json()["broadcasts"]
    assert (listed["status"], listed["sent"]) == ("done", 30)


async def test_it_is_shown_while_it_goes_on_and_called_back_by_its_button(
    client: httpx.AsyncClient, playground: Playground, redis: Redis
) -> None:
    await redis.sadd(SUBSCRIBERS, *range(1, 31))
    for chat in range(1, 31):
        await client.post("/api/v1/pause", json={"bot": BOT, "chat_id": chat})
    say(playground, GROUP, "/broadcast hi", user=ADMIN)
    asked = await answer(playground, GROUP, "Send this to 30 subscribers?")
    press(playground, asked, buttons(asked)["Send"])
    going = await answer(playground, GROUP, "The broadcast goes on: 0 %.\n0 of 30 sent.")
    await client.post("/api/v1/resume", json={"bot": BOT, "chat_id": 7})
    going = await answer(playground, GROUP, "The broadcast goes on: 3 %.\n1 of 30 sent.")
    assert list(buttons(going)) == ["Cancel"]
    press(playground, going, buttons(going)["Cancel"])
    ending = await answer(playground, GROUP, "The broadcast is being cancelled.")
    assert not buttons(ending)
    for chat in range(1, 31):
        await client.post("/api/v1/resume", json={"bot": BOT, "chat_id": chat})
    await answer(playground, GROUP, "The broadcast was cancelled.\n1 of 30 sent, 29 cancelled.")

    async def forgotten() -> bool:
        return not await redis.exists(f"{{telegram_messages}}:running:{BOT}")

    await wait_until(forgotten, "nobody to look after it any more")


async def test_no_is_an_answer(client: httpx.AsyncClient, playground: Playground, redis: Redis) -> None:
    await redis.sadd(SUBSCRIBERS, 1)
    say(playground, ADMIN, "/broadcast hi")
    asked = await answer(playground, ADMIN, "Send this to 1 subscriber?")
    press(playground, asked, buttons(asked)["Cancel"])
    await answer(playground, ADMIN, "Nothing was sent.")
    press(playground, asked, buttons(asked)["Send"])
    say(playground, ADMIN, "/ping")
    await answer(playground, ADMIN, "pong")
    assert sent_texts(playground, 1) == []


async def test_without_a_text_or_a_reader(client: httpx.AsyncClient, playground: Playground) -> None:
    say(playground, ADMIN, "/broadcast")
    await answer(playground, ADMIN, USAGE)
    say(playground, ADMIN, "/broadcast hi")
    await answer(playground, ADMIN, "Nobody has subscribed yet.")


async def test_others_may_not(client: httpx.AsyncClient, playground: Playground, redis: Redis) -> None:
    await redis.sadd(SUBSCRIBERS, 1)
    say(playground, STRANGER, "/broadcast hi")
    unknown = await answer(playground, STRANGER, "I don't know that command.")
    say(playground, ADMIN, "/broadcast hi")
    asked = await answer(playground, ADMIN, "Send this")
    press(playground, unknown, buttons(asked)["Send"], STRANGER)  # whatever a client makes up
    press(playground, unknown, buttons(asked)["Cancel"], STRANGER)

    def refused() -> bool:
        return sum(1 for _ in playground.world.ledger.select(method="answerCallbackQuery")) == 2

    await wait_until(refused, "both presses to be answered")
    assert (await client.get("/api/v1/broadcasts")).json() == {"broadcasts": []}
    press(playground, asked, buttons(asked)["Send"])
    await answer(playground, ADMIN, "The broadcast is over.\n1 of 1 sent.")


async def test_who_throws_the_bot_out_is_no_subscriber_any_more(
    client: httpx.AsyncClient, playground: Playground, redis: Redis
) -> None:
    await redis.sadd(SUBSCRIBERS, 1, -5, 9)
    for chat, status in ((1, "kicked"), (-5, "left"), (9, "member")):
        bot = {"id": int(BOT), "is_bot": True, "first_name": "x"}
        member = {"user": bot, "status": status} | ({"until_date": 0} if status == "kicked" else {})
        content = {
            "chat": {"id": chat, "type": "private" if chat > 0 else "group"},
            "from": {"id": 1, "is_bot": False, "first_name": "Ada"},
            "date": 1,
            "old_chat_member": {"user": bot, "status": "member"},
            "new_chat_member": member,
        }
        deed = Deed(chat=chat, kind="my_chat_member", content=content)
        perform(playground.world, playground.world.bots[int(BOT)], deed)

    async def left() -> bool:
        return bool(await redis.smembers(SUBSCRIBERS) == {"9"})

    await wait_until(left, "two to be unsubscribed")


@pytest.mark.parametrize(
    ("text", "rest"), [("/broadcast", ""), ("/broadcast@bot  hi", "hi"), ("/broadcast\n\nhi  all", "hi  all")]
)
def test_the_text_behind_a_command(text: str, rest: str) -> None:
    assert text_after_command(message(text)) == (rest, [])


def test_its_markup_stays() -> None:
    entities = [
        MessageEntity("bot_command", 0, 10),
        MessageEntity("bold", 11, 2),
        MessageEntity("text_link", 17, 4, url="https://example.org"),
    ]
    text, kept = text_after_command(message("/broadcast hi 😀 look", entities))
    assert text == "hi 😀 look"
    assert [(entity["type"], entity["offset"], entity["length"]) for entity in kept] == [
        ("bold", 0, 2),
        ("text_link", 6, 4),
    ]
    assert kept[1]["url"] == "https://example.org"


def message(text: str, entities: list[MessageEntity] | None = None) -> Message:
    return Message(1, None, Chat(1, "private"), text=text, entities=entities or [])  # type: ignore[arg-type]


def progress(status: Status, **counts: int) -> Progress:
    names = ("total", "waiting", "sent", "blocked", "failed", "cancelled", "expired")
    given: Any = {name: counts.get(name, 0) for name in names}
    return Progress(id="x", status=status, created_at=0.0, started_at=0.0, finished_at=None, text="hi", **given)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (
            progress(Status.SPREADING, total=3000, waiting=1500, sent=1400, blocked=100),
            "50 %.\n1,400 of 3,000 sent, 100 b",
        ),
        (progress(Status.DONE), "is over.\n0 of 0 sent."),
        (progress(Status.DONE, total=9, sent=5, failed=3, expired=1), "is over.\n5 of 9 sent, 3 failed, 1 expired."),
        (progress(Status.CANCELLED, total=9, waiting=8, sent=1), "is being cancelled.\n1 of 9 sent."),
    ],
)
def test_progress_in_words(one: Progress, words: str) -> None:
    assert words in describe(one)


def test_what_a_button_brings_back_is_short_enough() -> None:
    assert max(len(SEND), len(CANCEL)) + len("m" + "0" * 24) <= 64


async def test_without_the_shared_queue_an_admin_is_told_what_is_missing(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with application(settings_for(playground.url, admin_chat_ids=(ADMIN,))):
        say(playground, ADMIN, "/broadcast hi")
        await answer(playground, ADMIN, "Broadcasts need the shared queue")
