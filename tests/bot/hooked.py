"""Processes that send through one queue in real Redis, or their own, to the stand-in: each with its bot and endings."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from bot.endings import Endings
from bot.outbox import Outbox
from bot.playground import Playground
from bot.playground.ledger import Call
from bot.queued_bot import GetMeCache, QueuedBot
from bot.run import CURRENT, Run
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.events import Event
from queueing.limits import RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.redis_queue import RedisQueue
from queueing.retry import RetryPolicy
from queueing.worker import Worker

BOT = "110201543"
TOKEN = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
CHAT = 1001


class Process:
    """What one process has of all this. `send`: its worker, to be started and stopped by whoever wants it to send."""

    def __init__(self, redis_url: str | None, api_url: str, limits: RateLimits, **options: Any) -> None:
        self.events: list[Event] = []
        self.queue: Any = RedisQueue(redis_url, limits=limits) if redis_url else MemoryQueue(limits=limits)
        self.endings = Endings(self.queue.status)
        self.queue.hear_ends(self.endings.told)
        self.outbox = Outbox(self.queue, lambda event: None, BOT)
        self.request = AiohttpRequest(5.0)
        self.bot = QueuedBot(
            TOKEN,
            api_url=api_url,
            outbox=self.outbox,
            request=self.request,
            get_me_cache=GetMeCache(_nothing, _forget),
            endings=self.endings,
            **options,
        )
        sender = Sender(self.queue, api_url=api_url, send_timeout=5.0, request=self.request, own_token=TOKEN)
        policy = RetryPolicy(max_attempts=2, base=0.01)
        self.send = Worker(self.queue, sender.deliver, workers=10, policy=policy, observe=self._observe)

    def _observe(self, event: Event, /) -> None:
        self.events.append(event)
        self.endings(event)


async def _nothing() -> None:
    return None


async def _forget(_text: str) -> None:
    return None


@asynccontextmanager
async def process(
    redis_url: str | None,
    playground: Playground,
    *,
    sends: bool = True,
    limits: RateLimits | None = None,
    **options: Any,
) -> AsyncIterator[Process]:
    it = Process(redis_url, playground.url, limits or RateLimits(), **options)
    await it.queue.start()
    try:
        async with it.bot:
            if sends:
                await it.send.start()
            try:
                yield it
            finally:
                if sends:
                    await it.send.stop()
    finally:
        await it.queue.close()


@contextmanager
def run_of(origin: str, *, held: bool = True, **more: Any) -> Iterator[Run]:
    """What is sent within it belongs to this run."""
    run = Run(origin, sends=[] if held else None, **more)
    token = CURRENT.set(run)
    try:
        yield run
    finally:
        CURRENT.reset(token)


def called(playground: Playground, method: str | None = None) -> list[Call]:
    """What arrived, in order; getMe left out."""
    ledger = playground.world.ledger
    found = [ledger[seq] for seq in range(len(ledger))]
    return [call for call in found if call.method != "getMe" and method in (None, call.method)]


def at_telegram(playground: Playground, message_id: int, chat: int = CHAT) -> dict[str, Any] | None:
    """A message as Telegram has it now."""
    return playground.world.bots[int(BOT)].message(chat, message_id)
