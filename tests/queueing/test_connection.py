"""The queue on what else a URL may name: TLS, a cluster, Sentinels. Real servers, real failovers."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import DataError
from redis.exceptions import TimeoutError as NoAnswer

from bot import store
from queueing.address import Address
from queueing.connection import _owner, connect
from queueing.contract import Claim, Settlement
from queueing.errors import QueueUnavailable
from queueing.limits import OFF, RateLimits
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Outcome, RetryPolicy, Sent, Unsent
from queueing.worker import MayWrite, Worker
from tests.conftest import Server, free_port
from tests.topologies import Cluster, Encrypted, Guarded, client, is_primary

FRONT = "telegram_messages"
Eventually = Callable[..., Awaitable[None]]
Open = Callable[..., Awaitable[RedisQueue]]


def message(name: str, chat: int = 42) -> Message:
    return Message(bot="1", chat=str(chat), id=name, body={"text": name}, track=True)


def ids(claim: Claim) -> list[str]:
    return [lease.message.id for lease in claim.leases]


@pytest.fixture
async def open_queue() -> AsyncIterator[Open]:
    opened: list[RedisQueue] = []

    async def open_queue(url: str, **options: float) -> RedisQueue:
        queue = RedisQueue(url, **options)  # type: ignore[arg-type]
        await queue.start()
        opened.append(queue)
        return queue

    yield open_queue
    for queue in opened:
        await queue.close()


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Encrypted]:
    server = Encrypted(tmp_path, "hunter two")
    server.url = server.url.replace("hunter two", "hunter%20two")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, primaries=3)
    yield cluster
    cluster.stop()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "cluster":
        return str(request.getfixturevalue("cluster_url"))
    return str(request.getfixturevalue(request.param).url)


@pytest.mark.parametrize("url", ["encrypted", "cluster", "guarded"], indirect=True)
async def test_everything_that_is_asked_of_a_server_works(url: str, open_queue: Open) -> None:
    queue = await open_queue(url)
    # scripts, unknown to the server at first, a pipeline in a transaction, and single commands
    await queue.register("1", "1:proven")
    await queue.offer("1", "1:offered")
    assert await queue.credentials("1") == ["1:proven", "1:offered"]
    await queue.enqueue([message("a"), message("b"), message("c", 43)])
    claim = await queue.claim(10)
    assert ids(claim) == ["a", "c"]
    sent, dead = claim.leases
    await queue.claim(0, [Settlement(sent, Ack("7")), Settlement(dead, Bury("blocked", "by the user"))])
    status = await queue.status("a")
    assert status is not None
    assert status.state is MessageState.SENT
    assert (await queue.stats()).dead == 1
    # the operator's: TIME, ranges, scans
    assert [letter.id for letter in (await queue.dead_page(10)).letters] == ["c"]
    assert await queue.redrive_all() == 1
    await queue.pause("1", "44", "why not")
    assert [(pause.chat, pause.reason) for pause in await queue.paused() if pause.since] == [("44", "why not")]
    assert await queue.cancel("b") is MessageState.CANCELLED
    assert await queue.reap() == []
    # a blocking pop, and what the doorbell moved
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.enqueue([message("d", 45)])
    await asyncio.wait_for(waiting, 10)
    await queue.resume("1", "44")
    assert "d" in ids(await queue.claim(10))


@pytest.mark.parametrize("url", ["encrypted", "cluster", "guarded"], indirect=True)
async def test_so_does_what_the_bot_keeps_beside_the_queue(url: str) -> None:
    redis = store.connect(url, 5.0)
    lock = redis.lock(store.leader_key("1"), timeout=3, thread_local=False)
    assert await lock.acquire(blocking=False)
    assert await lock.reacquire()
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.set(store.me_key("1"), "{}")
        pipeline.expire(store.me_key("1"), 60)
        assert await pipeline.execute() == [True, True]
    await lock.release()
    await redis.aclose()


async def test_what_does_not_trust_the_certificate_gets_nothing(encrypted: Encrypted, open_queue: Open) -> None:
    queue = await open_queue(encrypted.url.partition("?")[0])
    with pytest.raises(QueueUnavailable, match=r"(?i)certificate"):
        await queue.enqueue([message("a")])


async def test_a_cluster_goes_on_without_the_node_that_the_url_names(cluster: Cluster) -> None:
    redis = store.connect(cluster.url, 2.0)
    assert await redis.set(store.me_key("1"), "x")
    # A new connection asks again: another node knows, too.
    cluster.primaries[0].kill()
    await redis.connection_pool.disconnect()
    assert await redis.get(store.me_key("1")) == b"x"
    await redis.aclose()


async def test_a_claim_is_not_repeated_by_the_client(open_queue: Open, guarded: Guarded) -> None:
    queue = await open_queue(guarded.url)
    await queue.claim(1)
    with client(guarded.primary) as redis:
        before = redis.info("commandstats")["cmdstat_fcall"]["calls"]
        redis.config_set("min-replicas-to-write", 5)
        with pytest.raises(QueueUnavailable):
            await queue.claim(1)
        after = redis.info("commandstats")["cmdstat_fcall"]
    assert after["calls"] + after["rejected_calls"] == before + 1


# --- failover

OFTEN = RateLimits(OFF, OFF, OFF)


async def run_through_failover(url: str, primary: Server, replica: Server, eventually: Eventually) -> None:
    """Two processes are sending when the primary is killed: all that was accepted is sent, and both go on."""
    sent: list[str] = []

    async def deliver(message: Message, may_write: MayWrite) -> Outcome:
        await asyncio.sleep(0.02)
        if not may_write():
            return Unsent("network", "the lease ended")
        sent.append(message.id)
        return Sent("1")

    queues = [RedisQueue(url, timeout=1.0, lease_seconds=5.0, limits=OFTEN) for _ in range(2)]
    workers = [Worker(q, deliver, workers=3, policy=RetryPolicy(), observe=lambda _event: None) for q in queues]
    for queue in queues:
        await queue.start()
    names = {f"m{n}" for n in range(500)}
    await queues[0].enqueue([message(name, chat=n) for n, name in enumerate(sorted(names))])
    with client(primary) as redis:
        redis.set(f"{{{FRONT}}}:after", "all that", ex=60)  # the server waits for what this connection wrote
        assert redis.wait(1, 20_000) == 1  # replicas that have it
    try:
        for worker in workers:
            await worker.start()
        await eventually(lambda: len(sent) > 50, "sending to begin")
        primary.kill()
        await eventually(lambda: is_primary(replica), "the replica to be the primary")
        await eventually(lambda: set(sent) == names, "everything to be sent", timeout=60)
        await queues[1].enqueue([message("after")])
        await eventually(lambda: "after" in sent, "what came afterwards")
        await eventually(lambda: all(w.running and w.available for w in workers), "both to be at work")
        await eventually(lambda: all(q.remaining() > 0 for q in queues), "both to have asked")
    finally:
        for worker, queue in zip(workers, queues, strict=True):
            await worker.stop(grace=1)
            await queue.close()


async def test_after_a_failover_by_sentinels_everything_is_sent(guarded: Guarded, eventually: Eventually) -> None:
    await run_through_failover(guarded.url, guarded.primary, guarded.replica, eventually)


async def test_after_a_failover_of_a_cluster_everything_is_sent(cluster: Cluster, eventually: Eventually) -> None:
    primary = cluster.owner_of(key_slot(FRONT.encode()))
    replica = cluster.add_replica(primary)
    await run_through_failover(cluster.url, primary, replica, eventually)


async def test_a_connection_to_a_server_that_became_a_replica_is_given_up(
    own_server: Server, shared_server: Server, open_queue: Open
) -> None:
    """Behind a name that moves, as managed servers have one, a new connection finds the new primary."""
    queue = await open_queue(own_server.url)
    with client(own_server) as redis:
        await queue.claim(1)
        before = {entry["id"] for entry in redis.client_list() if entry["name"] == "telequeue"}
        assert before
        redis.replicaof("127.0.0.1", shared_server.port)
        with pytest.raises(QueueUnavailable, match="not the primary"):
            await queue.claim(1)
        redis.replicaof("NO", "ONE")
        await queue.claim(1)
        after = {entry["id"] for entry in redis.client_list() if entry["name"] == "telequeue"}
    assert after - before


async def test_a_slot_that_moves_is_followed(shared_cluster: Cluster, cluster_url: str, open_queue: Open) -> None:
    """Empty, since a script cannot see a slot that is half here and half there."""
    slot = key_slot(FRONT.encode())
    home, other = shared_cluster.owner_of(slot), shared_cluster.primaries[0]
    queue = await open_queue(cluster_url)
    await queue.credentials("1")
    shared_cluster.move(slot, other)
    await queue.enqueue([message("a")])
    with client(other) as redis:
        assert redis.llen(FRONT) == 1
        redis.flushall()
    shared_cluster.move(slot, home)
    await queue.enqueue([message("b")])


async def test_without_anybody_who_knows_the_primary_the_error_says_so(open_queue: Open) -> None:
    queue = await open_queue(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/queue")
    with pytest.raises(QueueUnavailable, match="the primary is not found"):
        await queue.claim(1)


async def test_a_service_that_no_sentinel_knows(guarded: Guarded, open_queue: Open) -> None:
    queue = await open_queue(guarded.url + "s")
    with pytest.raises(QueueUnavailable, match="the primary is not found: nobody knows it"):
        await queue.claim(1)


async def test_a_server_that_is_no_cluster(redis_url: str, open_queue: Open) -> None:
    queue = await open_queue(redis_url.replace("redis://", "redis+cluster://"))
    with pytest.raises(QueueUnavailable, match="cluster support disabled"):
        await queue.claim(1)


# --- addresses

SEVERAL = (("a", 1), ("::1", 26379), ("c.example.org", 26379))


def test_sentinels_of_an_address() -> None:
    url = "rediss+sentinel://u:p%40ss@a:1,[::1],c.example.org/queue-1/3?ssl_ca_certs=x&sentinel_password=s%26t"
    address = Address.parse(url)
    assert (address.kind, address.hosts, address.service) == ("sentinel", SEVERAL, "queue-1")
    assert address.sentinel == (("password", "s&t"),)
    assert address.url == "rediss://u:p%40ss@primary/3?ssl_ca_certs=x"


def test_nodes_of_an_address() -> None:
    address = Address.parse("redis+cluster://:p@a:7000,b")
    assert (address.kind, address.hosts) == ("cluster", (("a", 7000), ("b", 6379)))
    assert address.url == "redis://:p@primary/0"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://host",  # no service
        "redis+sentinel://host/",
        "redis+sentinel://host/queue/x",
        "redis+sentinel://host/queue/1/2",
        "redis+sentinel://host,/queue",
        "redis+sentinel://host:0/queue",
        "redis+sentinel://host:65536/queue",
        "redis+cluster://a,b/1",
        "redis+cluster://a?db=1",
        "redis+cluster://",
        "redis+other://host/1",
        "http+sentinel://host/queue",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape("redis+sentinel://")):
        Address.parse(url)


@pytest.mark.parametrize(
    ("host", "found"), [(b"10.0.0.1", "10.0.0.1"), (b"", "asked"), (None, "asked"), (b"?", "asked")]
)
def test_a_node_without_a_host_is_at_the_one_that_was_asked(host: bytes | None, found: str) -> None:
    ranges = [[0, 99, [b"x", 1, b"id"]], [100, 200, [host, 7000, b"id", []], [b"r", 7001, b"id"]]]
    assert _owner(ranges, 150, "asked") == ((found, 7000), [(found, 7000), ("r", 7001)])
    assert _owner(ranges, 201, "asked") == (None, [])


async def test_five_hundred_who_ask_at_once_all_get_an_answer(redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    await queue.start()
    try:
        await asyncio.gather(*(queue.enqueue([Message(bot="1", chat=str(n), body={"text": "x"})]) for n in range(500)))
        assert (await queue.stats()).depth == 500
    finally:
        await queue.close()


@pytest.mark.parametrize("value", [None, True, [1]])
async def test_what_is_no_argument_is_refused_before_it_is_sent(redis_url: str, value: object) -> None:
    async with connect(redis_url, retry=Retry(NoBackoff(), 0), timeout=5, key=FRONT, name="test") as redis:
        with pytest.raises(DataError):
            await redis.rpush("list", value)  # type: ignore[arg-type]
        assert await redis.config_get("save") == {"save": ""}  # a command of two words


async def test_who_writes_much_to_a_server_that_does_not_read_gives_up(
    own_server: Server, eventually: Eventually
) -> None:
    assert own_server.process
    async with connect(own_server.url, retry=Retry(NoBackoff(), 0), timeout=3, key=FRONT, name="test") as redis:
        await redis.set("large", b"0" * 2**24)  # so much is sent to one that reads
        assert await redis.getdel("large") == b"0" * 2**24
        own_server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(NoAnswer):
                await asyncio.wait_for(redis.set("large", b"0" * 2**24, ex=60), 30)
        finally:
            own_server.process.send_signal(signal.SIGCONT)

        async def is_closed() -> bool:
            return len(await redis.client_list()) == 1

        await eventually(is_closed, "the connection that was given up is closed")
