"""A lock on a file, held by whoever has it open: the kernel frees it when the last of them ends, however it ends."""

import fcntl
import os
from pathlib import Path


class Lock:
    """Not taken until `take`. A child process that inherits `number` holds it as well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.number = -1

    def take(self) -> bool:
        """Whether the lock is ours now. Does not wait. Raises OSError if the file cannot be opened."""
        number = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return False
        os.ftruncate(number, 0)
        os.write(number, str(os.getpid()).encode())
        self.number = number
        return True

    def holder(self) -> str:
        """The process that took it last, as a number."""
        return self._path.read_text().strip() or "unknown"
