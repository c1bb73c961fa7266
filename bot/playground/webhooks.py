"""Webhook delivery as Telegram does it: serial within a chat, retried with growing pauses, until the bot says 2xx."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import orjson

if TYPE_CHECKING:
    from bot.playground.updates import Update

ANSWER_TIMEOUT = 60.0  # seconds
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 3600.0
GIVE_UP_AFTER = {"callback_query": 150.0}  # seconds from the first attempt; anything else is tried for a day
A_DAY = 86_400.0


class Webhook(msgspec.Struct):
    """What setWebhook set, and how delivery goes."""

    url: str
    secret: str = ""
    max_connections: int = 40
    last_error_date: int = 0
    last_error_message: str = ""


class Delivery:
    """Sends a bot's updates to its webhook. A lane (chat, or user for callbacks) has one update on its way at most."""

    def __init__(self, webhook: Webhook, delivered: Callable[[int], None], retry_speed: float) -> None:
        self.webhook = webhook
        self._delivered = delivered
        self._speed = retry_speed
        self._lanes: dict[tuple[str, int], deque[Update]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(webhook.max_connections)
        self._session: aiohttp.ClientSession | None = None

    def add(self, update: Update) -> None:
        """Queue an update behind those of its lane."""
        lane = self._lanes.get(update.lane)
        if lane is not None:
            lane.append(update)
            return
        lane = self._lanes[update.lane] = deque([update])
        task = asyncio.get_running_loop().create_task(self._serve(update.lane, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _serve(self, name: tuple[str, int], lane: deque[Update]) -> None:
        while lane:
            await self._deliver(lane[0])
            self._delivered(lane.popleft().update_id)
        del self._lanes[name]

    async def _deliver(self, update: Update) -> None:
        """Until it was taken, or its time is over. The first retry comes at once, then after 2, 4, 8 … seconds."""
        body = orjson.dumps(update.body)
        deadline = time.monotonic() + GIVE_UP_AFTER.get(update.kind, A_DAY) / self._speed
        pause = 0.0
        while time.monotonic() < deadline:
            async with self._slots:
                error, retry_after = await self._post(body)
            if not error:
                return
            self.webhook.last_error_date = int(time.time())
            self.webhook.last_error_message = error
            wait = retry_after if retry_after is not None else pause
            await asyncio.sleep(wait / self._speed)
            pause = min(max(2.0, pause * 2), LONGEST_PAUSE)

    async def _post(self, body: bytes) -> tuple[str, float | None]:
        """One attempt: what went wrong ("" for nothing), and the seconds a 503 asked to wait."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT))
        headers = {"Content-Type": "application/json"}
        if self.webhook.secret:
            headers["X-Telegram-Bot-Api-Secret-Token"] = self.webhook.secret
        try:
            async with self._session.post(self.webhook.url, data=body, headers=headers) as answer:
                await answer.read()
                if answer.status // 100 == 2:
                    return "", None
                asked = _seconds(answer.headers.get("Retry-After")) if answer.status == 503 else None
                return f"Wrong response from the webhook: {answer.status} {answer.reason}", asked
        except TimeoutError:
            return "Read timeout expired", None
        except aiohttp.ClientConnectorError:
            return "Connection refused", None
        except aiohttp.ClientError:
            return "Connection closed", None

    def info(self) -> dict[str, Any]:
        """The part of WebhookInfo that delivery knows."""
        webhook = self.webhook
        info: dict[str, Any] = {"url": webhook.url, "max_connections": webhook.max_connections}
        if webhook.last_error_date:
            info["last_error_date"] = webhook.last_error_date
            info["last_error_message"] = webhook.last_error_message
        return info


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else min(max(float(value), 0.0), LONGEST_RETRY_AFTER)
    except ValueError:
        return None
