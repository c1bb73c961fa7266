"""An answer that grows: a message that is edited while the rest of it is still to come.

What it shows on the way is for the eye alone. It goes on its own, outside of the run that the update's handlers are
(bot/run.py): a run that is repeated after a crash shows other pieces, and a send of a run is known by its number. Each
edit waits until the one before it was made: however little the limits allow, what is shown is always the newest. The
final text is the run's own: it arrives, once, whatever became of the pieces.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from telegram import Chat, Message
from telegram.error import TelegramError
from telegram.ext import ExtBot

from bot.run import CURRENT
from queueing.errors import QueueError
from queueing.tasks import end

_logger = logging.getLogger(__name__)

MOST: Final = 4096
"""UTF-16 units of one message; Telegram counts so."""

_PRIVATE, _GROUP = 1.5, 4.0  # seconds between edits: a chat may have one a second, a group 20 a minute
_EDIT_WITHIN: Final = 15.0
"""Seconds after which a piece is no longer worth showing."""


class Answer:
    """question: what is answered. message: the bot's own, that becomes the answer. While this is entered, the message
    shows `text`, whatever that is at the time."""

    def __init__(self, question: Message, message: Message) -> None:
        self.text = self._shown = message.text or ""
        self._question = question
        self._message = message
        self._every = _PRIVATE if question.chat.type == Chat.PRIVATE else _GROUP
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Answer":
        self._showing = asyncio.create_task(self._show_now_and_then(), name="answer")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._showing)

    async def finish(self, text: str) -> None:
        """The whole text, in as many messages as it needs."""
        await end(self._showing)
        first, *others = split(text)
        await self._message.edit_text(first)
        for other in others:
            await self._question.reply_text(other, do_quote=False)

    async def _show_now_and_then(self) -> None:
        with outside_of_the_run():
            while True:
                await asyncio.sleep(self._every)
                if self.text != self._shown:
                    self._shown = self.text
                    await self._show(self.text)

    async def _show(self, text: str) -> None:
        bot: ExtBot[None] = self._message.get_bot()  # type: ignore[assignment]
        options = {"wait": _EDIT_WITHIN, "ttl": _EDIT_WITHIN}
        try:
            await bot.edit_message_text(
                text,
                self._message.chat_id,
                self._message.message_id,
                rate_limit_args=options,  # type: ignore[arg-type]
            )
        except (TelegramError, QueueError) as error:
            _logger.debug("a piece of an answer was not shown: %s", error)


@contextmanager
def outside_of_the_run() -> Iterator[None]:
    """What is sent within goes at once, for itself."""
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)


def growing(text: str) -> str:
    """What is shown of a text that still grows: its end, if it has become too long for one message."""
    text = text.strip()
    if not text:
        return "…"
    ended = f"{text} …"
    return ended if units(ended) <= MOST else f"… {text[-(MOST // 2 - 4) :]} …"


def split(text: str) -> list[str]:
    """The text in parts that Telegram takes: broken between lines, or between words, if there are any."""
    text, parts = text.strip(), []
    while units(text) > MOST:
        most = _fitting(text)
        at = max(text.rfind("\n", most // 2, most), 0) or max(text.rfind(" ", most // 2, most), 0) or most
        parts.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [*parts, text] if text else parts or ["…"]


def units(text: str) -> int:
    """UTF-16 units: characters beyond the first 65,536, such as emojis, have two."""
    return len(text) + sum(character > "\uffff" for character in text)


def _fitting(text: str) -> int:
    """How many characters of the text's beginning make up a message."""
    used = 0
    for index, character in enumerate(text):
        used += 2 if character > "\uffff" else 1
        if used > MOST:
            return index
    return len(text)
