"""Endings: waits until a message has ended, for handlers that wait for the real result, and for calls of the HTTP API
that answer only then (SYNC_MESSAGE_PROCESSING).

What the workers of this process settle wakes whoever waits for it at once, and so does what the queue tells of the ends
of `awaited` messages elsewhere. What else other processes send is asked of the queue, more and more rarely: hundreds of
calls that wait must not keep Redis busy.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from queueing.contract import MessageStatus
from queueing.errors import QueueUnavailable
from queueing.events import Acked, Buried, Event
from queueing.message import MessageState

ENDED = frozenset(
    {
        MessageState.SENT,
        MessageState.DEAD,
        MessageState.CANCELLED,
        MessageState.EXPIRED,
        MessageState.UNCERTAIN,
    }
)
"""States that nothing but a person changes."""

_FIRST_LOOK, _SLOWER, _LAST_PAUSE = 0.05, 1.6, 1.0
"""Seconds between the first looks, by how much each pause is longer than the one before, and seconds at most: a send of
0.2 s is noticed some 0.05 s late, and a call that waits for long costs Redis one HGETALL a second."""

_TOLD_LOOK, _TOLD_PAUSE = 1.0, 5.0
"""The same for an `awaited` message, whose end is missed only while the queue's server is away."""

_AT_ONCE = 8
"""Questions, and so connections, at the same time."""


class Endings:
    """An Observer. status: the queue's."""

    def __init__(self, status: Callable[[str], Awaitable[MessageStatus | None]]) -> None:
        self._status = status
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._over = False

    def __call__(self, event: Event, /) -> None:
        if self._waiting and isinstance(event, Acked | Buried) and event.message is not None:
            self.told(event.message.id)

    def told(self, id: str) -> None:
        """This message has ended; for Front.hear_ends."""
        for ended in self._waiting.get(id, ()):
            ended.set()

    async def wait(self, id: str, deadline: float, *, awaited: bool = False) -> MessageStatus | None:
        """What is known of the message once it has ended or, if it does not, at `deadline` (the event loop's time) or
        after `give_up`. None: nothing is known, or the queue's server is away.

        awaited: the queue tells of its end.
        """
        loop = asyncio.get_running_loop()
        pause, most = (_TOLD_LOOK, _TOLD_PAUSE) if awaited else (_FIRST_LOOK, _LAST_PAUSE)
        with self._listening(id) as ended:
            while True:
                status = await self._ask(id)
                left = deadline - loop.time()
                if (status and status.state in ENDED) or left <= 0 or self._over:
                    return status
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(pause, left)):
                        await ended.wait()
                ended.clear()
                pause = min(pause * _SLOWER, most)

    @property
    def over(self) -> bool:
        """Whether `give_up` was called."""
        return self._over

    def give_up(self) -> None:
        """Nobody waits any longer, now or later: the process is about to end."""
        self._over = True
        for waiting in self._waiting.values():
            for ended in waiting:
                ended.set()

    @contextlib.contextmanager
    def _listening(self, id: str) -> Iterator[asyncio.Event]:
        ended = asyncio.Event()
        self._waiting.setdefault(id, []).append(ended)
        try:
            yield ended
        finally:
            self._waiting[id].remove(ended)
            if not self._waiting[id]:
                del self._waiting[id]

    async def _ask(self, id: str) -> MessageStatus | None:
        try:
            async with self._asking:
                return await self._status(id)
        except QueueUnavailable:
            return None
