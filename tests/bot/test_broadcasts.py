"""Broadcasts on a real server, without processes: each chat gets its message once, whoever moves it and whoever dies;
and the counts add up at any time."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from bot import broadcasts as module
from bot.broadcasts import Broadcasts, Progress, Shown, Status
from bot.outbox import Outbox
from bot.store import connect
from bot.subscribers import Subscribers
from queueing.contract import Settlement
from queueing.errors import MalformedMessage, QueueFull
from queueing.events import Buried
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision
from tests.queueing.leaks import leaked

BOT = "123456"
P = "{telegram_messages}:"
DOOR = f"{P}bulk:{BOT}"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, 5.0)
    yield client
    await client.aclose()


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(redis_url, queue_max=1000)
    await queue.start()
    yield queue
    await queue.close()
    assert not leaked(redis_url)


@pytest.fixture
def subscribers(client: Redis) -> Subscribers:
    return Subscribers(client, BOT)


Make = Callable[[], Broadcasts]


@pytest.fixture
def make(client: Redis, queue: RedisQueue) -> Make:
    """As another process has them."""
    outbox = Outbox(queue, lambda event: None, BOT)
    return lambda: Broadcasts(client, queue, outbox, BOT, queue_max=1000)


@pytest.fixture
def broadcasts(make: Make) -> Broadcasts:
    return make()


def names(count: int) -> list[str]:
    return [str(chat) for chat in range(1, count + 1)]


def hello(broadcasts: Broadcasts) -> Message:
    return broadcasts.compose("hello", kwargs={"parse_mode": "HTML"})


async def spread(broadcasts: Broadcasts) -> None:
    while await broadcasts.spread() > 0:
        pass


async def at_the_door(redis: Redis) -> list[dict[str, Any]]:
    return [json.loads(element) for element in await redis.lrange(DOOR, 0, -1)]


async def settle(queue: RedisQueue, decide: Callable[[Message], Decision] = lambda _: Ack("1")) -> list[Message]:
    """Ends whatever is in the queue; in the order of the claims."""
    ended: list[Message] = []
    settlements: list[Settlement] = []
    while True:
        claim = await queue.claim(100, settlements)
        if not claim.leases and not (await queue.stats()).depth:
            return ended
        ended += [lease.message for lease in claim.leases]
        settlements = [Settlement(lease, decide(lease.message)) for lease in claim.leases]


def adds_up(progress: Progress) -> bool:
    ended = progress.sent + progress.blocked + progress.failed + progress.cancelled + progress.expired
    return progress.total == ended + progress.waiting


async def known(broadcasts: Broadcasts, id: str) -> Progress:
    progress = await broadcasts.progress(id)
    assert progress
    assert adds_up(progress)
    return progress


async def test_each_chat_gets_it_once(broadcasts: Broadcasts, queue: RedisQueue) -> None:
    begun = await broadcasts.start(hello(broadcasts), ["1", "-2", "@three", "1"])
    assert (begun.status, begun.total, begun.waiting, begun.text) == (Status.SPREADING, 3, 3, "hello")
    await spread(broadcasts)
    assert (await known(broadcasts, begun.id)).status is Status.SENDING
    sent = await settle(queue)
    assert sorted(message.chat for message in sent) == ["-2", "1", "@three"]
    assert {message.id for message in sent} == {f"b{begun.id}.{n}" for n in (1, 2, 3)}
    assert all(message.body == {"text": "hello", "kwargs": {"parse_mode": "HTML"}} for message in sent)
    assert {(message.priority.value, message.group, message.bot) for message in sent} == {("bulk", begun.id, BOT)}
    done = await known(broadcasts, begun.id)
    assert (done.status, done.sent, done.waiting, done.ended) == (Status.DONE, 3, 0, True)
    assert done.finished_at
    assert done.finished_at >= done.started_at >= done.created_at
    assert await known(broadcasts, begun.id) == done, "the end is kept"


async def test_what_became_of_each_is_counted(broadcasts: Broadcasts, queue: RedisQueue) -> None:
    begun = await broadcasts.start(hello(broadcasts), names(10))
    await spread(broadcasts)
    reasons = {"1": "blocked", "2": "chat_not_found", "3": "forbidden", "4": "bad_request"}

    def decide(message: Message) -> Decision:
        reason = reasons.get(message.chat)
        return Bury(reason, "as the test says") if reason else Ack("1")

    await settle(queue, decide)
    done = await known(broadcasts, begun.id)
    assert (done.sent, done.blocked, done.failed, done.status) == (6, 3, 1, Status.DONE)
    await queue.redrive_all()
    assert (await known(broadcasts, begun.id)).waiting == 4
    await settle(queue)
    assert (await known(broadcasts, begun.id)).sent == 10


async def test_processes_that_spread_at_once_and_die_lose_and_double_nothing(
    make: Make, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    dice = random.Random(1)
    begun = await make().start(hello(make()), names(800))

    async def process() -> None:
        await spread(make())

    while await redis.exists(f"{P}todo:{begun.id}"):
        running = [asyncio.create_task(process()) for _ in range(3)]
        await asyncio.sleep(dice.random() / 100)  # and then all of them die, wherever they are
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    elements = await at_the_door(redis)
    assert sorted(int(element["chat_id"]) for element in elements) == list(range(1, 801))
    assert {element["id"] for element in elements} == {f"b{begun.id}.{n}" for n in range(1, 801)}
    assert (await known(make(), begun.id)).status is Status.SENDING


async def test_one_that_dies_while_it_hands_in_the_chats_has_begun_nothing(
    broadcasts: Broadcasts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HANDED_IN", 10)
    run, calls = broadcasts._run, 0

    async def dies(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise asyncio.CancelledError
        return await run(*args)

    monkeypatch.setattr(broadcasts, "_run", dies)
    with pytest.raises(asyncio.CancelledError):
        await broadcasts.start(hello(broadcasts), names(50), id="given")
    assert await broadcasts.spread() == 0
    assert await broadcasts.progress("given") is None
    assert 0 < await redis.ttl(f"{P}todo:given") <= 3600
    begun = await broadcasts.start(hello(broadcasts), names(50), id="given")
    assert begun.total == 50


async def test_the_same_id_starts_it_once(broadcasts: Broadcasts, redis: Redis, queue: RedisQueue) -> None:
    for step in (None, spread, None):
        await broadcasts.start(hello(broadcasts), names(20), id="given")
        if step:
            await step(broadcasts)
    assert len(await at_the_door(redis)) == 20
    await settle(queue)
    again = await broadcasts.start(hello(broadcasts), names(20), id="given")
    assert (again.status, again.sent) == (Status.DONE, 20)
    assert await redis.llen(DOOR) == 0


async def test_a_full_queue_refuses_it_and_is_not_made_fuller(
    broadcasts: Broadcasts, queue: RedisQueue, redis: Redis
) -> None:
    await queue.enqueue([Message(bot=BOT, chat="1", body={"text": "x"}) for _ in range(890)])
    begun = await broadcasts.start(hello(broadcasts), names(50))
    await spread(broadcasts)
    assert (await queue.stats()).depth == 900, "the rest is left to others"
    assert await broadcasts.spread() == -1
    assert (await known(broadcasts, begun.id)).status is Status.SPREADING
    await queue.enqueue([Message(bot=BOT, chat="1", body={"text": "x"}) for _ in range(100)])
    with pytest.raises(QueueFull):
        await broadcasts.start(hello(broadcasts), names(50))
    assert [progress.id for progress in await broadcasts.latest(10)] == [begun.id]

    await settle(queue)
    await spread(broadcasts)
    await settle(queue)
    assert (await known(broadcasts, begun.id)).sent == 50


async def test_a_bounded_number_stands_at_the_door(
    broadcasts: Broadcasts, queue: RedisQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_THE_DOOR", 100)
    first = await broadcasts.start(hello(broadcasts), names(250))
    second = await broadcasts.start(hello(broadcasts), names(10))
    sent: list[Message] = []
    while not (await known(broadcasts, second.id)).ended:
        await spread(broadcasts)
        assert await redis.llen(DOOR) <= 100
        sent += await settle(queue)
    assert len(sent) == 260
    for chat in names(10):
        assert [message.group for message in sent if message.chat == chat] == [first.id, second.id]


async def test_all_subscribers_get_it(
    broadcasts: Broadcasts, subscribers: Subscribers, redis: Redis, queue: RedisQueue
) -> None:
    await redis.sadd(f"{P}subscribers:{BOT}", *names(800))
    assert await subscribers.count() == 800
    begun = await broadcasts.start(hello(broadcasts))
    assert (begun.total, begun.status) == (800, Status.SPREADING)
    await spread(broadcasts)
    sent = await settle(queue)
    assert sorted(int(message.chat) for message in sent) == list(range(1, 801))
    assert (await known(broadcasts, begun.id)).sent == 800


async def test_who_unsubscribes_before_his_turn_does_not_get_it(
    broadcasts: Broadcasts, subscribers: Subscribers, redis: Redis, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_THE_DOOR", 0)
    for chat in (1, 2, "@Three"):
        assert await subscribers.add(chat)
    begun = await broadcasts.start(hello(broadcasts))
    await spread(broadcasts)
    assert await subscribers.remove("2")
    assert not await subscribers.remove(2)
    monkeypatch.setattr(module, "_AT_THE_DOOR", 100)
    await spread(broadcasts)
    assert sorted(message.chat for message in await settle(queue)) == ["1", "@three"]
    done = await known(broadcasts, begun.id)
    assert (done.sent, done.cancelled, done.status) == (2, 1, Status.DONE)


async def test_nobody_subscribed(broadcasts: Broadcasts) -> None:
    begun = await broadcasts.start(hello(broadcasts))
    assert (begun.total, begun.status, begun.ended) == (0, Status.DONE, True)
    assert await broadcasts.spread() == 0


async def test_two_names_of_a_chat_are_one(
    broadcasts: Broadcasts, subscribers: Subscribers, queue: RedisQueue, redis: Redis
) -> None:
    await queue.alias(BOT, "-5", "-1007")
    given = await broadcasts.start(hello(broadcasts), ["-5", "-1007"])
    for chat in (-5, -1007):
        await subscribers.add(chat)
    subscribed = await broadcasts.start(hello(broadcasts))
    await spread(broadcasts)
    assert [message.chat for message in await settle(queue)] == ["-1007", "-1007"]
    assert (await known(broadcasts, given.id)).total == (await known(broadcasts, subscribed.id)).total == 1
    assert await redis.smembers(f"{P}subscribers:{BOT}") == {"-1007"}, "the old name is forgotten"


@pytest.mark.parametrize("spreads", [0, 1, 9])
async def test_cancel(
    spreads: int, broadcasts: Broadcasts, queue: RedisQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 100)
    begun = await broadcasts.start(hello(broadcasts), names(300))
    for _ in range(spreads):
        await broadcasts.spread()
    (lease, *_) = (await queue.claim(1)).leases or (None,)
    cancelled = await broadcasts.cancel(begun.id)
    assert cancelled
    assert adds_up(cancelled)
    assert cancelled.status is Status.CANCELLED
    await spread(broadcasts)
    await queue.claim(0, [Settlement(lease, Ack("1"))] if lease else [])
    assert await settle(queue) == []
    over = await known(broadcasts, begun.id)
    assert (over.sent, over.cancelled, over.ended) == ((1, 299, True) if lease else (0, 300, True))
    assert over.finished_at
    assert await broadcasts.cancel(begun.id) == over, "a second time it changes nothing"
    assert not await redis.exists(f"{P}todo:{begun.id}", DOOR)


async def test_one_that_is_done_cannot_be_cancelled(broadcasts: Broadcasts, queue: RedisQueue) -> None:
    begun = await broadcasts.start(hello(broadcasts), names(3))
    await spread(broadcasts)
    await settle(queue)
    done = await broadcasts.cancel(begun.id)
    assert done
    assert (done.status, done.sent) == (Status.DONE, 3)
    assert await broadcasts.cancel("unheard-of") is None


async def test_a_draft_is_sent_when_it_is_started(
    broadcasts: Broadcasts, subscribers: Subscribers, queue: RedisQueue
) -> None:
    await subscribers.add(1)
    await broadcasts.draft(hello(broadcasts), "draft")
    assert await broadcasts.progress("draft") is None
    assert await broadcasts.spread() == 0
    shown = Shown("42", 7)
    begun = [await broadcasts.start_draft("draft", shown) for _ in range(2)]
    assert begun[0] == begun[1]
    assert await broadcasts.shown("draft") == shown
    await spread(broadcasts)
    assert [message.chat for message in await settle(queue)] == ["1"]

    await broadcasts.draft(hello(broadcasts), "dropped")
    assert await broadcasts.cancel("dropped") is None
    assert await broadcasts.start_draft("dropped", shown) is None


async def test_the_latest_come_first(broadcasts: Broadcasts) -> None:
    ids: Sequence[str] = [(await broadcasts.start(hello(broadcasts), names(1))).id for _ in range(3)]
    latest = [progress.id for progress in await broadcasts.latest(2)]
    assert len(latest) == 2
    assert set(latest) <= set(ids)


async def test_who_cannot_be_reached_is_no_subscriber_any_more(subscribers: Subscribers) -> None:
    for chat in range(1, 6):
        await subscribers.add(chat)
    for chat, reason in enumerate(("blocked", "chat_not_found", "forbidden", "bad_request"), 1):
        subscribers(Buried(Message(bot=BOT, chat=str(chat), body={}), reason, "as the test says"))
    subscribers(Buried(None, "malformed", "no JSON"))
    await subscribers.remove_gone()
    assert [await subscribers.has(chat) for chat in range(1, 6)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("text", "kwargs", "says"),
    [
        (None, None, "text is missing"),
        ("", None, None),
        ("x" * 4097, None, "text is longer"),
        ("x" * 4097, {"parse_mode": "HTML"}, None),
        ("x", {"media": "file:///etc/passwd"}, "kwargs.media names a local file"),
    ],
)
async def test_what_could_never_be_sent_is_not_begun(
    text: str | None, kwargs: Any, says: str | None, broadcasts: Broadcasts
) -> None:
    if says is None:
        assert broadcasts.compose(text, kwargs=kwargs)
    else:
        with pytest.raises(MalformedMessage, match=says):
            broadcasts.compose(text, kwargs=kwargs)
