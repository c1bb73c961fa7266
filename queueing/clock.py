"""The clock for what must not stand still: leases, seats, turns."""

import time
from typing import Final

CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""For time.clock_gettime: runs on while the process, or the whole machine, is stopped. Where there is none (macOS), the
next best."""
