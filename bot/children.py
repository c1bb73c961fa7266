"""Child processes that end when they are told to, and at the latest when we do."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Looked up here, not between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Has this process sent the signal when its parent dies, however it dies. Linux only; elsewhere it does nothing."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


class Child:
    """A program we started, in a process group of its own, so that the terminal's Ctrl-C reaches only us.

    To be started from the main thread: the kernel takes that thread's end for the parent's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
        silent: bool = False,
    ) -> None:
        """keep: file descriptors that it inherits, besides standard output and error. silent: without the former."""
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603  the callers name our own programs
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if silent else None,
            pass_fds=keep,
            process_group=0,
            preexec_fn=end_with_parent,
        )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self._process.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Ends it and its descendants at once, and waits for it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
