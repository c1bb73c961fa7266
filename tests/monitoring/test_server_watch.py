"""What the log says of the queue's server, once, and when it changes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from monitoring.server_watch import ServerWatch
from queueing.contract import Finding
from queueing.errors import QueueUnavailable
from queueing.memory_queue import MemoryQueue
from tests.bot.served import Gunicorn, processes, telegram
from tests.conftest import wait_until

REPLICA, EVERYSEC = Finding("a replica", fatal=True), Finding("everysec")


class Served(MemoryQueue):
    """A queue whose server is as a test says; None: away."""

    findings: Sequence[Finding] | None = ()

    async def check(self) -> Sequence[Finding]:
        if self.findings is None:
            raise QueueUnavailable
        return self.findings


@pytest.fixture
def queue() -> Served:
    return Served()


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


async def test_findings_are_said_once_and_again_when_they_end(queue: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = ServerWatch(queue, lambda: True)
    queue.findings = [REPLICA, EVERYSEC]
    await watch.look()
    await watch.look()
    begun = [(logging.ERROR, "the queue's server: a replica"), (logging.WARNING, "the queue's server: everysec")]
    assert lines(caplog) == begun
    assert (watch.problem, watch.warnings) == ("a replica", ["everysec"])
    queue.findings = [EVERYSEC]
    await watch.look()
    assert lines(caplog) == [*begun, (logging.INFO, "the queue's server, not so any more: a replica")]
    assert (watch.problem, watch.warnings) == (None, ["everysec"])


async def test_nothing_is_known_of_a_server_that_is_away_and_nothing_repeated_when_it_is_back(
    queue: Served, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ServerWatch(queue, lambda: True)
    queue.findings = [REPLICA]
    await watch.look()
    queue.findings = None
    await watch.look()
    assert watch.problem is None
    queue.findings = [REPLICA]
    await watch.look()
    assert watch.problem == "a replica"
    assert len(lines(caplog)) == 1


async def test_who_may_not_speak_says_all_of_it_once_it_may(queue: Served, caplog: pytest.LogCaptureFixture) -> None:
    may = False
    watch = ServerWatch(queue, lambda: may)
    queue.findings = [EVERYSEC]
    await watch.look()
    assert watch.warnings == ["everysec"]
    assert not lines(caplog)
    may = True
    await watch.look()
    assert len(lines(caplog)) == 1


async def test_of_three_processes_one_says_it(tmp_path: Path, redis_url: str) -> None:
    async with telegram() as playground:
        gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=3)
        async with processes(gunicorn) as client:

            async def said() -> bool:
                everybody = len((await client.get("/api/v1/queue")).json()["processes"]) == 3
                return everybody and "appendfsync is everysec" in gunicorn.log.read_text()

            await wait_until(said, "all to run and one to say it")
            assert gunicorn.log.read_text().count("appendfsync is everysec") == 1
