import asyncio

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
