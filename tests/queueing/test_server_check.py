"""What is said of a server: as a table, and of real ones with those settings."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from queueing.contract import Finding
from queueing.memory_queue import MemoryQueue
from queueing.redis_queue import RedisQueue
from queueing.server_check import Facts, judge
from tests.conftest import Server
from tests.topologies import Cluster, Guarded, client

Check = Callable[[str], Awaitable[list[Finding]]]
Begin = Callable[..., Server]

GOOD = Facts(version="7.2.4", mode="standalone", role="master", policy="noeviction", aof=True, fsync="always")


def test_nothing_is_said_of_a_server_that_has_all() -> None:
    assert judge(GOOD) == []
    assert judge(replace(GOOD, mode="cluster", cluster_state="ok"), as_cluster=True) == []


@pytest.mark.parametrize(
    ("what", "fatal", "words"),
    [
        ({"version": "6.2.14"}, True, "is 6.2.14, and older than 7.0"),
        ({"version": "6.9"}, True, "older than 7.0"),
        ({"version": None}, False, "version could not be checked"),
        ({"role": "slave"}, True, "a replica and refuses every write"),
        ({"mode": "sentinel"}, True, "redis+sentinel://"),
        ({"mode": "cluster", "cluster_state": "ok"}, False, "redis+cluster://"),
        ({"cluster_state": "fail"}, True, "the cluster is down"),
        ({"policy": "allkeys-lru"}, False, "allkeys-lru: THE SERVER DROPS MESSAGES"),
        ({"policy": None}, False, "maxmemory-policy could not be checked"),
        ({"aof": False, "fsync": None}, False, "loses what came since its last snapshot"),
        ({"aof": None, "fsync": None}, False, "appendonly could not be checked"),
        ({"fsync": "everysec"}, False, "up to 2 s of messages"),
        ({"fsync": "no"}, False, "typically 30 s"),
        ({"fsync": None}, False, "appendfsync could not be checked"),
    ],
)
def test_what_is_missing_is_said_with_its_meaning(what: dict[str, object], fatal: bool, words: str) -> None:
    (finding,) = judge(replace(GOOD, **what))  # type: ignore[arg-type]
    assert finding.fatal is fatal
    assert words in finding.words


@pytest.mark.parametrize("version", ["7.0.0", "7.0", "8", "10.1.2"])
def test_versions_that_will_do(version: str) -> None:
    assert judge(replace(GOOD, version=version)) == []


def test_the_worst_comes_first() -> None:
    findings = judge(replace(GOOD, role="slave", policy="volatile-ttl", aof=False))
    assert [finding.fatal for finding in findings] == [True, False, False]


# --- real servers


@pytest.fixture
async def check() -> AsyncIterator[Check]:
    queues: list[RedisQueue] = []

    async def check(url: str) -> list[Finding]:
        queue = RedisQueue(url)
        await queue.start()
        queues.append(queue)
        return list(await queue.check())

    yield check
    for queue in queues:
        await queue.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    servers: list[Server] = []

    def begin(*options: str, binary: str | None = None) -> Server:
        directory = tmp_path / str(len(servers))
        directory.mkdir()
        server = Server(directory, options=options, binary=binary)
        server.start()
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.stop()


async def test_of_a_server_as_telequeue_up_starts_it_only_everysec_is_said(redis_url: str, check: Check) -> None:
    (finding,) = await check(redis_url)
    assert not finding.fatal
    assert "appendfsync is everysec" in finding.words


async def test_of_debians_redis_all_is_known(begin: Begin, check: Check) -> None:
    server = begin("--appendfsync", "always", binary=shutil.which("redis-server") or "redis-server")
    assert await check(server.url) == []


async def test_bad_settings_are_found(begin: Begin, check: Check) -> None:
    server = begin("--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
    policy, file = await check(server.url)
    assert "allkeys-lru" in policy.words
    assert "appendonly is no" in file.words


async def test_a_replica_is_found_and_forgiven_once_it_is_the_primary(
    begin: Begin, shared_server: Server, check: Check
) -> None:
    server = begin("--appendfsync", "always", "--replicaof", f"127.0.0.1 {shared_server.port}")
    (finding,) = await check(server.url)
    assert finding.fatal
    with client(server) as redis:
        redis.replicaof("NO", "ONE")
    assert await check(server.url) == []


@pytest.mark.parametrize(
    ("rights", "unknown"),
    [
        ("+@all -config", ["appendfsync"]),
        ("+@all -config -info", ["version", "maxmemory-policy", "appendonly"]),
    ],
)
async def test_what_may_not_be_asked_is_said_to_be_unknown(
    begin: Begin, check: Check, rights: str, unknown: list[str]
) -> None:
    server = begin()
    with client(server) as redis:
        redis.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", *rights.split())
    findings = await check(server.url.replace("://", "://app:pw@"))
    assert len(findings) == len(unknown)
    for finding, name in zip(findings, unknown, strict=True):
        assert f"{name} could not be checked" in finding.words


async def test_a_command_that_was_renamed_is_unknown_too(begin: Begin, check: Check) -> None:
    (finding,) = await check(begin("--rename-command", "CONFIG", "secret").url)
    assert "appendfsync could not be checked" in finding.words


async def test_a_node_of_a_cluster(shared_cluster: Cluster, cluster_url: str, check: Check) -> None:
    assert not any("redis+cluster" in finding.words for finding in await check(cluster_url))
    named_as_server = await check(shared_cluster.primaries[0].url)
    assert any("redis+cluster" in finding.words for finding in named_as_server)


async def test_a_sentinel_that_is_taken_for_a_server(tmp_path: Path, check: Check) -> None:
    guarded = Guarded(tmp_path)
    try:
        (finding,) = await check(guarded.sentinels[0].url)
        assert finding.fatal
        assert not any(finding.fatal for finding in await check(guarded.url))
    finally:
        guarded.stop()


async def test_the_queue_in_process_has_no_server() -> None:
    assert await MemoryQueue().check() == ()
