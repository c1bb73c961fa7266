"""Six processes with nothing to do: they look seldom, all together, and find at once what there is nevertheless."""

import asyncio
import os
import signal

from redis.asyncio import Redis

from tests.conftest import wait_until
from tests.e2e.conftest import Stack

SECONDS = 5


async def test_six_processes_at_rest_ask_the_server_hardly_more_than_one_would(stack: Stack) -> None:
    await stack.start_bot(LEASE_SECONDS="15")

    async def scripts() -> int:
        stats = await redis.info("commandstats")
        return sum(stats[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_fcall") if name in stats)

    async with Redis.from_url(stack.server.url) as redis:
        before = await scripts()
        await asyncio.sleep(SECONDS)  # what is done meanwhile is what is measured
        # Two queues are cared for once a second, by one; each process is heard every three seconds in either; and two
        # more. When one looked by claims, it were nineteen a second, and when each looked for itself, eighty.
        assert (await scripts() - before) / SECONDS < 14


async def test_what_stopped_processes_swallowed_is_sent_by_those_that_run(stack: Stack) -> None:
    await stack.start_bot(LEASE_SECONDS="15")
    pids = [process["pid"] for process in (await stack.queue())["processes"]]
    try:
        for pid in pids[:4]:
            os.kill(pid, signal.SIGSTOP)
        async with Redis.from_url(stack.server.url) as redis:
            # Four of six doorbells are those of stopped processes, which move what comes, and nobody hears.
            for n in range(6):
                await redis.rpush("telegram_messages", f'{{"chat_id": {n + 1}, "text": "{n}"}}')

        async def sent() -> bool:
            return await stack.arrived() == 6

        await wait_until(sent, "all to be sent long before the lease of any process ends", timeout=8)
    finally:
        for pid in pids[:4]:
            os.kill(pid, signal.SIGCONT)
