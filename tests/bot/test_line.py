"""The line of those who ask: a few at once, the others in order, whichever process they are in."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bot.line import AT_ONCE, LONGEST, Line, MemoryLine, Place, RedisLine
from bot.store import connect
from tests.conftest import wait_until


@pytest.fixture(params=["memory", "redis"])
async def line(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Line]:
    if request.param == "memory":
        yield MemoryLine()
        return
    client = connect(redis_url, 5.0)
    yield RedisLine(client, "8081")
    await client.aclose()


async def fill(line: Line, count: int) -> list[int | None]:
    return [await line.place(f"{n}") for n in range(count)]


async def test_a_few_at_once_and_the_others_in_order(line: Line) -> None:
    assert await fill(line, AT_ONCE + 3) == [0] * AT_ONCE + [1, 2, 3]
    assert await line.length() == AT_ONCE + 3


async def test_a_place_is_kept_and_moves_up(line: Line) -> None:
    await fill(line, AT_ONCE + 3)
    await line.leave("2")
    assert await line.place(f"{AT_ONCE + 2}") == 2
    assert await line.place(f"{AT_ONCE}") == 0
    await line.leave("2")
    assert await line.length() == AT_ONCE + 2


async def test_a_line_that_is_long_enough(line: Line) -> None:
    await fill(line, AT_ONCE + LONGEST)
    assert await line.place("late") is None
    assert await line.length() == AT_ONCE + LONGEST
    await line.leave("0")
    assert await line.place("late") == LONGEST


async def test_a_process_that_died_leaves_its_place(redis: Redis, redis_url: str) -> None:
    client = connect(redis_url, 5.0)
    line = RedisLine(client, "8081")
    await fill(line, AT_ONCE + 2)
    await redis.zadd("{telegram_messages}:line:heard:8081", {"0": 1})  # a long time ago
    assert await line.place(f"{AT_ONCE}") == 0
    assert await line.length() == AT_ONCE + 1
    keys = await redis.keys("*")
    assert keys
    assert all([0 < await redis.ttl(key) <= 60 for key in keys])
    await client.aclose()


async def test_who_comes_again_has_its_place_again(line: Line) -> None:
    await fill(line, AT_ONCE + 2)
    assert await line.place(f"{AT_ONCE}") == 1


async def test_a_place_is_told_of_each_move(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.line._LOOK_EVERY", 0.01)
    await fill(line, AT_ONCE + 1)
    seen: list[int] = []

    async def wait() -> None:
        async with Place(line, "late") as place:
            assert place.ahead == 2
            async for ahead in place.moves():
                seen.append(ahead)  # noqa: PERF401  looked at meanwhile

    waiting = asyncio.create_task(wait())
    await wait_until(lambda: _is(line, AT_ONCE + 2), "it to be in line")
    await line.leave("0")
    await wait_until(lambda: seen == [1], "the first move")
    await line.leave("1")
    await waiting
    assert seen == [1, 0]
    assert await line.length() == AT_ONCE - 1


async def _is(line: Line, length: int) -> bool:
    return await line.length() == length
