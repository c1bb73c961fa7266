"""Waiting: what wakes a process that waits for something to claim, and for how long it sleeps at most."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from queueing.slots import AFTER, Slots
from queueing.turns import Turn, aligned

_LOOK_EVERY = 0.25
"""Seconds after which an idle process looks even if no bell rang: a stopped process may have swallowed it."""


class Waiting:
    """Of one process at one queue, which says what it asks and is told.

    look: whether there is anything in the queue, now or later. heard_every: seconds after which the queue wants to hear
    from the process. looks, slots: see RedisQueue.
    """

    def __init__(
        self, look: Callable[[], Awaitable[bool]], heard_every: float, looks: Turn | None, slots: Slots | None
    ) -> None:
        self._look = look
        self._heard_every = heard_every
        self._looks = looks or Turn()
        self._slots = slots or Slots()
        self._idle, self._watches = True, False
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.begun = asyncio.Event()
        """Set while the process waits."""

    def asks(self, want: int) -> None:
        if want:
            self._slots.ask()

    def told(self, want: int, got: int, due: float | None, *, holds_any: bool) -> None:
        """The answer. due: seconds after which something is due; None: nothing is. holds_any: besides what it got."""
        self._idle = want > got
        if self._idle:
            self._looks.took()
        if want:
            is_seen_to = self._slots.told(due, has_room=self._idle, may_take=got > 0 or not holds_any)
            self._watches = self._idle and is_seen_to
        else:
            self._watches = False

    def notify(self) -> None:
        self._woken.set()

    async def wait(self, timeout: float, due: float | None) -> None:
        """See queueing.contract.Queue."""
        if not self._woken.is_set():
            self.begun.set()
            if due is not None and not self._watches:
                timeout = min(timeout, due + AFTER)
            loop = self._loop = self._loop or asyncio.get_running_loop()  # to ask which one runs is a system call
            self._until = loop.time() + min(timeout, aligned(self._heard_every))
            self._sleep(loop)
            try:
                await self._woken.wait()
            finally:
                if self._timer:
                    self._timer.cancel()
                if self._looking:
                    self._looking.cancel()
        self._woken.clear()
        self.begun.clear()

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until the process is to be heard, until what is due is to be asked for, or until its look."""
        seconds = self._until - loop.time()
        if self._idle:
            seconds = min(seconds, self._looks.wake_in(_LOOK_EVERY))
        if self._watches:
            seconds = min(seconds, self._slots.wake_in())
        self._timer = loop.call_later(math.ceil(seconds * 1000) / 1000, self._wake, loop)  # it has whole milliseconds

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.time() >= self._until or (self._watches and self._slots.take()):
            self._woken.set()
            return
        is_looking = self._looking is not None and not self._looking.done()  # the server may hang
        if self._idle and not is_looking and self._looks.take(_LOOK_EVERY):
            self._looking = loop.create_task(self._look_for_work(), name="look")
        self._sleep(loop)

    async def _look_for_work(self) -> None:
        if await self._look():
            self._woken.set()
