"""Where it is measured: a server and a stand-in of the benchmark's own, and the processes of whoever is measured."""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import unpack
from types import TracebackType
from typing import IO, Any, Self

from redis import Redis

from bot.children import end_with_parent
from bot.embedded import find_server, free_port
from tests.benchmarks.entrants import Entrant
from tests.benchmarks.stand_in import Tally

CHECKOUT = Path(__file__).parents[2]
_START = 60.0
"""Seconds that processes get to be ready."""
_FILL = 300.0


class Void(Exception):
    """What was measured means nothing; str() says why."""


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of these processes so far: to the nanosecond where the kernel keeps that, else to its tick."""
    return sum(map(_cpu_of, pids))


def _cpu_of(pid: int) -> float:
    with suppress(OSError):
        return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def tree(pid: int) -> list[int]:
    """A process and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


class Process:
    """One of ours, in a group of its own, which ends when we do. Its standard output is read; its errors are a file."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: IO[bytes]) -> None:
        self._popen = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0,
            preexec_fn=end_with_parent,
        )
        self.pid = self._popen.pid
        self._log = Path(log.name)

    def line(self, timeout: float) -> str:
        """The next one of its standard output. Raises Void if none comes."""
        assert self._popen.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise Void(f"{self._popen.args!r} said nothing within {timeout:g} s")
        if line := self._popen.stdout.readline():
            return line.decode().strip()
        raise Void(f"{' '.join(map(str, self._popen.args[3:]))} ended: {last_words(self._log)}")  # type: ignore[index]

    def tell(self, line: str) -> None:
        assert self._popen.stdin
        self._popen.stdin.write(f"{line}\n".encode())
        self._popen.stdin.flush()

    def signal(self, number: int) -> None:
        """To it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        if self._popen.poll() is None:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(10)
        self.signal(signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


def last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True, slots=True)
class Filled:
    """rate: messages a second. cpu, server_cpu: seconds a message."""

    rate: float
    cpu: float
    server_cpu: float


class Place:
    """The server, the stand-in and what they are told by. durable: whether the server keeps an append-only file, as the
    embedded one of `telequeue up` does."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self.directory = directory
        self._log = (directory / "log").open("ab")
        self._number = 0
        self.port = free_port(0)
        self.redis_url = f"redis://127.0.0.1:{self.port}/0"
        self._server = self._start_server(durable=durable)
        self.redis = Redis.from_url(self.redis_url)
        self.tally = Tally(directory / "tally")
        module = "tests.benchmarks.stand_in"
        self._stand_in = self.spawn([sys.executable, "-m", module, str(directory / "tally")], {})
        self.api_url = f"http://127.0.0.1:{int(self._stand_in.line(_START))}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.redis.close()
        self._stand_in.end()
        self._server.end()
        self._log.close()

    def _start_server(self, *, durable: bool) -> Process:
        options = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--dir": str(self.directory),
            "--appendonly": "yes" if durable else "no",
            "--auto-aof-rewrite-percentage": "0",  # it would begin in somebody's turn
            "--save": "",
            "--maxmemory-policy": "noeviction",
        }
        command = [find_server(), *(word for pair in options.items() for word in pair)]
        server = self.spawn(command, {})
        until(self._answers, "the server answers", _START)
        return server

    def _answers(self) -> bool:
        with Redis.from_url(self.redis_url) as probe, suppress(Exception):
            return bool(probe.ping())
        return False

    @property
    def server_cpu(self) -> float:
        return cpu_seconds([self._server.pid])

    def spawn(self, command: Sequence[str], environ: Mapping[str, str]) -> Process:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        return Process(command, {**kept, "TMPDIR": str(self.directory), **environ}, self._log)

    def environ(self, entrant: Entrant, **more: str) -> dict[str, str]:
        """For its processes, with more than what it needs itself."""
        self._number += 1
        common = {
            "REDIS_URL": self.redis_url,
            "API_URL": self.api_url,
            "MARK": str(self.directory / f"mark{self._number}"),
        }
        return {**common, "COROUTINES": "10", "SEND": "1", **entrant.environ, **more}

    def fill(self, entrant: Entrant, count: int, chats: int, *, single: bool = False, **more: str) -> "Filled":
        """Has the entrant's producer queue so many messages."""
        process, server = self.start_filling(entrant, count, chats, single=single, **more), self.server_cpu
        try:
            while not (line := process.line(_FILL)).startswith("{"):
                pass  # whatever its library says
            told = json.loads(line)
        finally:
            process.end()
        return Filled(count / told["seconds"], told["cpu"] / count, (self.server_cpu - server) / count)

    def start_filling(self, entrant: Entrant, count: int, chats: int, *, single: bool = False, **more: str) -> Process:
        words = ["fill", str(count), str(chats), *(["single"] if single else [])]
        return self.spawn(entrant.command(*words), self.environ(entrant, **more))

    def forget(self) -> None:
        """Empties the server, whose memory is free when this returns."""
        self.redis.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]

    def server_info(self, section: str) -> dict[str, Any]:
        return dict(self.redis.info(section))


@contextmanager
def place(*, durable: bool = True) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="telequeue-bench-") as name, Place(Path(name), durable=durable) as made:
        yield made


class Crew:
    """An entrant's worker processes."""

    def __init__(self, place: Place, entrant: Entrant, processes: int, **environ: str) -> None:
        self._place = place
        self.entrant = entrant
        self._environ = place.environ(entrant, PROCESSES=str(processes), **environ)
        many = 1 if entrant.together else processes
        self._processes: list[Process] = []
        try:
            for _ in range(many):
                self._processes.append(place.spawn(entrant.command("work"), self._environ))
            for process in self._processes:
                while process.line(_START) != "ready":
                    pass
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for process in self._processes:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in self._processes:
            process.end()

    @property
    def pids(self) -> list[int]:
        return [pid for process in self._processes for pid in tree(process.pid)]

    def handled(self) -> int:
        """By all of them, since they started; what handlers count themselves."""
        prefix = Path(self._environ["MARK"])
        marks = prefix.parent.glob(f"{prefix.name}.*")
        return sum(unpack("q", content)[0] for mark in marks if (content := _first(mark)))

    def stop(self) -> None:
        for process in self._processes:
            process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for process in self._processes:
            process.signal(signal.SIGCONT)

    def tell(self, count: int, chats: int) -> None:
        """What each of those that have no queue is to send."""
        share, rest = divmod(count, len(self._processes))
        for number, process in enumerate(self._processes):
            process.tell(f"{share + (number < rest)} {chats}")


def _first(mark: Path) -> bytes | None:
    with mark.open("rb") as file:
        content = file.read(8)
    return content if len(content) == 8 else None


def until(condition: Callable[[], bool], what: str, timeout: float, pause: float = 0.02) -> None:
    """Raises Void if it does not come to hold in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Void(f"waited {timeout:g} s in vain until {what}")
        time.sleep(pause)


def server_version(place: Place) -> str:
    info = place.server_info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "an unknown CPU"
