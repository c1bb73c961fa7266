"""Which process counts: prometheus_client asks the system for it at each number, a microsecond each; a fork tells."""

import os
from functools import cache

from prometheus_client import values

_pid = os.getpid()


def _note_fork() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


@cache  # once: a second kind of numbers would write into the files of the first
def count_without_asking() -> None:
    """To be called before the first metric of anyone is made, after PROMETHEUS_MULTIPROC_DIR is set: all of a process's
    numbers have to be of one kind, since they share files."""
    if values.ValueClass is not values.MutexValue:
        values.ValueClass = values.MultiProcessValue(lambda: _pid)  # type: ignore[no-untyped-call]
