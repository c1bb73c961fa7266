"""A bot's waiting updates: taken by long polling, or handed to the webhook's delivery."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

from bot.playground.params import ApiError
from bot.playground.webhooks import Delivery, Webhook

# what Telegram leaves out unless it is asked for
NOT_BY_DEFAULT = {"chat_member", "message_reaction", "message_reaction_count"}
POLLED_RECENTLY = 5.0  # seconds after a getUpdates in which a bot counts as listening
FIRST_UPDATES = range(100_000_000, 900_000_000)


class Update(msgspec.Struct, gc=False):
    """One update: its kind is its second key (`message`, `callback_query` …); `lane` is what it is serial within."""

    update_id: int
    kind: str
    lane: tuple[str, int]
    body: dict[str, Any]


class Mailbox:
    """Updates not yet confirmed, in order, and whoever takes them."""

    def __init__(self, retry_speed: float) -> None:
        self._waiting: dict[int, Update] = {}
        # As Telegram does after a quiet week. The bot may remember those of the stand-in before this one as done.
        self._next = random.choice(FIRST_UPDATES)
        self._poll: asyncio.Future[list[dict[str, Any]]] | None = None
        self._retry_speed = retry_speed
        self.allowed: list[str] = []
        self.delivery: Delivery | None = None
        self.polled_at: float | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, kind: str, content: dict[str, Any], lane: tuple[str, int]) -> int:
        """Queue an update; returns its id, 0 if the bot does not want this kind."""
        if (self.allowed and kind not in self.allowed) or (not self.allowed and kind in NOT_BY_DEFAULT):
            return 0
        update_id = self._next
        self._next += 1
        update = Update(update_id, kind, lane, {"update_id": update_id, kind: content})
        self._waiting[update_id] = update
        if self.delivery is not None:
            self.delivery.add(update)
        elif self._poll is not None and not self._poll.done():
            # the poll is answered in the next turn of the loop, so that updates put together travel together
            asyncio.get_running_loop().call_soon(self._answer_poll)
        return update_id

    async def clear(self) -> None:
        """Drop what waits. A webhook stays set, and its delivery begins anew."""
        self._waiting.clear()
        if self.delivery is not None:
            await self.set_webhook(self.delivery.webhook)

    def delivered(self, update_id: int) -> None:
        self._waiting.pop(update_id, None)

    # --- webhook

    async def set_webhook(self, webhook: Webhook | None) -> None:
        """Start delivery to a new webhook, or stop it (None)."""
        if self.delivery is not None:
            await self.delivery.close()
            self.delivery = None
        if webhook is None:
            return
        self._end_poll("Conflict: terminated by setWebhook request")
        self.delivery = Delivery(webhook, self.delivered, self._retry_speed)
        for update in self._waiting.values():
            self.delivery.add(update)

    # --- long polling

    def poll(self, offset: int, limit: int, timeout: float) -> asyncio.Future[list[dict[str, Any]]]:
        """getUpdates. Ends an older poll that still waits; the result may come at once or after `timeout` seconds."""
        if self.delivery is not None:
            raise ApiError(
                409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the "
                "webhook first",
            )  # fmt: skip
        self._end_poll(
            "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
        )
        loop = asyncio.get_running_loop()
        self.polled_at = loop.time()
        self._confirm(offset)
        future: asyncio.Future[list[dict[str, Any]]] = loop.create_future()
        batch = self._batch(limit)
        if batch or timeout <= 0:
            future.set_result(batch)
            return future
        self._poll, self._limit = future, limit
        timer = loop.call_later(timeout, self._answer_poll)
        future.add_done_callback(lambda _: timer.cancel())
        return future

    def listening(self) -> bool:
        """Does somebody take this bot's updates by long polling?"""
        if self._poll is not None and not self._poll.done():
            return True
        return self.polled_at is not None and asyncio.get_running_loop().time() - self.polled_at < POLLED_RECENTLY

    def _confirm(self, offset: int) -> None:
        if offset < 0:
            keep = list(self._waiting)[offset:]
            offset = keep[0] if keep else 0
        for update_id in list(self._waiting):
            if update_id >= offset:
                break
            del self._waiting[update_id]

    def _batch(self, limit: int) -> list[dict[str, Any]]:
        batch = []
        for update in self._waiting.values():
            batch.append(update.body)
            if len(batch) >= limit:
                break
        return batch

    def _answer_poll(self) -> None:
        poll = self._poll
        if poll is not None and not poll.done():
            self.polled_at = asyncio.get_running_loop().time()
            poll.set_result(self._batch(self._limit))

    def _end_poll(self, description: str) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_exception(ApiError(409, description))
        self._poll = None

    async def close(self) -> None:
        await self.set_webhook(None)
        if self._poll is not None:
            self._poll.cancel()
