"""Rule 6: a server at `maxmemory` refuses what is new, and everything that drains it goes on."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease, Settlement, TakenOver
from queueing.errors import QueueFull
from queueing.inbox import Commit, Standing, Write
from queueing.message import Message, MessageState
from queueing.redis_inbox import RedisInbox
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Release
from tests.conftest import Server

BODY = {"text": "x" * 4000}


@pytest.fixture
async def client(own_server: Server) -> AsyncIterator[Redis]:
    client = Redis.from_url(own_server.url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def queue(own_server: Server) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(own_server.url)
    await queue.start()
    yield queue
    await queue.close()


def message(n: int, **fields: object) -> Message:
    return Message(bot="123", chat=str(n % 100), id=f"m{n}", body=BODY, **fields)  # type: ignore[arg-type]


async def fill(client: Redis, *, but: int = 0) -> None:
    """From now on the server has less memory than it uses, by `but` bytes."""
    used = (await client.info("memory"))["used_memory"]
    await client.config_set("maxmemory", used - but)


async def test_rule_6_a_full_server_drains_and_takes_again(client: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message(n) for n in range(1000)])
    await fill(client, but=100_000)
    with pytest.raises(QueueFull, match="maxmemory"):
        await queue.enqueue([message(1000)])
    sent: list[str] = []
    leases: list[Lease] = []
    while len(sent) < 1000:
        leases = list((await queue.claim(50, [Settlement(lease, Ack("1")) for lease in leases])).leases)
        assert leases
        sent += [lease.message.id for lease in leases]
    await queue.claim(0, [Settlement(lease, Ack()) for lease in leases])
    assert (await queue.stats()).depth == 0
    assert sorted(sent) == sorted(f"m{n}" for n in range(1000)), "each once"
    await queue.enqueue([message(1001)])


@pytest.mark.parametrize(
    ("decision", "state"),
    [
        (Ack("1"), MessageState.SENT),
        (Release(60, "network", "refused", counts=True), MessageState.RETRYING),
        (Bury("blocked", "by the user"), MessageState.DEAD),
    ],
    ids=["ack", "release", "bury"],
)
async def test_rule_6_a_full_server_settles(
    client: Redis, queue: RedisQueue, decision: Decision, state: MessageState
) -> None:
    await queue.enqueue([message(1, track=True)])
    (lease,) = (await queue.claim(1)).leases
    await fill(client, but=1)
    assert not (await queue.claim(1, [Settlement(lease, decision)])).stale
    status = await queue.status("m1")
    assert status
    assert status.state is state


async def test_rule_6_a_full_server_ends_what_others_wait_for(client: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message(n, provisional=True, awaited=True, group="g") for n in range(50)])
    await queue.enqueue([message(n + 100, after=[f"m{n}"], group="g", also="7") for n in range(50)])
    await queue.claim(0)
    await fill(client, but=1)
    leases: list[Lease] = []
    sent = 0
    while sent < 60:
        leases = list((await queue.claim(50, [Settlement(lease, Ack("1")) for lease in leases])).leases)
        sent += len(leases)
        assert leases
    await queue.cancel_group("g")
    claim = await queue.claim(50, [Settlement(lease, Ack("1")) for lease in leases])
    while claim.next_due == 0:
        claim = await queue.claim(50)
    assert not claim.leases
    counts = await queue.group("g")
    assert counts == {"sent": sent, "cancelled": 100 - sent}


async def test_rule_6_a_full_server_takes_over_and_lets_go(
    client: Redis, queue: RedisQueue, own_server: Server
) -> None:
    dead, leaving = RedisQueue(own_server.url), RedisQueue(own_server.url)
    for n, other in enumerate((dead, leaving)):
        await other.start()
        await other.enqueue([message(n)])
        assert len((await other.claim(1)).leases) == 1
    await client.zadd("{telegram_messages}:processes", {dead.incarnation: 1})
    await fill(client, but=1)
    await queue.claim(0)
    assert await queue.reap() == [TakenOver(dead.incarnation, 1)]
    await leaving.close()
    assert sorted(lease.takeovers for lease in (await queue.claim(2)).leases) == [0, 1]
    await dead.close()


async def test_rule_6_a_full_server_commits_updates_and_so_drains_them(client: Redis, own_server: Server) -> None:
    inbox = RedisInbox(own_server.url, "123")
    await inbox.start()
    assert await inbox.accept(message(1), 1) is Standing.NEW
    (lease,) = (await inbox.claim(1)).leases
    await fill(client, but=1)
    with pytest.raises(QueueFull, match="maxmemory"):
        await inbox.accept(message(2), 2)
    assert await inbox.commit(lease.message, Commit([message(3)], writes=[Write("state:1", "a", b"1", ttl=60)])) == []
    assert not (await inbox.claim(0, [Settlement(lease, Ack())])).stale
    assert (await inbox.stats()).depth == 0
    await inbox.close()
