"""A running stand-in for each test, and ways to look at it from outside."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio

from bot.playground import Config, Playground, start_playground

TOKEN = "123456:test-token"
BOT = 123456


@pytest_asyncio.fixture
async def playground() -> AsyncIterator[Playground]:
    """A stand-in that retries webhooks a hundred times as fast as Telegram."""
    running = await start_playground(config=Config(token=TOKEN, bot_username="test_bot", retry_speed=100.0))
    yield running
    await running.close()


@pytest_asyncio.fixture
async def http(playground: Playground) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(playground.url) as session:
        yield session


@pytest.fixture
def call(http: aiohttp.ClientSession) -> Callable[..., Awaitable[dict]]:
    """`await call("sendMessage", chat_id=1, text="x")`: the answer's JSON, whatever its status."""

    async def run(method: str, **params: object) -> dict:
        async with http.post(f"/bot{TOKEN}/{method}", json=params) as answer:
            found = await answer.json()
            assert found["ok"] == (answer.status == 200)
            return found

    return run


@pytest.fixture
def control(http: aiohttp.ClientSession) -> Callable[..., Awaitable]:
    """`await control("PUT", "faults", [...])`: the answer's JSON; a refusal fails the test."""

    async def run(method: str, path: str, body: object = None) -> object:
        async with http.request(method, f"/playground/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json(content_type=None)

    return run


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
