"""Handover: what a queue within a process left unsent goes to the queue that takes its chats now.

A process takes up by itself what was left by one that divided the chats as it does. What others left, before the share
was changed, is found here, and accepted anew: with its id, but as if nothing had been tried yet.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from queueing.contract import Front
from queueing.errors import QueueFull, QueueUnavailable
from queueing.message import Message
from queueing.tasks import end
from queueing.turns import Turn, aligned
from queueing.unsent import Journal, Left, Unsent

_EVERY = 1.0
"""Seconds between two looks: in a reload the processes before end after those that come have begun."""

_FIRST = 1.0
_AT_ONCE = 100

_logger = logging.getLogger(__name__)


class Handover:
    """directories: where others leave what is unsent; they need not be there. turn: shared by processes of this
    machine that look there."""

    def __init__(self, front: Front, directories: Callable[[], Iterable[Path]], turn: Turn | None = None) -> None:
        self._front = front
        self._directories = directories
        self._turn = turn or Turn()
        self._taken: list[Message] = []
        self._pauses: list[tuple[str, str]] = []
        self._from: Path | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Waits a moment for the first look, so that what is left goes before what is new."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST):
                await self._try_to_look()
        self._task = asyncio.create_task(self._run(), name="handover")

    async def stop(self) -> None:
        """What no queue has taken goes back to where it was."""
        await end(self._task)
        if not self._taken or not self._from:
            return
        try:
            Journal(self._from).write(Left(messages=map(Unsent, self._taken)))
        except OSError as error:
            _logger.error("%d messages end unsent with this process: %s", len(self._taken), error)

    async def _run(self) -> None:
        while True:
            if self._taken or self._pauses:
                await asyncio.sleep(aligned(_EVERY))
            else:
                await self._turn.wait(_EVERY)
            await self._try_to_look()

    async def _try_to_look(self) -> None:
        try:
            await self._look()
        except (QueueFull, QueueUnavailable, OSError) as error:
            _logger.debug("the handover has to wait: %s", error)

    async def _look(self) -> None:
        await self._hand_over()
        for directory in self._directories():
            for left in Journal(directory).take():
                self._from = directory
                self._taken += [_as_new(unsent.message) for unsent in left.messages]
                self._pauses += [(scope, reason) for scope, (_, reason) in left.by_hand.items()]
                await self._hand_over()

    async def _hand_over(self) -> None:
        while self._pauses:
            scope, reason = self._pauses[0]
            bot, _, chat = scope.partition(":")
            await self._front.pause(None if scope == "*" else bot, chat or None, reason)
            del self._pauses[0]
        taken = len(self._taken)
        while self._taken:
            await self._front.enqueue(self._taken[:_AT_ONCE])
            del self._taken[:_AT_ONCE]
        if taken:
            _logger.info("took up %d messages that another division of the chats had left unsent", taken)


def _as_new(message: Message) -> Message:
    """Tracked, so that it is not taken twice if the answer to its acceptance is lost; what is left of its ttl."""
    now = time.time()
    ttl = message.ttl
    if ttl is not None:
        begins = max(message.accepted or now, message.send_at or 0.0)
        ttl = min(ttl, max(0.001, begins + ttl - now))
    return message.changed(track=True, ttl=ttl, accepted=now)
