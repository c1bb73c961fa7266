"""Rule 15: what stands at the front doors, and how fast it comes in. On both queues, but for what others push."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from queueing import memory_doors, memory_queue, redis_queue
from queueing.contract import Claim, Queue, Settlement
from queueing.errors import QueueFull
from queueing.limits import Rate
from queueing.message import Message, Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Outcome, RetryPolicy, Sent
from queueing.worker import _DRAIN_PAUSE, Deliver, MayWrite, Worker
from tests.queueing.both import StartAny, make_queue, queue, start  # fixtures
from tests.queueing.desk import FRONT, P

__all__ = ["make_queue", "queue", "start"]

LOOK_AHEAD = memory_doors.LOOK_AHEAD  # as in lua/drain.lua
DRAIN_MOST = {"redis": redis_queue.DRAIN_MOST, "memory": memory_queue.DRAIN_MOST}

Eventually = Callable[..., Awaitable[None]]


def message(n: int, priority: Priority = Priority.NORMAL, *, bot: str = "1", chat: str | None = None) -> Message:
    return Message(bot=bot, chat=chat or str(n), id=f"m{n}", body={"text": "x"}, priority=priority, track=True)


async def drain(queue: Queue) -> None:
    while (await queue.claim(0)).more:
        pass
    for _ in range(LOOK_AHEAD // min(DRAIN_MOST.values()) + 1):
        await queue.claim(0)


async def is_at_the_door(queue: Queue, n: int) -> bool:
    waiting = await queue.why(f"m{n}")
    assert waiting
    return waiting.reason == "door"


async def test_rule_15_bulk_stays_in_its_door_until_the_look_ahead_takes_it(queue: Queue) -> None:
    await queue.enqueue([message(n, Priority.BULK) for n in range(1500)])
    await drain(queue)
    assert not await is_at_the_door(queue, LOOK_AHEAD - 1)
    assert await is_at_the_door(queue, LOOK_AHEAD)
    claim = await queue.claim(10)
    await queue.claim(0, [Settlement(lease, Ack()) for lease in claim.leases])
    taken = LOOK_AHEAD + len(claim.leases)
    assert not await is_at_the_door(queue, taken - 1)
    assert await is_at_the_door(queue, taken)


async def test_one_call_brings_each_message_to_its_door(redis: Redis, redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    await queue.start()

    def one(id: str, bot: str = "1", **more: object) -> Message:
        return Message(bot=bot, chat="7", id=id, body={"text": "x"}, **more)  # type: ignore[arg-type]

    bulk = Priority.BULK
    mixed = [
        one("plain"),
        one("tracked", track=True),
        one("bulk", priority=bulk),
        one("later", send_at=time.time() + 60),
    ]
    mixed += [one("other", "2", priority=bulk), one("tracked", track=True), one("keyed", priority=bulk, dedup_key="k")]
    mixed += [one("again", dedup_key="k"), one("next", priority=bulk, track=True), one("last")]
    await queue.enqueue(mixed)
    doors = [FRONT, f"{P}bulk:1", f"{P}bulk:2"]
    found = [[json.loads(element)["id"] for element in await redis.lrange(door, 0, -1)] for door in doors]
    assert found == [["plain", "tracked", "later", "last"], ["bulk", "keyed", "next"], ["other"]]
    assert (await queue.stats()).depth == 8
    await queue.close()


async def test_what_a_full_queue_refuses_leaves_nothing(redis: Redis, redis_url: str) -> None:
    queue = RedisQueue(redis_url, queue_max=1)
    await queue.start()
    with pytest.raises(QueueFull, match="0 messages wait"):
        await queue.enqueue([message(1), message(2, Priority.BULK)])
    assert await redis.keys() == []
    await queue.close()


async def granted(queue: Queue, ids: set[str], *, calls: int) -> set[str]:
    """Which of these leave within so many calls; each that leaves is sent."""
    left: set[str] = set()
    sent: list[Settlement] = []
    for _ in range(calls):
        claim = await queue.claim(10, sent)
        sent = [Settlement(lease, Ack()) for lease in claim.leases]
        left |= ids & {lease.message.id for lease in claim.leases}
        if left == ids:
            break
    await queue.claim(0, sent)
    return left


async def test_rule_15_bulk_of_a_paused_bot_holds_up_no_other_bots(queue: Queue) -> None:
    await queue.pause("1")
    await queue.enqueue([message(n, Priority.BULK) for n in range(LOOK_AHEAD + 200)])
    await drain(queue)
    others = [message(n, Priority.BULK, bot="2") for n in range(5000, 5003)]
    await queue.enqueue(others)
    assert await granted(queue, {one.id for one in others}, calls=3) == {one.id for one in others}


async def test_rule_15_bulk_of_many_paused_bots_holds_up_no_other_bots(queue: Queue) -> None:
    bots = [str(bot) for bot in range(1, 26)]
    for bot in bots:
        await queue.pause(bot)
    count = 100
    for i, bot in enumerate(bots):
        await queue.enqueue([message(i * count + n, Priority.BULK, bot=bot) for n in range(count)])
    await queue.enqueue([message(9000, Priority.BULK, bot="99")])
    calls = 2 * len(bots) * count // DRAIN_MOST[queue.backend]
    assert await granted(queue, {"m9000"}, calls=calls) == {"m9000"}


async def test_rule_15_bulk_for_one_slow_chat_holds_up_no_other_chats(start: StartAny) -> None:
    queue = await start(chat=Rate(1, 60.0))
    count = 3 * LOOK_AHEAD
    await queue.enqueue([message(n, Priority.BULK, chat="7") for n in range(count)])
    others = [message(n, Priority.BULK) for n in range(5000, 5003)]
    await queue.enqueue(others)
    calls = 2 * count // DRAIN_MOST[queue.backend]
    assert await granted(queue, {one.id for one in others}, calls=calls) == {one.id for one in others}


async def test_rule_15_a_paused_bot_takes_no_more_bulk_than_the_look_ahead(queue: Queue) -> None:
    await queue.pause("1")
    await queue.enqueue([message(n, Priority.BULK) for n in range(2 * LOOK_AHEAD)])
    for _ in range(3):
        await drain(queue)
    assert not await is_at_the_door(queue, LOOK_AHEAD - 1)
    assert await is_at_the_door(queue, LOOK_AHEAD)
    assert (await queue.stats()).depth == 2 * LOOK_AHEAD


async def test_rule_15_bulk_that_was_pushed_to_the_front_door_moves_at_once(redis: Redis, redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    await queue.start()
    await queue.enqueue([message(n, Priority.BULK) for n in range(LOOK_AHEAD)])
    await drain(queue)
    pushed = [{"bot": "1", "chat_id": n, "id": f"e{n}", "text": "x", "priority": "bulk"} for n in range(5)]
    await redis.rpush(FRONT, *map(json.dumps, pushed), json.dumps({"bot": "1", "chat_id": 77, "id": "e77"}))
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.id == "e77", "it does not stand behind bulk"
    assert await redis.llen(FRONT) == 0
    waiting = [json.loads(one)["id"] for one in await redis.lrange(f"{P}bulk:1", 0, -1)]
    assert waiting == [f"e{n}" for n in range(5)]
    await queue.close()


@pytest.mark.parametrize("field", ["id", "accepted"])
async def test_what_was_found_at_the_first_look_holds_although_the_element_says_null(
    redis: Redis, redis_url: str, field: str
) -> None:
    queue = RedisQueue(redis_url)
    await queue.start()
    pushed = {"bot": "1", "chat_id": 7, "text": "x", "priority": "bulk", "track": True, "dedup_key": "k", field: None}
    await redis.rpush(FRONT, json.dumps(pushed))
    await queue.claim(0)
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.id == await queue.first_with("1", "k"), "it is no second one, and no other"
    await queue.close()


async def test_what_cannot_be_read_any_more_when_it_is_due_is_a_dead_letter(
    redis: Redis, redis_url: str, eventually: Eventually
) -> None:
    due = time.time() + 0.2
    await redis.rpush(FRONT, json.dumps({"chat_id": 7, "text": "x", "send_at": due}))
    queue = RedisQueue(redis_url, default_bot="1")
    await queue.start()
    await queue.claim(0)
    assert (await queue.stats()).scheduled == 1
    await queue.close()
    queue = RedisQueue(redis_url)  # the configuration has no bot any more
    await queue.start()
    await eventually(lambda: time.time() > due, "the message to be due")
    claim = await queue.claim(1)
    assert claim.buried == [("malformed", "bot_token is missing, and no bot is configured")]
    assert len(await queue.dead_letters()) == 1
    await queue.close()


@pytest.mark.parametrize("priority", ["normal", "bulk"])
async def test_rule_15_large_elements_are_drained_a_few_a_call(redis: Redis, redis_url: str, priority: str) -> None:
    queue = RedisQueue(redis_url)
    await queue.start()
    door = f"{P}bulk:1" if priority == "bulk" else FRONT
    for n in range(20):
        large = Message(bot="1", chat="7", id=f"m{n}", body={"text": "x" * 2**20}, priority=Priority(priority))
        await queue.enqueue([large])
    await queue.claim(0)
    assert await redis.llen(door) == 15, "the server has other things to do"
    while await redis.llen(door):
        await queue.claim(0)
    lane = await redis.lrange(f"{P}lane:{priority[0]}:1:7", 0, -1)
    assert [entry.partition(" ")[0] for entry in lane] == [f"m{n}" for n in range(20)]
    await queue.close()


class Watch:
    """Counts what a worker asks of its queue."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.claims = self.pauses = 0
        self.more = True
        claim, wait = queue.claim, queue.wait

        async def watched_claim(*args: Any) -> Claim:
            self.claims += 1
            brought = await claim(*args)
            self.more = brought.more
            return brought

        async def watched_wait(*args: Any) -> None:
            self.pauses += 1
            await wait(*args)

        monkeypatch.setattr(queue, "claim", watched_claim)
        monkeypatch.setattr(queue, "wait", watched_wait)


def worker(queue: Queue, deliver: Deliver) -> Worker:
    return Worker(queue, deliver, workers=10, policy=RetryPolicy(), observe=lambda event: None)


async def test_rule_15_a_paused_bots_messages_are_drained_without_a_rest(
    queue: Queue, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        raise AssertionError("nothing may leave")

    await queue.pause("1")
    await queue.enqueue([message(n) for n in range(10_000)])
    watch = Watch(queue, monkeypatch)
    draining = worker(queue, deliver)
    await draining.start()
    await eventually(lambda: not watch.more, "the front door is empty")
    assert watch.claims <= 10_000 / DRAIN_MOST[queue.backend] + 3
    assert watch.pauses <= 3, "nothing is waited for between two of them"
    await draining.stop()


async def test_rule_15_a_busy_process_drains_10000_a_second(
    queue: Queue, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await gate.wait()
        return Sent()

    busy = worker(queue, deliver)
    await busy.start()
    await queue.enqueue([message(n) for n in range(10)])
    await eventually(lambda: busy.busy == 10, "all coroutines are busy")
    await queue.enqueue([message(n) for n in range(10, 3010)])
    watch = Watch(queue, monkeypatch)
    await eventually(lambda: not watch.more, "the front door is empty")
    assert watch.claims <= 3000 / DRAIN_MOST[queue.backend] + 3
    assert DRAIN_MOST[queue.backend] / _DRAIN_PAUSE >= 10_000, "with a pause after each"
    gate.set()
    await busy.stop()
