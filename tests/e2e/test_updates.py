"""Updates to six real processes: each is answered once, in its chat's order, whatever dies meanwhile."""

import asyncio
import os
import signal

from tests.chaos.poster import Poster, text_update
from tests.conftest import wait_until
from tests.e2e.conftest import SECRET, Stack

UPDATES, CHATS = 600, 50


async def test_rule_21_kill_9_in_the_middle_of_handlers_loses_no_update_and_answers_none_twice(stack: Stack) -> None:
    await stack.start_bot()
    victim = (await stack.queue())["processes"][0]["pid"]

    async def kill() -> None:
        async def in_the_middle() -> bool:
            return await stack.arrived() > UPDATES / 6

        await wait_until(in_the_middle, "some to be answered")
        os.kill(victim, signal.SIGKILL)

    offering = Poster(stack.url, SECRET).offer(UPDATES, 200, lambda n: text_update(n + 1, 1 + n % CHATS, f"n{n}"))
    await asyncio.gather(offering, kill())

    async def handled() -> bool:
        queue = await stack.queue()
        return bool(queue["updates"]["queue_depth"] == 0 and queue["queue_depth"] == 0)

    await wait_until(handled, "all to be handled and answered", timeout=60)
    page = await stack.get("/playground/ledger?method=sendMessage&limit=10000", stack.telegram)
    order: dict[int, list[int]] = {}
    for call in page["calls"]:
        if call["status"] == 200:
            order.setdefault(call["chat"], []).append(int(call["text"].split()[-1][1:]))
    # What the process had in the air when it was killed may arrive a second time (G8), and nothing else may.
    doubled = sum(len(numbers) - len(set(numbers)) for numbers in order.values())
    assert doubled <= 10
    firsts = {chat: list(dict.fromkeys(numbers)) for chat, numbers in order.items()}
    assert firsts == {chat: list(range(chat - 1, UPDATES, CHATS)) for chat in range(1, CHATS + 1)}
