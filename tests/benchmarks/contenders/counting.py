"""A bot whose sends are counted instead of sent: for the queue's own cost. All else is as it is in production: this is
imported before the processes are forked, and takes the place of the one method that calls Telegram."""

from telegram.ext import Application

from bot.sender import Sender
from queueing.message import Message
from queueing.retry import Outcome, Sent, Unsent
from queueing.worker import MayWrite
from tests.benchmarks.contenders.common import MARK


async def _count(_self: Sender, _message: Message, may_write: MayWrite) -> Outcome:
    if not may_write():
        return Unsent()
    MARK.handled()
    return Sent("123456")


Sender.deliver = _count  # type: ignore[method-assign, assignment]


def setup(application: "Application") -> None:  # type: ignore[type-arg]
    """No handlers."""
