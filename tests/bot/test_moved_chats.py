"""Rule 13, end to end: a real queue on a real server, the worker, the sender, and the stand-in, which judges."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from bot.playground import Playground
from bot.playground.chats import channel_id
from bot.playground.faults import Fault
from bot.playground.ledger import Call
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.events import Acked, Event, Released
from queueing.limits import OFF, Rate, RateLimits
from queueing.redis_queue import RedisQueue
from queueing.retry import RetryPolicy
from queueing.worker import Worker
from tests.bot.served import BOT, TOKEN

FRONT = "telegram_messages"
OLD, NEW = -500, -1_000_000_000_777
GROUP = Rate(5, 0.5)
Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def running(playground: Playground, redis_url: str, events: list[Event]) -> AsyncIterator[None]:
    """Two processes' worth of workers, each with a queue and a sender of its own."""
    request = AiohttpRequest(5.0)
    workers: list[Worker] = []
    queues: list[RedisQueue] = []
    for _ in range(2):
        queue = RedisQueue(redis_url, limits=RateLimits(bot=Rate(100), group=GROUP, chats={"@news": OFF}))
        await queue.start()
        await queue.register(BOT, TOKEN)
        sender = Sender(queue, api_url=playground.url, send_timeout=5.0, request=request)
        worker = Worker(queue, sender.deliver, workers=5, policy=RetryPolicy(), observe=events.append)
        await worker.start()
        queues.append(queue)
        workers.append(worker)
    yield
    for worker, queue in zip(workers, queues, strict=True):
        await worker.stop()
        await queue.close()
    await request.shutdown()


async def push(redis: Redis, *messages: tuple[object, str]) -> None:
    elements = [
        json.dumps({"bot_token": TOKEN, "chat_id": chat, "text": text, "kwargs": {"chat_id": chat}, "accepted": n + 1})
        for n, (chat, text) in enumerate(messages)
    ]
    await redis.rpush(FRONT, *elements)


def calls(playground: Playground) -> list[Call]:
    return list(playground.world.ledger.select(method="sendMessage"))


def most_within(seconds: float, arrivals: list[float]) -> int:
    return max(sum(start <= at < start + seconds for at in arrivals) for start in arrivals)


async def test_rule_13_a_migrated_group_goes_on_in_its_place_and_within_its_limit(
    running: None, playground: Playground, redis: Redis, events: list[Event], eventually: Eventually
) -> None:
    playground.world.faults.add(Fault("migrate", to=NEW, skip=3), OLD)
    names = [f"m{n}" for n in range(20)]
    await push(redis, *((OLD if n % 4 else NEW, name) for n, name in enumerate(names)))
    await eventually(lambda: sum(isinstance(event, Acked) for event in events) == len(names), "all are sent")
    arrived = calls(playground)
    moved = [call for call in arrived if call.fault == "migrate"]
    assert [(call.chat, call.text, call.taken) for call in moved] == [(OLD, moved[0].text, False)], "asked once"
    after = arrived[arrived.index(moved[0]) + 1 :]
    assert {call.chat for call in after} == {NEW}
    # One to the new chat may have been on its way when the old one was refused.
    under_way = [call for call in after[:1] if names.index(call.text) % 4 == 0]
    rest = [call.text for call in after[len(under_way) :]]
    assert rest == sorted(rest, key=names.index), "by order of acceptance"
    assert sorted(call.text for call in arrived if call.taken) == sorted(names), "each once"
    (told,) = [event for event in events if isinstance(event, Released)]
    assert (told.reason, told.message.body["text"], told.uncertain) == ("migrated", moved[0].text, False)
    arrivals = [call.arrival_ns / 1e9 for call in arrived if call.chat == NEW]
    assert most_within(GROUP.period - 0.01, arrivals) <= GROUP.count


async def test_rule_13_a_name_and_its_id_are_one_chat_once_that_is_known(
    running: None, playground: Playground, redis: Redis, events: list[Event], eventually: Eventually
) -> None:
    news = channel_id("@News")
    await push(redis, ("@News", "first"))
    await eventually(lambda: len(events) and any(isinstance(event, Acked) for event in events), "the name is known")
    names = [f"m{n}" for n in range(30)]
    await push(redis, *((("@News", news, "@NEWS")[n % 3], name) for n, name in enumerate(names)))
    await eventually(lambda: sum(isinstance(event, Acked) for event in events) == 1 + len(names), "all are sent")
    assert [(call.chat, call.text) for call in calls(playground)[1:]] == [(news, name) for name in names]
    assert await redis.hget(f"{{{FRONT}}}:aliases", f"{BOT}:@news") == str(news)
    assert all(not isinstance(event, Released) for event in events)
