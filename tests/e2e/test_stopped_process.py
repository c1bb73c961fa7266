"""Rule 2: a real process, stopped for longer than its lease with sends in flight and others about to be written."""

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import pytest

from bot.playground import Playground, start_playground
from bot.playground.faults import Fault
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.events import Event
from queueing.maintenance import Maintenance
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Outcome, RetryPolicy
from queueing.worker import MayWrite, Worker
from tests.e2e.conftest import BOT, TOKEN

LEASE = 3.0
IN_FLIGHT, ABOUT_TO = range(1, 6), range(6, 11)  # chats, by where their first message is at the stop

Eventually = Callable[..., Awaitable[None]]


def message(chat: int, n: int) -> Message:
    return Message(bot=str(BOT), chat=str(chat), body={"text": f"m-{chat}-{n}"})


@asynccontextmanager
async def sending(redis_url: str, telegram_url: str) -> AsyncIterator[tuple[RedisQueue, Sender]]:
    async with AsyncExitStack() as stack:
        queue = RedisQueue(redis_url, lease_seconds=LEASE)
        await queue.start()
        stack.push_async_callback(queue.close)
        request = AiohttpRequest(10.0)
        stack.push_async_callback(request.shutdown)
        yield queue, Sender(queue, api_url=telegram_url, send_timeout=10.0, request=request)


def _be_stopped(redis_url: str, telegram_url: str, events: Connection) -> None:
    """The other process. It writes those of ABOUT_TO when it gets SIGUSR1, which it will not before it runs again."""

    async def run() -> None:
        write = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, write.set)
        async with sending(redis_url, telegram_url) as (queue, sender):

            async def deliver(message: Message, may_write: MayWrite) -> Outcome:
                if int(message.chat) in ABOUT_TO:
                    await write.wait()
                return await sender.deliver(message, may_write)

            def observe(event: Event) -> None:
                events.send(type(event).__name__)

            worker = Worker(queue, deliver, workers=10, policy=RetryPolicy(), observe=observe)
            await worker.start()
            await asyncio.Event().wait()

    asyncio.run(run())


@pytest.fixture
def spawn() -> Iterator[Callable[..., int]]:
    """Starts a process that is killed at the end, stopped or not. → its id"""
    processes: list[BaseProcess] = []

    def spawn(target: Callable[..., None], *args: object) -> int:
        process = multiprocessing.get_context("spawn").Process(target=target, args=args)
        process.start()
        processes.append(process)
        assert process.pid
        return process.pid

    yield spawn
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    playground = await start_playground()
    yield playground
    await playground.close()


async def test_rule_2_a_sender_that_was_stopped_writes_nothing_any_more(
    redis_url: str, playground: Playground, spawn: Callable[..., int], eventually: Eventually
) -> None:
    playground.world.faults.add(Fault("latency", method="sendMessage", ms=2000, count=len(IN_FLIGHT)), None)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    told: Counter[str] = Counter()

    def heard(event: str) -> int:
        while ours.poll():
            told[ours.recv()] += 1
        return told[event]

    async with sending(redis_url, playground.url) as (queue, sender):
        await queue.register(str(BOT), TOKEN)
        await queue.enqueue([message(chat, n) for n in range(3) for chat in (*IN_FLIGHT, *ABOUT_TO)])
        pid = await asyncio.to_thread(spawn, _be_stopped, redis_url, playground.url, theirs)
        await eventually(lambda: len(playground.world.ledger) == len(IN_FLIGHT), "requests are under way")
        await eventually(lambda: heard("Claimed") == 10, "it holds ten messages")
        os.kill(pid, signal.SIGSTOP)
        maintenance = Maintenance(queue, lambda event: None)
        worker = Worker(queue, sender.deliver, workers=10, policy=RetryPolicy(), observe=lambda event: None)
        await maintenance.start()
        await worker.start()
        await eventually(lambda: len(playground.world.ledger) == 30 + len(IN_FLIGHT), "others have sent it all")

        os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGCONT)
        await eventually(lambda: heard("Fenced") == 10, "whatever it had in hand, its settlements are refused")
        await worker.stop()
        await maintenance.stop()
        stats = await queue.stats()
    assert (stats.processed, stats.depth) == (30, 0), "each was settled once"
    for chat in (*IN_FLIGHT, *ABOUT_TO):
        arrived = [call.text for call in playground.world.ledger.select(method="sendMessage", chat=chat)]
        again = [f"m-{chat}-0"] if chat in IN_FLIGHT else []  # of these nobody could know
        assert arrived == again + [f"m-{chat}-{n}" for n in range(3)]
