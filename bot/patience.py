"""Calls to Telegram that have to work in the end: repeated with growing pauses, and what is wrong is logged."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from telegram.error import Conflict, InvalidToken, TelegramError

from bot.transport import Flood

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_FIRST, _MOST = 0.5, 30.0
_HOPELESS = 30.0
"""Seconds to wait after an answer that only a person can change."""


async def until_done(what: str, call: Callable[[], Awaitable[T]]) -> T:
    """The result of `call`, repeated for as long as it raises TelegramError. `what` names it in the log."""
    failures = 0
    while True:
        try:
            return await call()
        except TelegramError as error:
            failures += 1
            seconds = pause_after(error, failures)
            _logger.warning("%s does not work, next try in %.1f s: %s", what, seconds, explain(error))
        await asyncio.sleep(seconds)


def pause_after(error: TelegramError, failures: int) -> float:
    """Seconds until the next try, after so many failures in a row: as asked, or doubling, with jitter."""
    if isinstance(error, Flood):
        return error.seconds
    if isinstance(error, InvalidToken):
        return _HOPELESS
    return min(_MOST, _FIRST * 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)


def explain(error: TelegramError) -> str:
    """What went wrong, and for the common cases what to do. Holds no token."""
    if isinstance(error, InvalidToken):
        return "Telegram does not accept the token: check TELEGRAM_TOKEN"
    if isinstance(error, Conflict):
        return f"another program asks for this bot's updates, with the same token: stop one of them ({error.message})"
    return f"{type(error).__name__}: {error.message}"
