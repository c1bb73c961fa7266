"""Services: what handlers may use of telequeue beside PTB, as `context.application.telequeue`."""

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from bot.broadcasts import Broadcasts
from bot.chat import ChatBackend
from bot.line import Line
from bot.subscribers import Subscribers
from queueing.contract import QueueStats
from queueing.limits import RateLimits

_logger = logging.getLogger(__name__)

Callback = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Services:
    """stats: what is in the queue; raises QueueUnavailable. limits: what may leave.
    subscribers, broadcasts: None without the shared queue. admins: ids of the chats that may broadcast.
    chat: None where CHAT_API_URL is not set. line: of those who ask it.
    """

    stats: Callable[[], Awaitable[QueueStats]]
    limits: RateLimits
    line: Line
    chat: ChatBackend | None = None
    subscribers: Subscribers | None = None
    broadcasts: Broadcasts | None = None
    admins: Collection[int] = ()
    _on_lead: list[Callback] = field(default_factory=list)

    def on_lead(self, callback: Callback) -> None:
        """Has it called in one process of all: each time that one becomes the one that speaks to Telegram."""
        self._on_lead.append(callback)

    async def lead(self) -> None:
        """This process is the one. What a callback raises is logged."""
        for callback in self._on_lead:
            try:
                await callback()
            except Exception:  # a bot's own code
                _logger.exception("what the bot does in one process of all failed")
