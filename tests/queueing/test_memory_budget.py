"""Rule 18: without a server, the processes of a machine divide a bot's budget and keep to it together."""

import math
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from queueing.contract import Lease, Settlement
from queueing.limits import MARGIN, OFF, Rate, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.retry import Ack
from queueing.shared_budget import BUSY, SharedBudget, share


@pytest.mark.parametrize(
    ("rate", "processes", "each"),
    [
        (Rate(30, 1.0), 6, Rate(5, 1.0)),
        (Rate(30, 1.0), 1, Rate(30, 1.0)),
        (Rate(10, 1.0), 6, Rate(1, 0.6)),
        (Rate(3, 1.0), 6, Rate(1, 2.0)),
        (Rate(20, 60.0), 3, Rate(6, 54.0)),
        (OFF, 6, OFF),
    ],
)
def test_shares(rate: Rate, processes: int, each: Rate) -> None:
    got = share(rate, processes)
    assert (got.count, got.period) == (each.count, pytest.approx(each.period))


@pytest.mark.parametrize("rate", [Rate(30, 1.0), Rate(10, 1.0), Rate(3, 1.0), Rate(7, 0.5)])
async def test_rule_18_six_queues_never_exceed_the_limit_and_use_it(rate: Rate, tmp_path: Path) -> None:
    now = 1000.0
    queues = [
        MemoryQueue(limits=RateLimits(bot=share(rate, 6)), budget=SharedBudget(tmp_path / "b", rate), clock=lambda: now)
        for _ in range(6)
    ]
    for queue in queues:
        await queue.enqueue([Message(bot="1", chat=str(chat), body={}) for chat in range(200)])
    left: list[float] = []
    done: list[list[Lease]] = [[] for _ in queues]
    seconds = 20 * rate.period
    while now < 1000.0 + seconds:
        for number, queue in enumerate(queues):
            claim = await queue.claim(10, [Settlement(lease, Ack()) for lease in done[number]])
            done[number] = list(claim.leases)
            left += [now] * len(claim.leases)
        now += 0.001
    for start in left:
        assert sum(start <= at < start + rate.period + MARGIN - 1e-6 for at in left) <= rate.count
    assert len(left) >= 0.9 * rate.count * seconds / rate.period
    for queue in queues:
        await queue.close()


def test_a_shared_log_at_its_boundary(tmp_path: Path) -> None:
    one, other = (SharedBudget(tmp_path / "b", Rate(2, 1.0)) for _ in range(2))
    assert one.take("7", 10.0) == -math.inf
    assert other.take("7", 10.5) == -math.inf
    assert one.take("7", 10.9) == pytest.approx(11.01)
    assert other.take("8", 10.9) == -math.inf, "another bot has its own"
    one.take_back("7", 10.5)
    assert one.take("7", 10.9) == -math.inf
    assert other.take("7", 11.0) == pytest.approx(11.01)
    assert other.take("7", 11.01) == -math.inf
    one.close()
    other.close()


def test_a_time_from_before_a_restart_of_the_machine_holds_nobody_up(tmp_path: Path) -> None:
    budget = SharedBudget(tmp_path / "b", Rate(1, 1.0))
    budget.take("7", 1_000_000.0)
    assert budget.take("7", 10.0) == -math.inf
    assert budget.take("7", 10.5) == pytest.approx(11.01)
    budget.close()


def test_a_time_a_little_ahead_counts(tmp_path: Path) -> None:
    """Another process asked for the time later and had the lock first."""
    budget = SharedBudget(tmp_path / "b", Rate(2, 1.0))
    budget.take("7", 10.0002)
    assert budget.take("7", 10.0) == 10.0 + BUSY
    budget.close()


def test_a_time_that_has_become_old_is_asked_for_anew(tmp_path: Path) -> None:
    """What one process has forgotten as past was not past for another that was held up with the time in hand."""
    one, other = (SharedBudget(tmp_path / "b", Rate(2, 1.0)) for _ in range(2))
    assert [one.take("7", 10.0), one.take("7", 10.01), one.take("7", 11.021)] == [-math.inf] * 3
    assert other.take("7", 11.0) > 11.0
    one.close()
    other.close()


def test_a_locked_file_is_never_waited_for(tmp_path: Path) -> None:
    one, other = (SharedBudget(tmp_path / "b", Rate(5, 1.0)) for _ in range(2))
    with one._locked("7"):
        assert other.take("7", 10.0) == 10.0 + BUSY
        other.take_back("7", 10.0)
    assert other.take("7", 10.0) == -math.inf
    one.close()
    other.close()


def test_where_there_can_be_no_file_the_share_is_what_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    budget = SharedBudget(tmp_path / "missing" / "b", Rate(1, 1.0))
    assert [budget.take("7", 10.0), budget.take("7", 10.0)] == [-math.inf, -math.inf]
    assert caplog.text.count("nothing holds them together") == 1
    budget.close()


def _spend(begin: Barrier, prefix: Path, rate: Rate, path: Path) -> None:
    budget = SharedBudget(prefix, rate)
    times = []
    begin.wait(60)
    ends = time.clock_gettime(time.CLOCK_MONOTONIC) + 2.0
    while (now := time.clock_gettime(time.CLOCK_MONOTONIC)) < ends:
        if budget.take("7", now) <= now:
            times.append(now)
        time.sleep(0.0005)
    path.write_text("\n".join(map(repr, times)))


def test_rule_18_real_processes_never_exceed_it_together(tmp_path: Path) -> None:
    rate, spawn = Rate(20, 0.2), multiprocessing.get_context("spawn")
    begin = spawn.Barrier(4)
    paths = [tmp_path / f"times-{number}" for number in range(4)]
    processes = [spawn.Process(target=_spend, args=(begin, tmp_path / "b", rate, path)) for path in paths]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    times = sorted(float(line) for path in paths for line in path.read_text().splitlines())
    assert len(times) > 2 * rate.count
    assert max(sum(start <= at < start + rate.period for at in times) for start in times) <= rate.count
    assert (tmp_path / "b-7.log").stat().st_size <= 8 * rate.count
