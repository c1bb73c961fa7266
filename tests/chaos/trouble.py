"""The cases with faults: what a refusal, a silence or an absence costs, and whom."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.chaos.arena import LEASE_SECONDS, SEND_TIMEOUT, Arena, arena
from tests.chaos.measure import (
    Element,
    Figure,
    delivery_failures,
    element,
    percentile,
    spread,
    steadily,
    waits,
    window_failures,
)
from tests.chaos.plan import BOTS
from tests.conftest import wait_until

UNLIMITED = {"RATE_GLOBAL": "off", "RATE_CHAT": "off", "RATE_GROUP": "off"}

MIGHT_BE_FULL_BYTES = 250_000
"""So much less than what is in use makes a server full."""


def _of(calls: Sequence[Mapping[str, Any]], *, fault: str) -> list[Mapping[str, Any]]:
    return [call for call in calls if call["fault"] == fault]


async def refused_chat(seconds: int) -> Figure:
    """A 429 for one chat: nothing to it for so long, from any process; everything else goes on."""
    async with arena() as place:
        await place.add_fault(kind="flood", chat=1, count=1, retry_after=seconds)
        await place.push(element(1, n) for n in range(3))
        await steadily(place, lambda n: element(2 + n % 100, n // 100), 20, seconds + 1)
        await place.empty(20)
        calls = await place.calls()
        to_chat = [call for call in calls if call["chat"] == 1]
        others = [call for call in calls if call["chat"] != 1]
        failures = await delivery_failures(place, {1: 3})
    (refused,) = _of(calls, fault="flood")
    late = to_chat[1]["arrival_ns"] - refused["arrival_ns"]
    if _of(calls, fault="penalty"):
        failures.append(f"{len(_of(calls, fault='penalty'))} calls during the penalty")
    measured = f"next call to it {late / 1e6:.0f} ms after the 429; the others {spread(waits(others))}"
    return Figure(f"429 of {seconds} s for one chat", measured, failures)


async def refused_bot(seconds: int) -> Figure:
    """A 429 for the whole bot. The answer does not say so: three chats must be refused before anyone can know."""
    async with arena() as place:
        await place.push(element(1 + n, 0) for n in range(30 * (seconds + 2)))
        await asyncio.sleep(1)
        await place.add_fault(kind="flood", bot=BOTS[0], scope="bot", count=1, retry_after=seconds)
        await steadily(place, lambda n: element(1 + n % 100, n // 100, bot=1), 20, seconds)
        await place.empty(40)
        calls = await place.calls()
        failures = await delivery_failures(place, dict.fromkeys(range(1, 30 * (seconds + 2) + 1), 1))
    (refused,) = _of(calls, fault="flood")
    ends = refused["arrival_ns"] + seconds * 10**9
    after = next(call for call in calls if call["bot"] == BOTS[0] and call["arrival_ns"] > ends)
    measured = (
        f"{len(_of(calls, fault='penalty'))} more calls of it were refused, the first after it came at once "
        f"(+{(after['arrival_ns'] - ends) / 1e6:.0f} ms); "
        f"another bot {spread(waits(call for call in calls if call['bot'] == BOTS[1]))}"
    )
    return Figure(f"429 of {seconds} s for the bot", measured, failures)


async def some_fail(seconds: float) -> Figure:
    """Every tenth call fails with a 502."""
    chats = 300
    async with arena(MAX_ATTEMPTS="12") as place:
        number = await place.add_fault(kind="error", probability=0.1)
        each = max(1, int(30 * seconds / chats))
        await place.push(element(chat, n) for n in range(each) for chat in range(1, chats + 1))
        await asyncio.sleep(seconds)
        await place.remove_fault(number)
        await place.empty(seconds + 60)
        calls = await place.calls()
        failures = await delivery_failures(place, dict.fromkeys(range(1, chats + 1), each))
        failures += window_failures(await place.verdict())
    attempts: dict[str, int] = {}
    for call in calls:
        attempts[call["text"]] = attempts.get(call["text"], 0) + 1
    measured = f"{chats * each} sent with {len(calls)} calls, {max(attempts.values())} for one message at most"
    return Figure(f"a tenth fails with 502 for {seconds:g} s", measured, failures)


async def all_fail(seconds: float, *, chats: int = 200) -> Figure:
    """Nothing gets through, then everything does."""
    each = 3
    async with arena() as place:
        number = await place.add_fault(kind="error")
        began = time.monotonic_ns()
        await place.push(element(chat, n) for n in range(each) for chat in range(1, chats + 1))
        await asyncio.sleep(seconds)
        await place.remove_fault(number)
        healed = time.monotonic_ns()
        await place.empty(90)
        calls = await place.calls()
        failures = await delivery_failures(place, dict.fromkeys(range(1, chats + 1), each))
    failing = [call for call in calls if not call["taken"]]
    first = next(call["arrival_ns"] for call in calls if call["taken"])
    early = sum(call["arrival_ns"] - began < 2e9 for call in failing)
    measured = (
        f"{len(failing)} calls meanwhile, {early} of them in the first 2 s; "
        f"the first that got through {(first - healed) / 1e9:.1f} s after the end"
    )
    return Figure(f"every call fails for {seconds:g} s", measured, failures)


_TURNS = 3
"""Both phases are measured in parts that take turns, so that what else the machine does hits both."""

_SLOW_INTERACTIVE = 9_000
"""Chats from here on get the slow bot's interactive messages."""


async def slow_bot(seconds: float, what: str, **fault: object) -> Figure:
    """The sends of one bot get no answer, or a late one; another bot's do as ever. Interactive messages of the slow
    one still leave, as soon as one of its sends has ended."""
    alone: list[float] = []
    beside: list[float] = []
    interactive: list[float] = []
    each = int(seconds / _TURNS)
    async with arena() as place:
        for turn in range(_TURNS):
            alone += await _steady_waits(place, 2 * turn, each)
            number = await place.add_fault(bot=BOTS[0], **fault)
            await place.push(element(chat, turn) for chat in range(1, 101))
            pushing = asyncio.create_task(steadily(place, _interactive_of(turn), 1, each))
            beside += await _steady_waits(place, 2 * turn + 1, each)
            await pushing
            await asyncio.sleep(SEND_TIMEOUT)
            interactive += waits(call for call in await place.calls() if call["chat"] >= _SLOW_INTERACTIVE)
            await place.remove_fault(number)
            await asyncio.sleep(SEND_TIMEOUT)
    missing = _TURNS * 2 * 20 * each - len(alone) - len(beside)
    failures = [f"{missing} messages of the other bot did not arrive"] if missing > 0 else []
    failures += [] if interactive else ["no interactive message of the slow bot left"]
    ratio = percentile(sorted(beside), 0.99) / percentile(sorted(alone), 0.99)
    measured = (
        f"the other bot {spread(sorted(beside))}, without it {spread(sorted(alone))}: {ratio:.1f} times; "
        f"{len(interactive)} of {_TURNS * each} interactive ones of the slow bot left, {spread(sorted(interactive))}"
    )
    return Figure(f"the sends of one bot {what}", measured, failures)


def _interactive_of(turn: int) -> Callable[[int], Element]:
    return lambda n: element(_SLOW_INTERACTIVE + n, turn, priority="interactive")


async def _steady_waits(place: Arena, part: int, seconds: int) -> list[float]:
    """20 messages a second of the second bot to a hundred chats, and how long each of them waited, ms."""
    await place.forget_calls()
    await steadily(place, lambda n: element(1 + n % 100, 1_000 * part + n // 100, bot=1), 20, seconds)
    await asyncio.sleep(1)
    return waits(call for call in await place.calls() if call["bot"] == BOTS[1])


async def server_away(leases: int, *, messages: int = 600) -> Figure:
    """Redis is away for several leases, with 60 sends in flight: they end, and are recorded when it is back."""
    async with arena(UNLIMITED) as place:
        await place.add_fault(kind="latency", ms=300, ms_max=900)
        await place.push(element(chat, 0) for chat in range(1, messages + 1))

        async def in_flight() -> bool:
            return sum(process.inflight for process in (await place.stats()).processes) >= 60

        await wait_until(in_flight, "60 sends are in flight")
        await place.kill_server(leases * LEASE_SECONDS)
        await place.empty(60)
        failures = await delivery_failures(place, dict.fromkeys(range(1, messages + 1), 1))
    case = f"Redis away for {leases * LEASE_SECONDS} s, 60 in flight"
    return Figure(case, "" if failures else "none lost, none doubled, order kept", failures)


async def full_server(messages: int) -> Figure:
    """At `maxmemory` new messages are refused, and those that wait are sent until none is left."""
    async with arena(UNLIMITED | {"RATE_GLOBAL": "500/1s"}) as place:
        elements = [element(1 + n % 500, n // 500) for n in range(messages)]
        await place.push(one | {"text": f"{one['text']} {'x' * 400}"} for one in elements)
        used = (await place.redis.info("memory"))["used_memory"]
        await place.redis.config_set("maxmemory", used - MIGHT_BE_FULL_BYTES)
        refused = await _post(place)
        await place.empty(messages / 500 * 3 + 20)
        again = await _post_until_taken(place)
        calls = len(await place.calls())
        failures = await delivery_failures(place, dict.fromkeys(range(1, 501), messages // 500))
    failures += [f"the API answered {refused}, expected 503"] if refused != 503 else []
    failures += [f"once empty it answered {again}, expected 202"] if again != 202 else []
    return Figure("memory at maxmemory", f"refused with {refused}; {calls} sent; then {again}", failures)


async def _post_until_taken(place: Arena, timeout: float = 20.0) -> int:
    """The server gives back what the buffers of its connections took in a time of its own. → the last answer"""
    answer = 0

    async def is_taken() -> bool:
        nonlocal answer
        answer = await _post(place)
        return answer == 202

    with contextlib.suppress(AssertionError):
        await wait_until(is_taken, "the API takes messages again", timeout=timeout)
    return answer


async def _post(place: Arena) -> int:
    message = {"chat_id": 777, "text": "by the API"}
    async with place.http.post(f"{place.url}/api/v1/messages", json=message) as response:
        return response.status
