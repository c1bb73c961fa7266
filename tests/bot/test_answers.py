"""Answers of a chat backend, as a person sees them: they grow, arrive whole, and wait their turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegram import Update
from telegram.ext import BaseRateLimiter, ExtBot

from bot import texts
from bot.answers import MOST, growing, split, units
from bot.application import Builder, Parts, TelequeueApplication
from bot.chat import ChatBackend
from bot.handlers import add_handlers
from bot.line import AT_ONCE, LONGEST, MemoryLine
from bot.playground import Playground
from bot.services import Services
from queueing.contract import QueueStats
from queueing.limits import OFF, RateLimits
from tests.bot.chat_server import ChatServer, chat_server
from tests.bot.served import BOT, TOKEN, say, sent_texts, settings_for
from tests.bot.served import application as app_of
from tests.conftest import wait_until

ADA, GROUP = 1001, -1001234


class Direct(BaseRateLimiter[Any]):
    """Lets everything through at once."""

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def process_request(
        self, callback: Callable[..., Any], args: Any, kwargs: Any, endpoint: str, data: Any, rate_limit_args: Any
    ) -> Any:
        return await callback(*args, **kwargs)


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as server:
        yield server


@pytest.fixture
async def application(
    playground: Playground, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TelequeueApplication]:
    """Our bot, with PTB's own way to Telegram."""
    monkeypatch.setattr("bot.answers._PRIVATE", 0.02)
    monkeypatch.setattr("bot.answers._GROUP", 0.02)
    monkeypatch.setattr("bot.line._LOOK_EVERY", 0.01)

    async def stats() -> QueueStats:
        return QueueStats()

    chat = ChatBackend(server.url, "small")
    bot = ExtBot(TOKEN, base_url=f"{playground.url}/bot", rate_limiter=Direct())
    application = Builder(
        Parts(lambda **said: bot, Services(stats, RateLimits(), MemoryLine(), chat), shared=True)
    ).build()
    add_handlers(application)
    async with application:
        yield application
    await chat.close()


def update(application: TelequeueApplication, number: int, text: str, chat: int) -> Update:
    kind = "private" if chat > 0 else "supergroup"
    entities = [{"type": "bot_command", "offset": 0, "length": len(text)}] if text.startswith("/") else []
    message = {
        "message_id": number,
        "date": 1,
        "chat": {"id": chat, "type": kind, "first_name": "A", "title": "A"},
        "from": {"id": 1001, "is_bot": False, "first_name": "Ada"},
        "text": text,
        "entities": entities,
    }
    return Update.de_json({"update_id": number, "message": message}, application.bot)


class Talk:
    """What people say to the bot, and what it shows them."""

    def __init__(self, application: TelequeueApplication, playground: Playground) -> None:
        self._application = application
        self._playground = playground
        self._updates = 0

    async def say(self, text: str, chat: int = ADA) -> None:
        self._updates += 1
        await self._application.process_update(update(self._application, self._updates, text, chat))

    def sent(self, chat: int = ADA) -> list[str]:
        return [call.text for call in self._playground.world.ledger.select(method="sendMessage", chat=chat)]

    def seen(self, chat: int = ADA) -> list[str]:
        """The messages that are in the chat now."""
        bot = self._playground.world.bots[int(BOT)]
        found = [bot.message(chat, number) for number in range(1, 100)]
        return [message["text"] for message in found if message]

    def edits(self, chat: int = ADA) -> list[str]:
        return [call.text for call in self._playground.world.ledger.select(method="editMessageText", chat=chat)]


@pytest.fixture
def talk(application: TelequeueApplication, playground: Playground) -> Talk:
    return Talk(application, playground)


async def test_an_answer_grows_and_arrives_whole(talk: Talk, server: ChatServer) -> None:
    server.pause = 0.02
    server.answer = lambda question: [f"{n} " for n in range(20)]
    await talk.say("count")
    assert talk.sent() == ["…"]
    *shown, last = talk.edits()
    assert last == " ".join(map(str, range(20)))
    assert shown
    assert all(piece.endswith(" …") and last.startswith(piece[:-2]) for piece in shown)
    assert [len(piece) for piece in shown] == sorted(len(piece) for piece in shown)


async def test_it_knows_what_was_said_before(talk: Talk, server: ChatServer) -> None:
    await talk.say("first")
    await talk.say("second")
    said = [(turn["role"], turn["content"]) for turn in server.asked[-1]["messages"][1:]]
    assert said == [("user", "first"), ("assistant", "You said first."), ("user", "second")]
    assert server.asked[-1]["messages"][0]["role"] == "system"
    await talk.say("elsewhere", chat=7)
    assert len(server.asked[-1]["messages"]) == 2
    await talk.say("/new")
    await talk.say("third")
    assert len(server.asked[-1]["messages"]) == 2


async def test_it_does_not_remember_for_ever(talk: Talk, server: ChatServer) -> None:
    for number in range(10):
        await talk.say(f"{number}")
    turns = server.asked[-1]["messages"][1:]
    assert len(turns) == 13
    assert turns[0] == {"role": "user", "content": "3"}
    server.answer = lambda question: ["x" * 13_000]
    await talk.say("long")
    await talk.say("short")
    assert len(server.asked[-1]["messages"]) == 4


async def test_a_long_answer_is_several_messages(talk: Talk, server: ChatServer) -> None:
    lines = [f"line {n}\n" for n in range(1000)]
    server.answer = lambda question: lines
    await talk.say("much")
    parts = talk.seen()
    assert len(parts) == 3
    assert "\n".join(parts) == "".join(lines).strip()
    assert all(units(part) <= MOST for part in parts)


@pytest.mark.parametrize(("status", "raw"), [(500, None), (200, b"data: {nonsense\n\n"), (200, b"data: [DONE]\n\n")])
async def test_a_backend_that_fails_gets_a_polite_answer(
    status: int, raw: bytes | None, talk: Talk, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.status, server.raw = status, raw
    await talk.say("hi")
    assert talk.edits() == [texts.NO_ANSWER]
    assert len(server.asked) == 1
    assert "chat backend" in caplog.text
    server.status, server.raw = 200, None
    await talk.say("again")
    assert len(server.asked[-1]["messages"]) == 2, "what was not answered is no part of the conversation"


async def test_an_answer_that_breaks_off(talk: Talk, server: ChatServer) -> None:
    server.broken = True
    await talk.say("hi")
    assert talk.edits()[-1] == f"You said hi.\n\n{texts.BROKE_OFF}"


async def test_who_has_to_wait_is_told_the_place_in_line(talk: Talk, server: ChatServer) -> None:
    server.gate = asyncio.Event()
    asked = [asyncio.create_task(talk.say("hi", chat)) for chat in range(1, AT_ONCE + 1)]
    await wait_until(lambda: server.open == AT_ONCE, "the first questions")
    late = asyncio.create_task(talk.say("late", 50))
    await wait_until(lambda: talk.sent(50) == [texts.in_line(1)], "the place")
    later = asyncio.create_task(talk.say("later", 51))
    await wait_until(lambda: talk.sent(51) == [texts.in_line(2)], "the place")
    await talk.say("/status", 60)
    assert "I am answering 4 questions; 2 wait in line" in talk.sent(60)[0]
    asked[0].cancel()  # its process ends
    await wait_until(lambda: talk.edits(51) == [texts.in_line(1)], "the move")
    await wait_until(lambda: len(server.asked) == AT_ONCE + 1, "the next question")
    await wait_until(lambda: talk.edits(50) == ["…"], "the turn to be seen")
    server.gate.set()
    await asyncio.gather(late, later, *asked[1:])
    assert talk.edits(50)[-1] == "You said late."
    assert talk.edits(51)[-1] == "You said later."


async def test_a_line_that_is_too_long(talk: Talk, server: ChatServer) -> None:
    server.gate = asyncio.Event()
    asked = [asyncio.create_task(talk.say("hi", chat)) for chat in range(1, AT_ONCE + LONGEST + 1)]
    await wait_until(lambda: all(talk.sent(chat) for chat in range(1, AT_ONCE + LONGEST + 1)), "all to have a place")
    await talk.say("one more", 99)
    assert talk.sent(99) == [texts.TOO_MANY]
    server.gate.set()
    await asyncio.gather(*asked)


async def test_in_a_group_it_is_seen_who_is_answered(talk: Talk, playground: Playground) -> None:
    await talk.say("hi", GROUP)
    assert talk.edits(GROUP) == ["You said hi."]


@pytest.mark.parametrize("shared", [True, False])
async def test_through_either_queue(
    shared: bool,
    playground: Playground,
    server: ChatServer,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("bot.answers._PRIVATE", 0.05)
    server.pause, server.answer = 0.05, lambda question: [f"{n} " for n in range(20)]
    url = redis_url if shared else None
    settings = settings_for(playground.url, url, chat_api_url=server.url, chat_model="small", rate_chat=OFF)

    def edits() -> list[str]:
        calls = playground.world.ledger.select(method="editMessageText", chat=ADA)
        return [call.text for call in calls if call.taken]

    async with app_of(settings):
        say(playground, ADA, "count")
        await wait_until(lambda: edits()[-1:] == [" ".join(map(str, range(20)))], "the answer")
    assert len(edits()) > 3
    assert sent_texts(playground, ADA) == ["…"]


@given(st.text(min_size=1, max_size=200), st.integers(1, 400))
def test_parts_hold_everything_and_fit(text: str, times: int) -> None:
    whole = text * times
    parts = split(whole)
    assert parts
    assert all(0 < units(part) <= MOST for part in parts)
    if whole.strip():
        assert "".join("".join(parts).split()) == "".join(whole.split())


@given(st.text(max_size=9000))
def test_what_grows_always_fits(text: str) -> None:
    assert 0 < units(growing(text)) <= MOST
