"""What holds for every test of the queue that has a server, and a cluster for those that want one."""

import os
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from tests.conftest import Server
from tests.queueing.leaks import leaked
from tests.topologies import Cluster, client


@pytest.fixture(autouse=True)
def no_key_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a key which is neither on the permanent list nor has a TTL. It looks after the test's
    own fixtures have ended, so that what a closing queue leaves is seen, too. What others left before is none of it."""
    names = [name for name in ("shared_server", "own_server") if name in request.fixturenames]
    servers: list[Server] = [request.getfixturevalue(name) for name in names]
    for server in servers:
        with client(server) as redis:
            redis.flushall()
    yield
    for server in servers:
        if server.process and server.process.poll() is None:
            assert not leaked(server.url), "keys that stay for ever and are not on the list of queueing/keys.py"


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), primaries=3)
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster_url(shared_cluster: Cluster) -> str:
    """The address of a real cluster that is empty where the queue is. It names a node that has not the queue's slot."""
    owner = shared_cluster.owner_of(key_slot(b"telegram_messages"))
    assert owner is not shared_cluster.primaries[0]
    with client(owner) as redis:
        redis.flushall()
    return shared_cluster.url


@pytest.fixture
def log() -> Iterator[tuple[int, int]]:
    """A pipe: who writes may be stopped at any time, and then holds no lock of it."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)
