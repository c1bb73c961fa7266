"""No queue at all: python-telegram-bot, called directly. What a process is to send it reads from its standard input,
"N CHATS"; as many coroutines as the others have send it."""

import asyncio
import sys
from collections.abc import Iterator

from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import COROUTINES, TOKEN, Item, items


async def _send(mine: Iterator[Item]) -> None:
    for item in mine:  # of the same iterator, each takes what is next
        await common.handle(TOKEN, item.chat, item.text)


async def _work() -> None:
    common.ready()
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        count, chats = map(int, line.split())
        mine = iter(items(count, chats))
        await asyncio.gather(*(_send(mine) for _ in range(COROUTINES)))


if __name__ == "__main__":
    common.run(_work())
