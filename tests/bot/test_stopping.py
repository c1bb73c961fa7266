"""The end of a process: each part of it has its time, and gunicorn waits for all of them."""

import asyncio
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from telegram import Update
from telegram.ext import TypeHandler

from bot.playground import Playground
from bot.playground.faults import Fault
from bot.stopping import EMPTYING, LAST_HANDLERS, LAST_REQUESTS, graceful_seconds
from tests.bot.served import Gunicorn, processes, say, sent_texts, settings_for
from tests.conftest import wait_until


def hanging(application: Any) -> None:
    """A bot whose handlers never end."""
    application.add_handler(TypeHandler(Update, hang))


async def hang(_update: object, _context: object) -> None:
    await asyncio.Event().wait()


def test_a_stop_may_take_as_long_as_its_parts_together(redis_url: str) -> None:
    times = {"send_timeout": 3.0, "redis_timeout": 1.0}
    parts = LAST_REQUESTS + LAST_HANDLERS + 3 + 2 * 1
    assert parts < graceful_seconds(settings_for("http://127.0.0.1:1", redis_url, **times)) < parts + 5
    own = settings_for("http://127.0.0.1:1", None, **times)
    assert graceful_seconds(own) > parts + EMPTYING


async def test_handlers_that_hang_do_not_cut_off_sends(
    playground: Playground, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    """While they get their time, sending goes on; what is under way at the end of that ends, too."""
    playground.world.faults.add(Fault(kind="latency", method="sendMessage", ms=500), None)
    short = {"SEND_TIMEOUT": "1s", "REDIS_TIMEOUT": "0.5s", "RATE_GLOBAL": "off", "RATE_CHAT": "off"}
    gunicorn = Gunicorn(
        tmp_path, playground.url, redis_url, processes=1, BOT_APP="tests.bot.test_stopping:hanging", **short
    )
    async with processes(gunicorn):
        say(playground, 42, "hello")

        async def handled() -> bool:
            return bool(await redis.keys("{telegram_messages}:updates:*:held:*"))

        await wait_until(handled, "the handler to hang")
        await redis.rpush("telegram_messages", *(f'{{"chat_id": {n}, "text": "{n}"}}' for n in range(1, 500)))
        await wait_until(lambda: bool(sent_texts(playground)), "sending to begin")
    assert gunicorn.master.returncode == 0
    counted = await redis.hmget("{telegram_messages}:totals", ["sent", "uncertain"])
    assert counted == [str(len(sent_texts(playground))), None]
    assert not await redis.keys("{telegram_messages}:held:*")
