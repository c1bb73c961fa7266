"""Dead letters of the shared queue: shown by pages, sent after all, dropped, and never too many."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from queueing import redis_desk
from queueing.contract import Settlement
from queueing.events import Event, Trimmed
from queueing.maintenance import Maintenance
from queueing.message import MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Release
from tests.conftest import wait_until
from tests.queueing.desk import (  # fixtures among them
    BLOCKED,
    FRONT,
    P,
    drained,
    kill,
    message,
    queue,
    settle,
    start,
    state,
    total,
)

__all__ = ["queue", "start"]


async def test_dead_letters_are_shown_newest_first_and_by_pages(queue: RedisQueue) -> None:
    names = [f"m{n}" for n in range(7)]
    await kill(queue, *names)
    seen: list[str] = []
    page = await queue.dead_page(3)
    seen += [letter.id for letter in page.letters]
    while page.next:
        page = await queue.dead_page(3, page.next)
        seen += [letter.id for letter in page.letters]
    assert seen == names[::-1]
    letter = await queue.dead_letter("m3")
    assert letter
    assert (letter.reason, letter.error, letter.bot, letter.chat) == ("blocked", "by the user", "1", "42")
    assert [line["reason"] for line in letter.history] == ["blocked"]
    assert await queue.dead_letter("never") is None


async def test_a_page_after_one_that_is_gone_leaves_none_out(queue: RedisQueue) -> None:
    await kill(queue, *(f"m{n}" for n in range(6)))
    page = await queue.dead_page(3)
    await queue.drop([page.letters[-1].id])
    after = [letter.id for letter in (await queue.dead_page(10, page.next)).letters]
    assert after[-3:] == ["m2", "m1", "m0"]


@pytest.mark.parametrize("before", ["", "x", "5", "5:", "²:a", ":a"])
async def test_a_page_after_nonsense_is_refused(queue: RedisQueue, before: str) -> None:
    with pytest.raises(ValueError, match="before"):
        await queue.dead_page(3, before)


async def test_redrive_sends_again_at_the_tail_with_no_tries_behind_it(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], Release(0, "network", "refused", counts=True))
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], BLOCKED)
    await queue.enqueue([message("b")])
    await queue.claim(0)
    assert await queue.redrive(["a", "never"]) == 1
    status = await queue.status("a")
    assert status
    assert (status.state, status.attempts, status.error) == (MessageState.PENDING, 0, None)
    first = (await queue.claim(1)).leases
    (second,) = (await settle(queue, first, Ack(), want=1)).leases
    assert ([first[0].message.id, second.message.id], second.attempts) == (["b", "a"], 0)
    assert second.message.body == {"text": "a"}
    assert await redis.zcard(f"{P}dead:index") == await redis.hlen(f"{P}dead") == 0
    assert await total(redis, "replayed") == 1


async def test_redrive_to_the_head_stands_behind_what_is_sent_or_tried(queue: RedisQueue) -> None:
    await kill(queue, "d1", "d2")
    await kill(queue, "e", chat=43)
    await queue.enqueue([message("a"), message("b"), message("x", 43), message("y", 43)])
    (lease,) = [lease for lease in (await queue.claim(2)).leases if lease.message.chat == "42"]
    await queue.claim(0, held=[lease])  # the other is given back
    assert await queue.redrive(["d1", "d2", "e"], head=True) == 3
    claim = await queue.claim(1, held=[lease])
    assert [each.message.id for each in claim.leases] == ["e"]
    await queue.claim(0, [Settlement(lease, Ack()), Settlement(claim.leases[0], Ack())])
    names = await drained(queue)
    assert [name for name in names if name in "d1 d2 b"] == ["d1", "d2", "b"]
    assert [name for name in names if name in "xy"] == ["x", "y"]


async def test_redrive_to_the_head_takes_no_tries_over(queue: RedisQueue) -> None:
    await kill(queue, "d")
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], Release(0, "network", "refused", counts=True))
    await queue.redrive(["d"], head=True)
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.attempts) == ("a", 1)
    (lease,) = (await settle(queue, [lease], Ack(), want=1)).leases
    assert (lease.message.id, lease.attempts) == ("d", 0)


@pytest.mark.parametrize("head", [False, True])
async def test_all_are_sent_again_in_their_order_and_those_that_die_again_are_left(
    redis: Redis, queue: RedisQueue, head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_desk, "_BATCH", 2)
    names = [f"m{n}" for n in range(5)]
    await kill(queue, *names)
    await redis.rpush(FRONT, "garbage")
    await queue.claim(0)
    assert await queue.redrive_all(head=head) == 6
    assert await drained(queue) == names
    (letter,) = await queue.dead_letters()
    assert letter.element == "garbage"


async def test_rule_16_redrive_wakes_a_waiting_process(queue: RedisQueue) -> None:
    await kill(queue, "a")
    await queue.claim(1)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.redrive(["a"])
    await asyncio.wait_for(waiting, 10)


async def test_drop_forgets(redis: Redis, queue: RedisQueue) -> None:
    await kill(queue, "a", "b", "c")
    assert await queue.drop(["b", "never"]) == 1
    assert [letter.id for letter in await queue.dead_letters()] == ["c", "a"]
    assert await queue.drop_all() == 2
    assert await queue.drop_all() == 0
    assert await total(redis, "dropped") == 3
    assert await state(queue, "a") is MessageState.DEAD


async def test_too_many_dead_letters_are_dropped_and_told(
    redis: Redis, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill(queue, "a", "b", "c")
    assert await queue.trim() == 0
    monkeypatch.setattr(redis_desk, "DEAD_MOST", 2)
    events: list[Event] = []
    maintenance = Maintenance(queue, events.append)
    await maintenance.start()
    await wait_until(lambda: events == [Trimmed(1)], "the trimming to be told")
    await maintenance.stop()
    assert [letter.id for letter in await queue.dead_letters()] == ["c", "b"]
    assert await total(redis, "dead_dropped") == 1


async def test_old_dead_letters_are_dropped(redis: Redis, queue: RedisQueue) -> None:
    await kill(queue, "old", "new")
    long_ago = (time.time() - redis_desk.DEAD_DAYS * 86_400 - 5) * 1000
    await redis.zadd(f"{P}dead:index", {"old": long_ago})
    assert await queue.trim() == 1
    assert await redis.hkeys(f"{P}dead") == ["new"]
