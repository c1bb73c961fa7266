"""What holds for every test of the queue that has a server."""

from collections.abc import Iterator

import pytest

from tests.conftest import Server
from tests.queueing.leaks import leaked


@pytest.fixture(autouse=True)
def no_key_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a key which is neither on the permanent list nor has a TTL. It looks after the test's
    own fixtures have ended, so that what a closing queue leaves is seen, too."""
    names = [name for name in ("shared_server", "own_server") if name in request.fixturenames]
    servers: list[Server] = [request.getfixturevalue(name) for name in names]
    yield
    for server in servers:
        if server.process and server.process.poll() is None:
            assert not leaked(server.url), "keys that stay for ever and are not on the list of queueing/keys.py"
