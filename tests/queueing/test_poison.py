"""Rule 4: what kills the processes that hold it."""

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease
from queueing.message import MessageState, Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from tests.queueing.desk import FRONT, REFUSED, P, Start, message, settle, start, state

__all__ = ["start"]


async def die(redis: Redis, dead: RedisQueue, alive: RedisQueue) -> None:
    await alive.claim(0)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    await alive.reap()


async def test_rule_4_what_kills_three_processes_is_poison(redis: Redis, start: Start) -> None:
    alive = await start()
    await alive.enqueue([message("a"), message("b")])
    for n in range(3):
        dead = await start()
        (lease,) = (await dead.claim(1)).leases
        assert (lease.message.id, lease.takeovers) == ("a", n)
        await die(redis, dead, alive)
    claim = await alive.claim(1)
    assert [lease.message.id for lease in claim.leases] == ["b"]
    assert [reason for reason, _ in claim.buried] == ["poison"]
    letter = await alive.dead_letter("a")
    assert letter
    assert letter.reason == "poison"
    assert [line["reason"] for line in letter.history] == ["taken_over"] * 3 + ["poison"]
    assert await state(alive, "a") is MessageState.DEAD


async def taken_over_twice(redis: Redis, start: Start, name: str = "a") -> None:
    alive = await start()
    await alive.enqueue([message(name)])
    for _ in range(2):
        dead = await start()
        assert [lease.message.id for lease in (await dead.claim(1)).leases] == [name]
        await die(redis, dead, alive)


async def test_rule_4_after_two_take_overs_a_message_runs_alone_in_its_process(redis: Redis, start: Start) -> None:
    await taken_over_twice(redis, start)
    queue = await start()
    await queue.enqueue([message(str(chat), chat) for chat in range(3)])
    alone = await queue.claim(10)
    assert [lease.message.id for lease in alone.leases] == ["a"], "it was served longest ago"
    assert not (await queue.claim(9, held=alone.leases)).leases
    other = await start()
    assert len((await other.claim(10)).leases) == 3, "others go on"
    await other.close()
    assert len((await settle(queue, alone.leases, Ack(), want=10)).leases) == 3


async def test_rule_4_it_waits_for_empty_hands_and_nothing_else_is_taken_meanwhile(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    await queue.enqueue([message("later", 9)])
    for _ in range(2):
        assert not (await queue.claim(9, held=busy)).leases
    claim = await settle(queue, busy, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["a"]
    claim = await settle(queue, claim.leases, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["later"]


async def test_rule_16_who_may_take_nothing_beside_a_suspect_wakes_another(redis: Redis, start: Start) -> None:
    await taken_over_twice(redis, start)
    queue, other = await start(), await start()
    alone = await queue.claim(10)
    assert [lease.takeovers for lease in alone.leases] == [2]
    assert not (await other.claim(10)).leases
    await queue.enqueue([message("later", 9)])
    assert not (await queue.claim(9, held=alone.leases)).leases
    assert await redis.lrange(FRONT, 0, -1) == ["telequeue:bell"]
    assert [lease.message.id for lease in (await other.claim(10)).leases] == ["later"]


async def hold_for_long(redis: Redis, queue: RedisQueue, lease: Lease) -> None:
    held = f"{P}held:{queue.incarnation}"
    token, call, priority, granted = (await redis.hget(held, lease.lane)).split()
    await redis.hset(held, lease.lane, f"{token} {call} {priority} {int(granted) - 10_001}")


async def test_rule_4_what_takes_for_ever_stops_no_process(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    await hold_for_long(redis, queue, busy[0])
    (alone,) = (await queue.claim(9, held=busy)).leases
    assert (alone.message.id, alone.takeovers) == ("a", 2), "what it has had for long is no company"
    await queue.enqueue([message("later", 9)])
    assert not (await queue.claim(9, held=[*busy, alone])).leases
    await hold_for_long(redis, queue, alone)
    (later,) = (await queue.claim(9, held=[*busy, alone])).leases
    assert later.message.id == "later", "it has not killed the process for long"
    other = await start()
    await die(redis, queue, other)
    claim, seen = await other.claim(9), []
    while claim.leases:
        seen += [lease.message.id for lease in claim.leases]
        claim = await settle(other, claim.leases, Ack(), want=9)
    assert sorted(seen) == ["a", "busy", "later"], "it was not alone: another may have killed the process"


async def test_what_kills_process_after_process_slowly_ends_too(redis: Redis, start: Start) -> None:
    alive = await start()
    await alive.enqueue([message("a")])
    for _ in range(10):
        dead = await start()
        (lease,) = (await dead.claim(1)).leases
        await hold_for_long(redis, dead, lease)
        await dead.claim(9, held=[lease])
        await die(redis, dead, alive)
    assert [reason for reason, _ in (await alive.claim(1)).buried] == ["poison"]


@pytest.mark.parametrize("end", ["leave", "reap"])
async def test_rule_4_what_was_set_aside_goes_back_with_its_process(redis: Redis, start: Start, end: str) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    assert not (await queue.claim(9, held=busy)).leases
    other = await start()
    if end == "leave":
        await queue.close()
    else:
        await die(redis, queue, other)
    (lease,) = (await other.claim(1)).leases
    assert lease.message.id == "busy"
    (lease,) = (await settle(other, [lease], Ack(), want=1)).leases
    assert (lease.message.id, lease.takeovers) == ("a", 2), "it was in nobody's hands"


async def test_rule_4_what_is_paused_holds_up_no_process(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    assert not (await queue.claim(9, held=busy)).leases
    await queue.pause("1", "42")
    await queue.enqueue([message("later", 9)])
    claim = await settle(queue, busy, Ack(), want=10)
    assert [lease.message.id for lease in claim.leases] == ["later"]


async def test_rule_4_a_lane_that_runs_alone_waits_for_nothing_beside(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message("busy", 1)])
    busy = (await queue.claim(1)).leases
    await taken_over_twice(redis, start)
    other = await start()
    await other.enqueue([message("higher", priority=Priority.INTERACTIVE)])
    (lease,) = (await other.claim(1)).leases
    await settle(other, [lease], REFUSED)
    assert not (await queue.claim(9, held=busy)).leases, "its lane is set aside while a retry of it is due later"
    (lease,) = (await settle(queue, busy, Ack(), want=10)).leases
    assert lease.message.id == "a"
    assert await redis.zscore(f"{P}due", lease.lane) is None, "or another process has the retry when it is due"


async def test_rule_4_clean_stops_are_no_poison(start: Start) -> None:
    for _ in range(4):
        queue = await start()
        await queue.enqueue([message("a")])
        (lease,) = (await queue.claim(1)).leases
        assert lease.takeovers == 0
        await queue.close()
