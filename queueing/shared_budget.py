"""One limit for several processes of one machine that have no server in common: a sliding log in a file.

Each process has its share of the rate, and so its share of the time. But shares alone do not hold the limit: six that
may send one each, 3 a second in all, can do it at once. So every departure is also written into a file, under a lock.
"""

import contextlib
import fcntl
import logging
import math
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from queueing.limits import MARGIN, OFF, Rate

BUSY = 0.002
"""Seconds after which a file is looked at again that another process has locked (it does so for some 20 µs)."""

_logger = logging.getLogger(__name__)


def share(rate: Rate, processes: int) -> Rate:
    """What one of so many processes may send: 30 in 1 s among six is 5 in 1 s, 10 in 1 s is 1 in 0.6 s."""
    if not rate.count:
        return OFF
    count = max(1, rate.count // processes)
    return Rate(count, rate.period * count * processes / rate.count)


class SharedBudget:
    """An exact sliding log for each bot, in the file `{prefix}-{bot}.log`: the times of the last that left, as doubles.

    All processes must have the same period and the same clock, one that begins anew with the machine: a time that lies
    more than a period ahead is one of before, and is ignored. Where counts differ, as in a reload that changes them,
    all together hold the largest. Where the file cannot be used, that is logged, once for each bot, and the shares are
    all that holds the limit.
    """

    def __init__(self, prefix: Path, rate: Rate) -> None:
        self._prefix = prefix
        self._count = rate.count
        self._period = rate.period + MARGIN
        self._files: dict[str, int] = {}

    def take(self, bot: str, now: float) -> float:
        """One leaves now, if it may: then the answer is -inf. Else it is when to ask again."""
        with self._locked(bot) as file:
            if file is None:
                return -math.inf
            if file < 0:
                return now + BUSY
            times = [at for at in self._read(file) if at < now + self._period and now < at + self._period]
            if times and now < times[-1]:
                return now + BUSY  # another process asked for the time later and came first: a log never goes back
            if len(times) >= self._count:
                return times[-self._count] + self._period
            self._write(file, [*times, now])
        return -math.inf

    def take_back(self, bot: str, at: float) -> None:
        """One that was to leave at this time did not. (While another process has the file, its place stays taken.)"""
        with self._locked(bot) as file:
            if file is not None and file >= 0:
                times = self._read(file)
                if at in times:
                    times.remove(at)
                    self._write(file, times)

    def close(self) -> None:
        while self._files:
            _, file = self._files.popitem()
            if file >= 0:
                os.close(file)

    def _read(self, file: int) -> list[float]:
        kept = os.pread(file, os.fstat(file).st_size, 0)
        return list(array("d", kept[: len(kept) // 8 * 8]))

    def _write(self, file: int, times: list[float]) -> None:
        data = array("d", times).tobytes()
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))

    @contextlib.contextmanager
    def _locked(self, bot: str) -> Iterator[int | None]:
        """The file; -1 while another process has it; None where there can be none."""
        file = self._files.get(bot)
        if file is None:
            file = self._files[bot] = self._open(bot)
        if file < 0:
            yield None
            return
        try:
            # Never waits: whoever has the lock might be stopped.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield -1
            return
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _open(self, bot: str) -> int:
        path = self._prefix.with_name(f"{self._prefix.name}-{bot}.log")
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            _logger.error("each process keeps to its share of the limit, but nothing holds them together: %s", error)
            return -1
