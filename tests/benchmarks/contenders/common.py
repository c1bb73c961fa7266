"""What the contenders share: their environment, the mark, the Bot, the messages, and the two ways to be called.

    python -m tests.benchmarks.contenders.NAME work
    python -m tests.benchmarks.contenders.NAME fill N CHATS [single]

`work` is one process that takes messages until SIGTERM; it prints "ready" when it does. `fill` puts N messages for
CHATS chats into the queue, in its fastest bulk call or one by one, and prints {"seconds": …, "cpu": …}.

Environment: REDIS_URL, API_URL and TOKEN; COROUTINES: how many of a process; SEND: 0, then handlers only count;
TRANSPORT: of PTB, httpx or aiohttp; MARK: beginning of the names of the files that count what was handled; RATE: how
many messages a second `fill … single` puts in, where it is not as many as it can. NEW_BOT: 1, then a Bot is made for
every message.
"""

import asyncio
import itertools
import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from telegram import Bot
    from telegram.request import BaseRequest

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
API_URL = os.environ.get("API_URL", "http://127.0.0.1:8081")
TOKEN = os.environ.get("TOKEN", "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw")  # of no bot: the form is what counts
COROUTINES = int(os.environ.get("COROUTINES", "10"))
SEND = os.environ.get("SEND", "1") == "1"
TRANSPORT = os.environ.get("TRANSPORT", "httpx")
NEW_BOT = os.environ.get("NEW_BOT") == "1"
RATE = float(os.environ.get("RATE", "0"))

LENGTH = 100
"""Characters of a text."""

_FIRST_CHAT = 1000


class Item(NamedTuple):
    """A message: what every contender's queue carries, beside the token."""

    chat: int
    text: str


def items(count: int, chats: int) -> list[Item]:
    """So many, the chats in turn."""
    return [Item(_FIRST_CHAT + n % chats, f"{n:07} ".ljust(LENGTH, "x")) for n in range(count)]


def stamped(item: Item) -> Item:
    """With the time of its enqueue in it, which the stand-in reads where it arrives."""
    return Item(item.chat, f"sent-{time.time():.6f}-{item.text}"[:LENGTH])


# ---- the mark


class Mark:
    """Counts what this process handled, as an int64 in a file that the harness reads. Each process has a file of its
    own, MARK.PID, a forked one, too. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._count = 0

    def handled(self) -> None:
        """One more."""
        with self._lock:
            mapped = self._map or self._open()
            self._count += 1
            struct.pack_into("q", mapped, 0, self._count)

    def forget(self) -> None:
        """After a fork: what was counted is another process's."""
        self.__init__()  # type: ignore[misc]

    def _open(self) -> mmap.mmap:
        with open(f"{os.environ['MARK']}.{os.getpid()}", "w+b") as file:  # noqa: PTH123
            file.truncate(8)
            self._map = mmap.mmap(file.fileno(), 8)
        return self._map


MARK = Mark()
os.register_at_fork(after_in_child=MARK.forget)


# ---- the handler

_bots: dict[str, "Bot"] = {}


async def handle(token: str, chat: int, text: str) -> None:
    """What is to be done for a message: it is sent by the Bot of its token, which is made once, and counted."""
    if SEND and NEW_BOT:
        async with new_bot(token).request as request:
            await new_bot(token, request).send_message(chat, text)
    elif SEND:
        bot = _bots.get(token) or _bots.setdefault(token, new_bot(token))
        await bot.send_message(chat, text)
    MARK.handled()


_threads = threading.local()


def handle_here(token: str, chat: int, text: str) -> None:
    """The same for a queue whose handlers are plain functions: a loop and a Bot for each thread."""
    if SEND:
        if not hasattr(_threads, "runner"):
            import uvloop

            _threads.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            _threads.bots = {}
        bot = _threads.bots.get(token) or _threads.bots.setdefault(token, new_bot(token))
        _threads.runner.run(bot.send_message(chat, text))
    MARK.handled()


def new_bot(token: str, request: "BaseRequest | None" = None) -> "Bot":
    """A Bot as PTB makes it (its default pool holds 256 connections), over TRANSPORT."""
    from telegram import Bot

    return Bot(
        token, base_url=f"{API_URL}/bot", request=request or (aiohttp_request() if TRANSPORT == "aiohttp" else None)
    )


def aiohttp_request() -> "BaseRequest":
    from tests.benchmarks.contenders.ptb_over_aiohttp import Request

    return Request()


# ---- how a contender is called


class Producer(Protocol):
    """Puts messages into a contender's queue; plain methods or coroutines. Connected when it is entered."""

    def bulk(self, items: Sequence[Item], /) -> Awaitable[object] | object:
        """All of them, as fast as the queue's own calls can."""

    def single(self, item: Item, /) -> Awaitable[object] | object:
        """One, and it is in the queue when this returns."""


Entered = AbstractAsyncContextManager[Any] | AbstractContextManager[Any]


def main(work: Callable[[], None], producer: Callable[[], Entered]) -> None:
    """The whole of a contender's command line. work: one process, until it is ended; calls `ready`.

    producer: makes a context manager, of either kind, of a Producer.
    """
    match sys.argv[1:]:
        case ["work", *_]:
            work()
        case ["fill", count, chats, *single]:
            seconds, cpu = fill(producer(), items(int(count), int(chats)), single=bool(single))
            print(json.dumps({"seconds": seconds, "cpu": cpu}))
        case _:
            sys.exit(f"usage: {sys.argv[0]} work | fill N CHATS [single]")


def ready() -> None:
    """Says that this process takes messages. What it imports for the first is imported now."""
    if SEND:
        import telegram  # noqa: F401
    print("ready", flush=True)


def run(work: Awaitable[None]) -> None:
    """Runs a contender's worker on uvloop."""
    import uvloop

    async def until_it_ends() -> None:
        await work

    uvloop.run(until_it_ends())


def fill(entered: Entered, items: Sequence[Item], *, single: bool) -> tuple[float, float]:
    """→ seconds that the calls took, and of those the CPU time of this process."""
    if isinstance(entered, AbstractContextManager):
        with entered as producer:
            return _fill(producer, items, single=single)
    import uvloop

    return uvloop.run(_fill_async(entered, items, single=single))


def _fill(producer: Any, items: Sequence[Item], *, single: bool) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    if single:
        for item in _paced(items):
            producer.single(item)
    else:
        producer.bulk(items)
    return time.perf_counter() - began, time.process_time() - cpu


async def _fill_async(
    entered: AbstractAsyncContextManager[Any], items: Sequence[Item], *, single: bool
) -> tuple[float, float]:
    async with entered as producer:
        began, cpu = time.perf_counter(), time.process_time()
        if not single:
            await producer.bulk(items)
        elif not RATE:
            for item in items:
                await producer.single(item)
        else:
            async for item in _paced_async(items):
                await producer.single(item)
        return time.perf_counter() - began, time.process_time() - cpu


def _paced(items: Sequence[Item]) -> Iterator[Item]:
    if not RATE:
        yield from items
        return
    began = time.perf_counter()
    for n, item in zip(itertools.count(), items, strict=False):
        time.sleep(max(0.0, began + n / RATE - time.perf_counter()))
        yield stamped(item)


async def _paced_async(items: Sequence[Item]) -> AsyncIterator[Item]:
    began = time.perf_counter()
    for n, item in zip(itertools.count(), items, strict=False):
        await asyncio.sleep(max(0.0, began + n / RATE - time.perf_counter()))
        yield stamped(item)
