"""The bot itself: who it is, told once for all processes; its token, told to nobody."""

import logging
from collections.abc import AsyncIterator

import pytest
from telegram.error import InvalidToken, NetworkError
from telegram.ext import Defaults

from bot.outbox import Outbox
from bot.playground import Playground
from bot.queued_bot import GetMeCache, QueuedBot
from bot.transport import AiohttpRequest
from queueing.memory_queue import MemoryQueue
from tests.bot.raw_server import RawServer, refuse

BOT = "110201543"
TOKEN = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
SECRET = TOKEN.partition(":")[2]


class Kept:
    """A cache of getMe in memory."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text

    async def load(self) -> str | None:
        return self.text

    async def save(self, text: str) -> None:
        self.text = text

    @property
    def cache(self) -> GetMeCache:
        return GetMeCache(self.load, self.save)


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(queue_max=5)


def make_bot(url: str, queue: MemoryQueue, kept: Kept | None = None, defaults: Defaults | None = None) -> QueuedBot:
    return QueuedBot(
        TOKEN,
        api_url=url,
        outbox=Outbox(queue, lambda event: None, BOT),
        request=AiohttpRequest(5.0),
        get_me_cache=(kept or Kept()).cache,
        defaults=defaults,
    )


@pytest.fixture
async def bot(playground: Playground, queue: MemoryQueue) -> AsyncIterator[QueuedBot]:
    async with make_bot(playground.url, queue) as bot:
        yield bot


def methods(playground: Playground) -> list[str]:
    ledger = playground.world.ledger
    return [ledger[seq].method for seq in range(len(ledger))]


async def test_one_process_asks_who_it_is_and_the_others_read_it(playground: Playground, queue: MemoryQueue) -> None:
    kept = Kept()
    names = []
    for _ in range(3):
        async with make_bot(playground.url, queue, kept) as bot:
            names.append((bot.id, bot.username))
    assert methods(playground) == ["getMe"]
    assert names == [names[0]] * 3
    assert names[0][0] == int(BOT)


async def test_who_asks_telegram_gets_its_answer(playground: Playground, queue: MemoryQueue) -> None:
    kept = Kept()
    async with make_bot(playground.url, queue, kept) as bot:
        kept.text = None
        assert (await bot.get_me()).id == int(BOT)
    assert methods(playground) == ["getMe", "getMe"]
    assert kept.text


async def test_what_another_bot_left_in_the_cache_is_not_believed(playground: Playground, queue: MemoryQueue) -> None:
    kept = Kept('{"id": 999, "is_bot": true, "first_name": "Other", "username": "other_bot"}')
    async with make_bot(playground.url, queue, kept) as bot:
        assert bot.id == int(BOT)


async def test_a_refused_token_is_not_told(queue: MemoryQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with RawServer(refuse(401, "Unauthorized")) as server:
        bot = make_bot(server.url, queue)
        with pytest.raises(InvalidToken, match=f"bot {BOT}") as caught:
            await bot.initialize()
        await bot.shutdown()
    assert caught.value.__context__ is None
    assert SECRET not in str(caught.value) + repr(bot) + str(bot) + caplog.text


async def test_telegram_being_away_is_a_network_error(queue: MemoryQueue) -> None:
    async with RawServer(refuse(401, "Unauthorized")) as server:
        url = server.url
    bot = make_bot(url, queue)
    with pytest.raises(NetworkError):
        await bot.initialize()
    await bot.shutdown()
