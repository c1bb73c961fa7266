"""Paid messages have a budget of their own; all else holds for them as for any other. On both queues, but the end."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease, Queue, Settlement
from queueing.limits import Rate, RateLimits
from queueing.message import Message, Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Release, Scope
from tests.queueing.both import StartAny, make_queue, start  # fixtures among them
from tests.queueing.desk import FRONT, P

__all__ = ["make_queue", "start"]


def free(name: str, chat: int = 1, **fields: object) -> Message:
    return Message(bot="1", chat=str(chat), id=name, body={"text": name}, **fields)  # type: ignore[arg-type]


def paid(name: str, chat: int = 1, **fields: object) -> Message:
    body = {"text": name, "kwargs": {"allow_paid_broadcast": True}}
    return Message(bot="1", chat=str(chat), id=name, body=body, **fields)  # type: ignore[arg-type]


def names(leases: Sequence[Lease]) -> list[str]:
    return [lease.message.id for lease in leases]


def settled(leases: Sequence[Lease], decision: Decision, written: float | None = 0.0) -> list[Settlement]:
    return [Settlement(lease, decision, written) for lease in leases]


async def take(queue: Queue, want: int) -> list[tuple[float, Lease]]:
    """Claims and acknowledges at once, as written then, until `want` came; with the time of each."""
    taken: list[tuple[float, Lease]] = []
    done: Sequence[Settlement] = ()
    ends = time.monotonic() + 10
    while len(taken) < want:
        assert time.monotonic() < ends, f"only {len(taken)} of {want} came"
        claim = await queue.claim(10, done)
        at = queue.clock()
        taken += [(at, lease) for lease in claim.leases]
        done = [Settlement(lease, Ack(), at - lease.granted_at) for lease in claim.leases]
        if not done:
            await queue.wait(0.25 if claim.next_due is None else claim.next_due + 0.0005)
    await queue.claim(0, done)
    return taken


async def test_what_is_paid_neither_uses_nor_waits_for_the_free_budget(start: StartAny) -> None:
    queue = await start(bot=Rate(1, 60), paid=Rate(2, 0.05))
    await queue.enqueue([free("f1", 1), free("f2", 2), *(paid(f"p{n}", 10 + n) for n in range(5))])
    taken = [lease.message.id for _, lease in await take(queue, 6)]
    assert sorted(taken) == ["f1", "p0", "p1", "p2", "p3", "p4"]
    claim = await queue.claim(10)
    assert not claim.leases
    assert claim.next_due == pytest.approx(60, abs=5)
    stats = await queue.stats()
    assert (stats.ready, stats.waiting) == (0, 1)


async def test_what_is_free_neither_uses_nor_waits_for_the_paid_budget(start: StartAny) -> None:
    queue = await start(paid=Rate(1, 60))
    await queue.enqueue([paid("p1", 1), paid("p2", 2), *(free(f"f{n}", 10 + n) for n in range(5))])
    taken = [lease.message.id for _, lease in await take(queue, 6)]
    assert len([name for name in taken if name.startswith("p")]) == 1
    assert sorted(taken)[:5] == ["f0", "f1", "f2", "f3", "f4"]
    assert not (await queue.claim(10)).leases
    stats = await queue.stats()
    assert (stats.ready, stats.waiting) == (0, 1)


async def test_only_true_is_paid(start: StartAny) -> None:
    queue = await start(paid=Rate(1, 60))
    odd = [1, "true", None, False, [True]]
    bodies = [{"text": "x", "kwargs": {"allow_paid_broadcast": value}} for value in odd] + [{"text": "x", "kwargs": []}]
    await queue.enqueue([Message(bot="1", chat=str(n), body=body) for n, body in enumerate(bodies)])
    assert len((await queue.claim(10)).leases) == len(bodies)


async def test_order_within_a_chat_holds_with_paid_and_free_mixed(start: StartAny) -> None:
    queue = await start(bot=Rate(1, 0.15), paid=Rate(1, 0.05))
    await queue.enqueue([(paid if n % 3 else free)(f"{n}") for n in range(9)])
    assert names([lease for _, lease in await take(queue, 9)]) == [f"{n}" for n in range(9)]


async def test_a_paid_head_that_waits_for_its_budget_holds_its_own_chat_alone(start: StartAny) -> None:
    queue = await start(paid=Rate(1, 60))
    await queue.enqueue([paid("a", 1), paid("b", 1), free("c", 1), free("d", 2)])
    assert sorted(names([lease for _, lease in await take(queue, 2)])) == ["a", "d"]
    assert not (await queue.claim(10)).leases


async def test_a_higher_priority_goes_first_whatever_is_paid(start: StartAny) -> None:
    queue = await start(bot=Rate(100, 1), paid=Rate(100, 1))
    await queue.enqueue([paid("b1", priority=Priority.BULK), free("n1"), paid("n2")])
    await queue.claim(0)
    await queue.enqueue([paid("i1", priority=Priority.INTERACTIVE), free("i2", priority=Priority.INTERACTIVE)])
    assert names([lease for _, lease in await take(queue, 5)]) == ["i1", "i2", "n1", "n2", "b1"]


async def test_the_chats_own_limit_holds_for_what_is_paid(start: StartAny) -> None:
    queue = await start(chat=Rate(2, 60))
    await queue.enqueue([paid("a"), free("b"), paid("c"), free("d")])
    assert names([lease for _, lease in await take(queue, 2)]) == ["a", "b"]
    assert not (await queue.claim(10)).leases


async def test_the_paid_budget_holds_in_every_window_and_is_used(start: StartAny) -> None:
    queue = await start(bot=Rate(1, 60), paid=Rate(20, 0.5))
    await queue.enqueue([paid(f"{n}-{chat}", chat) for n in range(3) for chat in range(20)])
    times = [at for at, _ in await take(queue, 60)]
    assert max(sum(start <= at < start + 0.495 for at in times) for start in times) <= 20


async def test_what_is_paid_and_was_not_written_gives_its_place_back(start: StartAny) -> None:
    queue = await start(paid=Rate(1, 60))
    await queue.enqueue([paid("a")])
    claim = await queue.claim(1)
    claim = await queue.claim(1, settled(claim.leases, Release(), None))
    assert names(claim.leases) == ["a"]


@pytest.mark.parametrize("refused", ["a", "b"])
async def test_a_pause_of_the_bot_holds_what_is_paid_too(start: StartAny, refused: str) -> None:
    queue = await start(bot=Rate(100), paid=Rate(100))
    await queue.enqueue([free("a", 1), paid("b", 2), free("c", 3), paid("d", 4)])
    taken = await queue.claim(10)
    while refused not in names(taken.leases):
        await queue.claim(0, settled(taken.leases, Release(), None))
        taken = await queue.claim(10)
    decision = Release(60, "unauthorized", "401", scope=Scope.BOT)
    one = [lease for lease in taken.leases if lease.message.id == refused]
    rest = [lease for lease in taken.leases if lease.message.id != refused]
    claim = await queue.claim(10, settled(one, decision) + settled(rest, Release(), None))
    assert not claim.leases
    assert claim.next_due == pytest.approx(60, abs=5)


async def test_a_paid_replay_at_the_head_does_not_wait_for_the_free_budget(start: StartAny) -> None:
    queue = await start(bot=Rate(1, 60), paid=Rate(100))
    await queue.enqueue([paid("dead", 1), free("first", 2)])
    leases = (await queue.claim(10)).leases
    fates = {"dead": Bury("blocked", "x"), "first": Ack()}
    await queue.claim(0, [Settlement(lease, fates[lease.message.id]) for lease in leases])
    await queue.enqueue([free("a", 1)])
    assert not (await queue.claim(10)).leases, "the free budget is used"
    await queue.redrive(["dead"], head=True)
    assert names((await queue.claim(10)).leases) == ["dead"]


# --- on Redis alone


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(redis_url, limits=RateLimits(bot=Rate(1, 60), paid=Rate(1, 30)))
    await queue.start()
    yield queue
    await queue.close()


async def test_elements_of_other_programs_are_paid_if_they_say_so(shared: RedisQueue, redis: Redis) -> None:
    text = '{"bot":"1","chat_id":%d,"text":"hi","kwargs":{"allow_paid_broadcast":%s}}'
    await redis.rpush(FRONT, *(text % (chat, "true" if chat < 4 else "false") for chat in range(8)))
    leases = (await shared.claim(10)).leases
    assert sorted(lease.message.paid for lease in leases) == [False, True]


async def test_why_tells_of_the_right_budget(shared: RedisQueue) -> None:
    await shared.enqueue([make(f"{chat}", chat, track=True) for chat, make in enumerate((free, free, paid, paid))])
    first = (await shared.claim(10)).leases
    assert len(first) == 2
    await shared.claim(10, settled(first, Ack()))
    for name in {"0", "1", "2", "3"} - set(names(first)):
        seconds = 60 if name in "01" else 30
        waiting = await shared.why(name)
        assert waiting
        assert (waiting.reason, waiting.ahead) == ("bot_limit", 0)
        assert waiting.until == pytest.approx(time.time() + seconds, abs=5)


async def test_everything_that_wakes_a_bot_wakes_what_it_pays_for(shared: RedisQueue) -> None:
    await shared.pause("1")
    await shared.enqueue([free("a", 1), paid("b", 2)])
    assert (await shared.claim(10)).leases == []
    waiting = asyncio.create_task(shared.wait(30))
    await asyncio.sleep(0)
    await shared.resume("1")
    await asyncio.wait_for(waiting, 10)
    assert sorted(names((await shared.claim(10)).leases)) == ["a", "b"]


async def test_a_replay_at_the_head_leaves_on_its_own_budget(shared: RedisQueue, redis: Redis) -> None:
    await shared.enqueue([paid("dead", 1)])
    await shared.claim(0, settled((await shared.claim(1)).leases, Bury("blocked", "x")))
    await shared.enqueue([free("a", 1), free("b", 1)])
    await shared.claim(0)
    assert await shared.redrive(["dead"], head=True) == 1
    assert not (await shared.claim(10)).leases, "the paid budget is used, and it is the head's"
    await redis.delete(f"{P}log:bot:1$", f"{P}pace")
    await redis.zadd(f"{P}bots:due", {"1$": 1}, xx=True)
    claim = await shared.claim(10)
    assert names(claim.leases) == ["dead"]
    assert names((await shared.claim(10, settled(claim.leases, Ack()))).leases) == ["a"]


async def test_the_head_behind_one_that_expired_leaves_on_its_own_budget(shared: RedisQueue) -> None:
    await shared.enqueue([paid("first", 2)])
    await shared.claim(0, settled((await shared.claim(1)).leases, Ack()))
    await shared.enqueue([free("late", 1, ttl=0.05), paid("a", 1)])
    await shared.pause("1")
    await shared.claim(0)
    await asyncio.sleep(0.06)
    await shared.resume("1")
    claim = await shared.claim(10)
    assert not claim.leases, "the paid budget is used"
    assert claim.next_due == pytest.approx(30, abs=5)


async def test_a_bot_that_pays_for_nothing_leaves_no_trace_of_it(shared: RedisQueue, redis: Redis) -> None:
    await shared.enqueue([free("a", 1), free("b", 2)])
    await shared.claim(0, settled((await shared.claim(10)).leases, Ack()))
    assert [key for key in await redis.keys("*") if "$" in key] == []
