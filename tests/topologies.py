"""Servers in company: a cluster, a primary with a replica and Sentinels, one that speaks TLS. All real, on loopback."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.conftest import Server, free_port

SLOTS = 16384
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""A primary would wait five seconds for more replicas before it serves the first."""


def await_that(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain for: {what}"
        time.sleep(0.02)


def client(server: Server) -> Redis:
    return Redis.from_url(server.url)


def info(server: Server, section: str) -> dict[str, object]:
    with client(server) as redis:
        return redis.info(section)


def is_primary(server: Server) -> bool:
    """Whether it says so; a server that is just being made one ends its connections."""
    try:
        return info(server, "replication")["role"] == "master"
    except RedisError:
        return False


class Cluster:
    """Primaries that share the slots evenly, started and in agreement."""

    def __init__(self, directory: Path, primaries: int) -> None:
        self._directory = directory
        self._bus: dict[int, int] = {}
        self.primaries = [self._start() for _ in range(primaries)]
        for number, node in enumerate(self.primaries):
            first, after = number * SLOTS // primaries, (number + 1) * SLOTS // primaries
            self.ask(node, "ADDSLOTSRANGE", first, after - 1)
            self._meet(node)
        self.await_agreement()

    @property
    def url(self) -> str:
        """Names one node only: the others are to be found."""
        return f"redis+cluster://127.0.0.1:{self.primaries[0].port}"

    def owner_of(self, slot: int) -> Server:
        return self.primaries[slot * len(self.primaries) // SLOTS]

    def ask(self, node: Server, *command: object) -> object:
        with client(node) as redis:
            return redis.execute_command("CLUSTER", *command)

    def add_replica(self, of: Server) -> Server:
        node = self._start()
        self._meet(node)
        id = self.ask(of, "MYID")
        await_that(lambda: id in bytes(self.ask(node, "NODES")), "the replica to know its primary")
        self.ask(node, "REPLICATE", id)
        await_that(lambda: info(node, "replication").get("master_link_status") == "up", "the replica to be in step")
        self.await_agreement()
        return node

    def move(self, slot: int, to: Server) -> None:
        """Gives an empty slot to another primary."""
        name = self.ask(to, "MYID")
        self.ask(to, "SETSLOT", slot, "NODE", name)
        self.ask(to, "BUMPEPOCH")  # or what its last owner said a moment ago may win
        for node in self.primaries:
            self.ask(node, "SETSLOT", slot, "NODE", name)

    def await_agreement(self) -> None:
        for node in self._nodes:
            await_that(lambda node=node: b"cluster_state:ok" in bytes(self.ask(node, "INFO")), "the cluster to agree")

    def stop(self) -> None:
        for node in self._nodes:
            node.stop()

    _nodes: list[Server]

    def _start(self) -> Server:
        directory = self._directory / f"node{len(self._bus)}"
        directory.mkdir()
        bus = free_port()
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(bus))
        node = Server(directory, options=(*_AT_ONCE, *options, "--cluster-replica-validity-factor", "0"))
        node.start()
        self._bus[node.port] = bus
        self._nodes = [*getattr(self, "_nodes", []), node]
        return node

    def _meet(self, node: Server) -> None:
        first = self._nodes[0]
        if node is not first:
            self.ask(node, "MEET", "127.0.0.1", first.port, self._bus[first.port])


class Guarded:
    """A primary, its replica, and three Sentinels that make the replica the primary half a second after its end."""

    SERVICE = "queue"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.primary = self._start("primary")
        self.replica = self._start("replica", "--replicaof", f"127.0.0.1 {self.primary.port}")
        await_that(lambda: info(self.replica, "replication").get("master_link_status") == "up", "a replica in step")
        self.sentinels = [self._start_sentinel(number) for number in range(3)]
        await_that(lambda: all(map(self._sees_all, self.sentinels)), "the Sentinels to know each other")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.SERVICE}"

    def stop(self) -> None:
        for server in (*self.sentinels, self.replica, self.primary):
            server.stop()

    def _start(self, name: str, *options: str) -> Server:
        (self._directory / name).mkdir()
        server = Server(self._directory / name, options=(*_AT_ONCE, *options))
        server.start()
        return server

    def _start_sentinel(self, number: int) -> "Sentinel":
        directory = self._directory / f"sentinel{number}"
        directory.mkdir()
        sentinel = Sentinel(directory)
        sentinel.configuration.write_text(
            f"port {sentinel.port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 500\n"
            f"sentinel failover-timeout {self.SERVICE} 3000\n"
        )
        sentinel.start()
        return sentinel

    def _sees_all(self, sentinel: Server) -> bool:
        with client(sentinel) as redis:
            state = redis.sentinel_master(self.SERVICE)
        return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1


class Sentinel(Server):
    """The same program in its other role. It keeps its state in its configuration file."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.configuration = directory / "sentinel.conf"

    def command(self) -> list[str]:
        return [self._binary, str(self.configuration), "--sentinel"]


class Encrypted(Server):
    """Debian's redis-server, which knows TLS, with a certificate made for it; it has no other port."""

    def __init__(self, directory: Path, password: str) -> None:
        binary = shutil.which("redis-server")
        assert binary, "redis-server is not installed: see deploy/install-test-tools.sh"
        super().__init__(directory, binary=binary, options=("--requirepass", password))
        self.certificate, self._key = directory / "server.crt", directory / "server.key"
        self.url = f"rediss://:{password}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificate}"

    def start(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=telequeue"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(self._key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        super().start()

    @staticmethod
    def _has_loaded(_probe: socket.socket) -> bool:
        return True  # it has nothing to load, and would not understand the question

    def command(self) -> list[str]:
        pair = ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self._key)]
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *pair]
