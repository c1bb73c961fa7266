"""The network holds something back: an answer until the client asks again, or a request until after what was sent
later. For every verb that changes something, the late one changes nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from queueing import redis_desk
from queueing.contract import Settlement
from queueing.errors import QueueUnavailable
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury
from queueing.scripts import Script
from tests.conftest import Server
from tests.queueing.desk import P, state
from tests.queueing.proxy import LossyProxy, make_known

PATIENCE = 0.2
"""Seconds for which the client waits for an answer."""

Verb = Callable[[RedisQueue], Awaitable[Any]]

VERBS: dict[str, Verb] = {
    "enqueue": lambda queue: queue.enqueue([message("new"), message("twice", dedup_key="k")]),
    "claim": lambda queue: queue.claim(1, [Settlement(queue.lease, Ack("1"))]),  # type: ignore[attr-defined]
    "reap": lambda queue: queue.reap(),
    "redrive": lambda queue: queue.redrive(["dead0", "dead1"], head=True),
    "drop": lambda queue: queue.drop(["dead0", "dead1"]),
    "trim": lambda queue: queue.trim(),
    "cancel": lambda queue: queue.cancel("b"),
    "pause": lambda queue: queue.pause("1", "43", "a test"),
    "resume": lambda queue: queue.resume("7"),
    "alias": lambda queue: queue.alias("1", "44", "42"),
}


def message(name: str, chat: str = "42", **fields: object) -> Message:
    return Message(bot="1", chat=chat, id=name, body={"text": name}, track=True, **fields)  # type: ignore[arg-type]


@pytest.fixture
async def proxy(shared_server: Server, redis: Redis) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(shared_server.port) as proxy:
        for name in [*VERBS, "leave"]:  # known to the server, so that the proxy sees its call
            await make_known(redis, name)
        yield proxy


@pytest.fixture
async def queue(proxy: LossyProxy, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisQueue]:
    """One that holds `a`, beside dead letters, a pause, and a process that is presumed dead."""
    monkeypatch.setattr(redis_desk, "DEAD_MOST", 1)
    queue, dead = RedisQueue(proxy.url, timeout=PATIENCE), RedisQueue(proxy.url)
    await queue.start()
    await dead.start()
    for n in range(3):
        await queue.enqueue([message(f"dead{n}")])
        (lease,) = (await queue.claim(1)).leases
        await queue.claim(0, [Settlement(lease, Bury("blocked", "by the user"))])
    await queue.enqueue([message("held-by-a-dead-process", "45")])
    await dead.claim(1)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    await queue.enqueue([message("a"), message("b"), message("c", "44")])
    (queue.lease,) = (await queue.claim(1)).leases  # type: ignore[attr-defined]
    await queue.pause("7")
    yield queue
    await queue.close()
    await dead.close()


async def everything(redis: Redis) -> dict[str, Any]:
    """What the server holds, but for who was heard when."""
    read = {
        "string": redis.get,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "hash": redis.hgetall,
        "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
    }
    keys = [key for key in await redis.keys() if key not in (f"{P}processes", f"{P}clock", f"{P}idle")]
    held = {key: await read[await redis.type(key)](key) for key in keys}
    return {key: value for key, value in held.items() if not key.startswith(f"{P}log:")}


async def until_answered(verb: Verb, queue: RedisQueue) -> Any:
    """A claim is repeated by its caller; the client repeats everything else."""
    try:
        return await verb(queue)
    except QueueUnavailable:
        return await verb(queue)


@pytest.mark.parametrize("verb", VERBS)
async def test_an_answer_that_is_held_back_is_asked_for_again(
    verb: str, queue: RedisQueue, proxy: LossyProxy, redis: Redis
) -> None:
    before = await everything(redis)
    proxy.keep_back(Script(verb).sha)
    told = await until_answered(VERBS[verb], queue)
    assert proxy.lost == 1
    assert await everything(redis) != before
    if verb in ("redrive", "drop", "trim"):
        assert told == 2
    if verb == "claim":
        assert (len(told.leases), list(told.stale)) == (1, [])
        assert await state(queue, "a") is MessageState.SENT


@pytest.mark.parametrize("verb", VERBS)
async def test_a_request_that_comes_after_its_repetition_changes_nothing(
    verb: str, queue: RedisQueue, proxy: LossyProxy, redis: Redis
) -> None:
    before = await everything(redis)
    proxy.delay(Script(verb).sha)
    await until_answered(VERBS[verb], queue)
    after = await everything(redis)
    assert after != before
    assert not (await proxy.deliver()).startswith(b"-")
    assert await everything(redis) == after


async def test_rule_1_a_claim_that_comes_after_a_later_one_is_refused(
    queue: RedisQueue, proxy: LossyProxy, redis: Redis
) -> None:
    proxy.delay(Script("claim").sha)
    claim = await until_answered(VERBS["claim"], queue)
    await queue.claim(0, [Settlement(claim.leases[0], Ack("2"))])
    after = await everything(redis)
    assert (await proxy.deliver()).startswith(b"-OUTDATED")
    assert await everything(redis) == after


@pytest.mark.parametrize("first", ["pause", "resume"])
async def test_a_late_order_does_not_undo_the_one_that_followed_it(
    first: str, queue: RedisQueue, proxy: LossyProxy
) -> None:
    orders: list[Verb] = [lambda queue: queue.pause("7"), lambda queue: queue.resume("7")]
    if first == "resume":
        orders.reverse()
    proxy.delay(Script(first).sha)
    for order in orders:
        await order(queue)
    paused = await queue.paused()
    assert bool(paused) == (first == "resume")
    await proxy.deliver()
    assert await queue.paused() == paused


async def test_what_is_enqueued_late_was_sent_already(queue: RedisQueue, proxy: LossyProxy, redis: Redis) -> None:
    proxy.delay(Script("enqueue").sha)
    await queue.enqueue([Message(bot="1", chat="46", id="untracked", body={})])
    (lease,) = (await queue.claim(1, held=[queue.lease])).leases  # type: ignore[attr-defined]
    assert lease.message.id in ("untracked", "c")
    depth = (await queue.stats()).depth
    await proxy.deliver()
    assert (await queue.stats()).depth == depth


async def test_what_was_cancelled_and_asked_for_again_late_stays_as_it_is(queue: RedisQueue, proxy: LossyProxy) -> None:
    """A late cancel of a message that is in flight by now is refused."""
    proxy.delay(Script("cancel").sha)
    assert await queue.cancel("b") is MessageState.CANCELLED
    await queue.claim(1, [Settlement(queue.lease, Ack())])  # type: ignore[attr-defined]
    await proxy.deliver()
    assert await state(queue, "b") is MessageState.CANCELLED


async def test_two_processes_requests_in_the_other_order(queue: RedisQueue, proxy: LossyProxy, redis: Redis) -> None:
    """A settlement that arrives after another process took the message over is stale, also when it is repeated."""
    other = RedisQueue(proxy.url)
    await other.start()
    await other.claim(0)
    proxy.delay(Script("claim").sha)
    settlement = Settlement(queue.lease, Ack("late"))  # type: ignore[attr-defined]
    with pytest.raises(QueueUnavailable):
        await queue.claim(0, [settlement])
    await redis.zadd(f"{P}processes", {queue.incarnation: 1})
    await other.reap()
    taken = {lease.message.id for lease in (await other.claim(5)).leases}
    assert "a" in taken
    await proxy.deliver()
    assert await state(other, "a") is MessageState.SENDING
    assert list((await queue.claim(0, [settlement])).stale) == [settlement.lease.token]
    await other.close()


async def test_a_process_whose_leaving_comes_late_disturbs_nobody(
    queue: RedisQueue, proxy: LossyProxy, redis: Redis
) -> None:
    leaving = RedisQueue(proxy.url, timeout=PATIENCE)
    await leaving.start()
    assert [lease.message.id for lease in (await leaving.claim(1)).leases] == ["c"]
    proxy.delay(Script("leave").sha)
    await leaving.close()  # not answered, and not asked for again
    held = [queue.lease]  # type: ignore[attr-defined]
    await queue.claim(0, held=held)
    await redis.zadd(f"{P}processes", {leaving.incarnation: 1})
    await queue.reap()
    held += (await queue.claim(5, held=held)).leases
    assert "c" in {lease.message.id for lease in held}
    await proxy.deliver()
    assert not (await queue.claim(5, held=held)).lost
