"""Worker: claim → deliver → decide → settle, by N coroutines that share one caller of the queue."""

from collections.abc import Awaitable, Callable

from queueing.message import Message
from queueing.retry import Outcome

MayWrite = Callable[[], bool]
Deliver = Callable[[Message, MayWrite], Awaitable[Outcome]]
"""Delivers a message. Asks `may_write()` immediately before the request is written; if it says no, the lease is about
to end or has ended, nothing may be written, and the outcome is Unsent. Must end by itself within the send timeout."""
