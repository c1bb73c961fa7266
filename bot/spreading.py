"""Spreading: what keeps broadcasts going, in every process. No process has a broadcast: any does the next step of any,
so that one that dies is not missed. Beside that, it shows their progress where they were started from, and unsubscribes
those who cannot be reached."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from bot.broadcast_handlers import cancel_keyboard, describe
from bot.broadcasts import Broadcasts, Progress, Shown, Status
from bot.outbox import Outbox
from bot.store import shown_key
from bot.subscribers import Subscribers
from queueing.errors import QueueError
from queueing.message import Priority
from queueing.scripts import mapped_errors
from queueing.tasks import end
from queueing.turns import Turn

_EVERY = 1.0
_SHOWN_EVERY = 5.0
"""Seconds between two edits of a progress message: a group has room for twenty messages and edits a minute."""

Part = Callable[[], Awaitable[None]]

_logger = logging.getLogger(__name__)


class Spreading:
    def __init__(
        self,
        redis: "Redis",
        broadcasts: Broadcasts,
        subscribers: Subscribers,
        outbox: Outbox,
        spreading: Turn | None = None,
        looking_after: Turn | None = None,
    ) -> None:
        self._spreading = spreading or Turn()
        self._looking_after = looking_after or Turn()
        self._redis = redis
        self._broadcasts = broadcasts
        self._subscribers = subscribers
        self._outbox = outbox
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        parts = {
            "spreading": self._repeat(self._spread, self._wait_to_spread, self._spreading),
            "looking-after": self._repeat(
                self._look_after, lambda: self._looking_after.wait(_EVERY), self._looking_after
            ),
            "unsubscribing": self._repeat(
                self._subscribers.remove_gone, lambda: self._subscribers.wait_for_gone(_EVERY)
            ),
        }
        self._tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]

    async def stop(self) -> None:
        await end(*self._tasks)
        await self._try(self._subscribers.remove_gone)

    async def _repeat(self, part: Part, wait: Part, turn: Turn | None = None) -> None:
        while True:
            if not await self._try(part) and turn:
                turn.failed()
            await wait()

    async def _wait_to_spread(self) -> None:
        """At once what was started here; what others have left over when it is this process's turn."""
        while not await self._broadcasts.wait(self._spreading.wake_in(_EVERY)):
            if self._spreading.take(_EVERY):
                return

    async def _try(self, part: Part) -> bool:
        """Whether it was done. What failed is done at the next look, by this process or another."""
        try:
            await part()
            return True
        except QueueError as error:
            _logger.debug("broadcasts have to wait: %s", error)
        except Exception:
            _logger.exception("a mistake of ours, and broadcasts go on")
        return False

    async def _spread(self) -> None:
        while await self._broadcasts.is_any_left() and await self._broadcasts.spread() > 0:
            pass

    async def _look_after(self) -> None:
        for id in await self._broadcasts.running():
            progress = await self._broadcasts.progress(id)
            if await self._is_shown(id, progress) and (progress is None or progress.ended):
                await self._broadcasts.forget_running(id)

    async def _is_shown(self, id: str, progress: Progress | None) -> bool:
        """Whether all who are to see it have been told how it is now."""
        shown = await self._broadcasts.shown(id) if progress else None
        if progress is None or shown is None:
            return True
        text = describe(progress)
        if text == shown.text:
            return True
        with mapped_errors():
            is_ours = await self._redis.set(shown_key(id), "", nx=True, px=round(_SHOWN_EVERY * 1000))
        if is_ours:
            await self._show(progress, shown, text)
        return bool(is_ours)

    async def _show(self, progress: Progress, shown: Shown, text: str) -> None:
        kwargs: dict[str, object] = {"message_id": shown.message}
        if not progress.ended and progress.status is not Status.CANCELLED:
            kwargs["reply_markup"] = cancel_keyboard(progress.id)
        edit = self._outbox.compose(
            shown.chat,
            text,
            method="editMessageText",
            kwargs=kwargs,
            priority=Priority.INTERACTIVE,
            ttl=None if progress.ended else _SHOWN_EVERY * 2,
        )
        await self._outbox.enqueue([edit])
        await self._broadcasts.note_shown(progress.id, text)
