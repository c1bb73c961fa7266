"""How updates come to the bot: by long polling, or by a webhook that Telegram is told of. The leader's duty either way.

Polling asks Telegram for updates and gives each to the same intake as the webhook does: those of one chat in order,
those of different chats at once; 100 at most are in hand, which is what one getUpdates brings. An update is confirmed,
by asking for those after it, only when it and all before it are settled. With Redis they are as soon as they are in the
inbox. Else they are when they are handled: a slow one is given again and again meanwhile, together with whatever is
new, and nothing is lost with this process.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from telegram import Bot, Update
from telegram.error import TelegramError

from bot.intake import Intake
from bot.lanes import NO_LANE, lanes_of
from bot.patience import until_done
from bot.transport import AiohttpRequest
from bot.webhook import CountUpdate

_logger = logging.getLogger(__name__)

_LONG_POLL = 20.0
"""Seconds for which Telegram holds an answer that would be empty."""

_MARGIN = 10.0
"""Seconds beyond that in which the answer must be here."""

_LOOK_AGAIN = 0.5
"""Seconds after which new updates are asked for while some are still in hand."""

_LAST_HANDLERS = 5.0
"""Seconds that handlers get to end when polling does. Their updates are not confirmed, and come again."""

_MAX_CONNECTIONS = 100
"""Updates that Telegram posts to the webhook at once: the most it allows, since processes share them."""


async def serve_webhook(bot: Bot, url: str, secret: str, allowed: Sequence[str] | None) -> None:
    """Tells Telegram where to post updates, once, and then stays in office."""
    await until_done(
        "setWebhook",
        lambda: bot.set_webhook(
            url, secret_token=secret, allowed_updates=allowed or Update.ALL_TYPES, max_connections=_MAX_CONNECTIONS
        ),
    )
    _logger.info("Telegram now posts updates to %s", url)
    await asyncio.Event().wait()


class Poller:
    """Long polling, while `leads()` says that this process may.

    leads: asked before every request and before every update; needs to be right also after the process was stopped.
    allowed: the types of updates; None: all of them.
    """

    def __init__(
        self,
        bot: Bot,
        request: AiohttpRequest,
        intake: Intake,
        leads: Callable[[], bool],
        allowed: Sequence[str] | None,
        count: CountUpdate,
    ) -> None:
        self._bot = bot
        self._request = request
        self._intake = intake
        self._leads = leads
        self._allowed = list(allowed or Update.ALL_TYPES)
        self._count = count
        self._unsettled: dict[int, asyncio.Task[bool]] = {}
        self._newest: int | None = None
        self._last_of_chat: dict[str, asyncio.Task[bool]] = {}
        self._ending = False

    async def run(self) -> None:
        """Polls until it no longer leads or is cancelled; then lets the updates in hand end, and confirms them."""
        self._newest, self._ending = None, False
        await until_done("deleteWebhook", self._bot.delete_webhook)
        _logger.info("asking Telegram for updates by long polling")
        try:
            while self._leads():
                await self._round()
        finally:
            await self._end()

    async def _round(self) -> None:
        timeout = 0.0 if self._unsettled else _LONG_POLL
        updates = await until_done("getUpdates", lambda: self._ask(timeout))
        if not self._leads():
            return
        for fields in updates:
            self._accept(fields)
        if self._unsettled:
            await asyncio.wait(self._unsettled.values(), timeout=_LOOK_AGAIN)
            self._forget_settled()
        elif not updates:
            # Everything is confirmed by now. After a quiet week Telegram starts anew, at a random and maybe lower id.
            self._newest = None

    async def _ask(self, timeout: float, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """Raw, since one update that PTB can't read would cost all of them."""
        if not self._leads():
            return []
        parameters: dict[str, Any] = {"timeout": int(timeout), "limit": limit, "allowed_updates": self._allowed}
        if self._newest is not None:
            parameters["offset"] = min(self._unsettled, default=self._newest + 1)
        updates = await self._request.call(f"{self._bot.base_url}/getUpdates", parameters, timeout + _MARGIN)
        return updates if isinstance(updates, list) else []

    def _accept(self, fields: Mapping[str, Any]) -> None:
        update_id: int = fields["update_id"]
        if self._newest is not None and update_id <= self._newest:
            return
        self._newest = update_id
        chat = next(filter(None, lanes_of(fields)), NO_LANE)
        before = self._last_of_chat.get(chat)
        task = asyncio.create_task(self._settle(update_id, fields, before), name=f"polled-{update_id}")
        self._unsettled[update_id] = self._last_of_chat[chat] = task

    async def _settle(self, update_id: int, fields: Mapping[str, Any], before: "asyncio.Task[bool] | None") -> bool:
        """Whether the update may be confirmed; not so if it has to be left to the next leader."""
        if before is not None:
            await asyncio.wait({before})
            if not before.result():
                return False
        pause = 0.25
        while self._leads() and not self._ending:
            started = time.monotonic()
            taken = await self._intake.take(update_id, fields)
            self._count(taken.value, time.monotonic() - started)
            if taken.settled:
                return True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 2.0)
        return False

    def _forget_settled(self) -> None:
        for update_id, task in list(self._unsettled.items()):
            if task.done() and task.result():
                del self._unsettled[update_id]
        for chat, task in list(self._last_of_chat.items()):
            if task.done():
                del self._last_of_chat[chat]

    async def _end(self) -> None:
        """Lets the handlers that run end, and confirms what is settled: the next leader need not see it again."""
        self._ending = True
        if self._unsettled:
            await asyncio.wait(self._unsettled.values(), timeout=_LAST_HANDLERS)
        self._forget_settled()
        for task in self._unsettled.values():
            task.cancel()
        if self._newest is not None and self._leads():
            with contextlib.suppress(TelegramError):
                await self._ask(0.0, limit=1)
        self._unsettled.clear()
        self._last_of_chat.clear()
