import asyncio
from collections.abc import Callable

import pytest

from bot.precedence import Precedence
from bot.runner import AT_ONCE


async def take_in(precedence: Precedence, seconds: float = 0.0) -> None:
    with precedence.taking_in():
        await asyncio.sleep(seconds)


async def test_while_nothing_comes_in_as_many_updates_are_handled_as_there_are_places() -> None:
    assert await Precedence().turn() == AT_ONCE


async def test_a_single_update_that_took_long_delays_no_handling() -> None:
    precedence = Precedence()
    await take_in(precedence, 0.05)
    assert await precedence.turn() > 1


async def test_while_updates_come_in_quickly_a_few_are_begun_at_a_time() -> None:
    precedence = Precedence()
    for _ in range(10):
        await take_in(precedence)
    assert 1 <= await precedence.turn() < AT_ONCE


async def test_while_updates_come_in_slowly_one_is_begun_now_and_then() -> None:
    precedence = Precedence()
    await take_in(precedence)
    await take_in(precedence, 0.05)  # so for half a second none would be begun
    assert [await precedence.turn() for _ in range(3)] == [1, 1, 1]


async def test_where_the_server_is_far_away_its_distance_slows_down_nothing() -> None:
    precedence = Precedence()
    for _ in range(5):
        await take_in(precedence, 0.02)
    assert await precedence.turn() > 1


async def test_updates_that_fail_to_come_in_count_too() -> None:
    precedence = Precedence()
    await take_in(precedence)
    try:
        with precedence.taking_in():
            await asyncio.sleep(0.05)
            raise ConnectionError
    except ConnectionError:
        pass
    assert await precedence.turn() == 1


class Time:
    """Stands still but in `sleep`, which ends `late` seconds too late; meanwhile updates come in, 100 a second, now on
    a quick and now on a slow way to the server."""

    precedence: Precedence

    def __init__(self, late: float) -> None:
        self.now, self.came_in, self._late = 0.0, 0, late

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        ends = self.now + seconds + self._late
        while (self.came_in + 1) / 100 <= ends:
            self.came_in += 1
            self.now = self.came_in / 100
            self.precedence.note(self.now - (0.001 if self.came_in % 2 else 0.006))
        self.now = ends

    async def begun_within(self, seconds: float) -> int:
        """Updates that may have been begun until then."""
        begun = 0
        while self.now < seconds:
            begun += await self.precedence.turn()
            await self.sleep(0.001)  # as long as a claim takes
        return begun


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Time]:
    def at(late: float) -> Time:
        time = Time(late)
        monkeypatch.setattr("bot.precedence.time", time)
        monkeypatch.setattr("bot.precedence.asyncio", time)
        time.precedence = Precedence()
        return time

    return at


async def test_an_uneven_way_to_the_server_does_not_hold_up_handling_for_ever(at: Callable[[float], Time]) -> None:
    time = at(0.0)
    assert await time.begun_within(10) >= time.came_in


async def test_where_cores_are_short_handling_stays_behind_what_comes_in(at: Callable[[float], Time]) -> None:
    time = at(0.01)
    assert await time.begun_within(10) < time.came_in / 2
