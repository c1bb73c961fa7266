"""The cases without faults: how much of a limit is used, and who waits for whom."""

import asyncio
import time

from tests.chaos.arena import TELEGRAM_LIMITS, arena
from tests.chaos.measure import Figure, delivery_failures, element, spread, steadily, timestamps, waits, window_failures

LEAST_USE = 0.98
"""G5."""

WARM_UP = 3.0
"""Seconds until the elements are in their lanes and the pace is steady."""


async def backlog(a_second: int, seconds: float, *, least: float = LEAST_USE) -> Figure:
    """One bot with more to send than its limit lets through. least: the share of the limit that must be used."""
    chats = 3 * a_second
    count = int(a_second * (seconds + WARM_UP + 2))
    async with arena(TELEGRAM_LIMITS | {"RATE_GLOBAL": f"{a_second}/1s"}) as place:
        await place.push(element(1 + n % chats, n // chats) for n in range(count))
        await asyncio.sleep(WARM_UP)
        begin = time.monotonic_ns()
        await asyncio.sleep(seconds)
        end = time.monotonic_ns()
        since = next((call["seq"] for call in await place.calls() if call["arrival_ns"] >= begin), 0)
        verdict = await place.verdict(since=since, from_ns=begin, until_ns=end)
    bot = verdict["windows"][0]
    used = bot["lowest_utilisation"] or 0.0
    failures = window_failures(verdict)
    if used < least:
        failures.append(f"only {used:.1%} of the limit used")
    measured = f"used {used:.1%}, {bot['exceeded']} windows exceeded, worst {bot['worst']}, {timestamps(verdict)}"
    return Figure(f"backlog at {a_second}/s for {seconds:g} s", measured, failures)


async def flooded_chat(waiting: int, seconds: float) -> Figure:
    """One chat with a long queue of its own beside 200 quiet chats."""
    async with arena() as place:
        await steadily(place, lambda n: element(1 + n % 200, n // 200), 20, seconds)
        await place.empty(10)
        alone = waits(await place.calls())
        await place.forget_calls()
        await place.push(element(9999, n) for n in range(waiting))
        await steadily(place, lambda n: element(1 + n % 200, 1000 + n // 200), 20, seconds)
        await asyncio.sleep(1)  # the last of the quiet ones arrive; the long queue takes hours
        beside = waits(call for call in await place.calls() if call["chat"] != 9999)
    failures = (
        [] if len(beside) == len(alone) else [f"{len(alone) - len(beside)} messages to quiet chats did not arrive"]
    )
    return Figure(
        f"{waiting:,} wait in one chat, 200 quiet ones", f"{spread(beside)}; without it {spread(alone)}", failures
    )


async def bulk(waiting: int, seconds: float) -> Figure:
    """A broadcast at the bot's limit, and an interactive message a second."""
    async with arena() as place:
        await place.push(element(1 + n % 10_000, n, priority="bulk") for n in range(waiting))
        await asyncio.sleep(WARM_UP)
        await steadily(place, lambda n: element(20_001 + n, 0, priority="interactive"), 1, seconds)
        await asyncio.sleep(1)
        interactive = waits(call for call in await place.calls() if call["chat"] > 20_000)
    missing = int(seconds) - len(interactive)
    failures = [f"{missing} interactive messages did not arrive within a second"] if missing else []
    return Figure(f"interactive beside a backlog of {waiting:,}", spread(interactive), failures)


async def no_faults(chats: int, each: int, a_second: int) -> Figure:
    """Everything arrives once and in order, and no limit is exceeded."""
    async with arena({"RATE_GLOBAL": f"{a_second}/1s", "RATE_CHAT": "5/1s", "RATE_GROUP": "50/5s"}) as place:
        began = time.monotonic()
        await place.push(element(chat, n) for n in range(each) for chat in range(1, chats + 1))
        await place.empty(chats * each / a_second * 3 + 20)
        took = time.monotonic() - began
        verdict = await place.verdict()
        failures = window_failures(verdict) + await delivery_failures(place, dict.fromkeys(range(1, chats + 1), each))
    return Figure(f"{chats * each:,} messages without faults", f"{took:.0f} s, {timestamps(verdict)}", failures)
