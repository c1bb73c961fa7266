"""The connection breaks after a script ran and before its reply: for every verb, nothing is lost, stuck or doubled."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from queueing.contract import Claim, Lease, Settlement
from queueing.errors import QueueUnavailable
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Release
from queueing.scripts import Script
from tests.conftest import Server
from tests.queueing.proxy import LossyProxy


@pytest.fixture
async def proxy(shared_server: Server, redis: Redis) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(shared_server.port) as proxy:
        for name in ("claim", "enqueue", "reap", "leave"):  # known to the server, so that EVALSHA is what gets lost
            await redis.script_load(Script(name).source)
        yield proxy


@pytest.fixture
async def queue(proxy: LossyProxy) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(proxy.url)
    await queue.start()
    yield queue
    await queue.close()


def message(n: int = 1) -> Message:
    return Message(bot="123", chat="42", id=f"m{n}", body={"text": str(n)}, track=True)


async def repeated(call: Callable[[], Awaitable[Claim]], proxy: LossyProxy) -> Claim:
    """As the worker does it: the same call again until it is answered."""
    proxy.lose(Script("claim").sha)
    with pytest.raises(QueueUnavailable):
        await call()
    assert proxy.lost == 1
    return await call()


async def lease_of(queue: RedisQueue) -> Lease:
    (lease,) = (await queue.claim(10)).leases
    return lease


async def test_enqueue_is_done_once(queue: RedisQueue, proxy: LossyProxy) -> None:
    untracked = Message(bot="123", chat="42", body={"text": "untracked"})
    proxy.lose(Script("enqueue").sha)
    await queue.enqueue([message(1), untracked])
    assert proxy.lost == 1
    assert (await queue.stats()).depth == 2


async def test_the_same_call_brings_the_same_results_of_parents(queue: RedisQueue, proxy: LossyProxy) -> None:
    parent = message(1).changed(provisional=True)
    proxy.lose(Script("enqueue").sha)
    await queue.enqueue([parent, message(2).changed(after=["m1"])])
    assert proxy.lost == 1
    lease, proxy.lost = await lease_of(queue), 0
    claim = await repeated(lambda: queue.claim(5, [Settlement(lease, Ack("17"))]), proxy)
    assert [(one.message.id, one.message.results) for one in claim.leases] == [("m2", {"m1": "17"})]
    assert not claim.stale


async def test_what_dies_with_its_parent_is_told_again(queue: RedisQueue, proxy: LossyProxy) -> None:
    await queue.enqueue([message(1).changed(after=["unheard-of"], group="g")])
    claim = await repeated(lambda: queue.claim(5), proxy)
    assert [reason for reason, _ in claim.buried] == ["parent_dead"]
    assert await queue.group("g") == {"dead:parent_dead": 1}


async def test_rule_1_the_same_call_number_brings_the_same_leases(queue: RedisQueue, proxy: LossyProxy) -> None:
    await queue.enqueue([message(1), message(2)])
    claim = await repeated(lambda: queue.claim(10), proxy)
    assert [lease.message.id for lease in claim.leases] == ["m1"]
    after = await queue.claim(10, [Settlement(claim.leases[0], Ack())])
    assert not after.stale
    assert [lease.message.id for lease in after.leases] == ["m2"]


async def test_what_a_repeated_call_brings_is_as_old_as_the_first(queue: RedisQueue, proxy: LossyProxy) -> None:
    await queue.enqueue([message(1)])
    before = queue.clock()
    proxy.lose(Script("claim").sha)
    with pytest.raises(QueueUnavailable):
        await queue.claim(10)
    between = queue.clock()
    (lease,) = (await queue.claim(10)).leases
    assert before <= lease.granted_at <= between


@pytest.mark.parametrize(
    ("decision", "state", "dead"),
    [
        (Ack("5"), MessageState.SENT, 0),
        (Release(60, "network", "refused", counts=True), MessageState.RETRYING, 0),
        (Bury("blocked", "by the user"), MessageState.DEAD, 1),
    ],
    ids=["ack", "release", "bury"],
)
async def test_a_settlement_is_done_once(
    queue: RedisQueue, proxy: LossyProxy, decision: Decision, state: MessageState, dead: int
) -> None:
    await queue.enqueue([message(1), message(2)])
    lease = await lease_of(queue)
    claim = await repeated(lambda: queue.claim(0, [Settlement(lease, decision)]), proxy)
    assert not claim.stale
    status, stats = await queue.status("m1"), await queue.stats()
    assert status
    assert status.state is state
    assert status.attempts == (1 if state is MessageState.RETRYING else 0)
    assert stats.dead == dead
    assert stats.depth == (2 if state is MessageState.RETRYING else 1)


async def test_a_settlement_and_the_next_claim_travel_together_and_both_survive(
    queue: RedisQueue, proxy: LossyProxy
) -> None:
    await queue.enqueue([message(1), message(2), message(3)])
    lease = await lease_of(queue)
    claim = await repeated(lambda: queue.claim(1, [Settlement(lease, Ack())]), proxy)
    assert [lease.message.id for lease in claim.leases] == ["m2"]
    assert (await queue.stats()).processed == 1


async def test_reap_takes_over_once(queue: RedisQueue, proxy: LossyProxy, redis: Redis) -> None:
    await queue.enqueue([message(1)])
    await lease_of(queue)
    other = RedisQueue(proxy.url)
    await other.start()
    await other.claim(0)
    await redis.zadd("{telegram_messages}:processes", {queue.incarnation: 1})
    proxy.lose(Script("reap").sha)
    await other.reap()
    assert proxy.lost == 1
    (lease,) = (await other.claim(10)).leases
    assert (lease.message.id, lease.takeovers) == ("m1", 1)
    await other.close()


async def test_leave_gives_back_once(proxy: LossyProxy) -> None:
    queue, other = RedisQueue(proxy.url), RedisQueue(proxy.url)
    await queue.start()
    await other.start()
    await queue.enqueue([message(1)])
    await lease_of(queue)
    proxy.lose(Script("leave").sha)
    await queue.close()
    assert proxy.lost == 1
    assert (await lease_of(other)).takeovers == 0
    await other.close()
