"""Handling: the part of a process that takes updates out of the inbox and has them handled."""

from collections.abc import Sequence
from typing import Final

from bot.precedence import Precedence
from bot.queues import Part
from bot.runner import AT_ONCE, POLICY, Runner
from bot.stopping import LAST_HANDLERS
from queueing.contract import Queue
from queueing.events import Observer
from queueing.maintenance import Maintenance
from queueing.redis_inbox import NOBODY, RedisInbox, Taker
from queueing.turns import Turn
from queueing.worker import Worker

_IN_HAND: Final = 4
"""Messages that a process may have in hand and still takes, at once and by itself, what it brings."""


class Handling:
    """inbox: is started and closed with it. observe: hears of what becomes of updates.
    precedence: is to know of those that come in. care: see Maintenance."""

    def __init__(self, inbox: RedisInbox, runner: Runner, observe: Observer, care: Turn | None = None) -> None:
        self.inbox = inbox
        self.precedence = Precedence()
        turn = self.precedence.turn
        # A handler may take as long as it likes: no update is to wait for its end.
        self.worker = Worker(
            inbox, runner.deliver, workers=AT_ONCE, policy=POLICY, observe=observe, turn=turn, at_hand=0
        )
        self._maintenance = Maintenance(inbox, observe, care)

    async def start(self) -> None:
        """From now on updates are taken in; they wait until `begin`."""
        await self.inbox.start()
        await self._maintenance.start()

    async def begin(self, sending: Taker = NOBODY) -> None:
        """The application runs: handlers may be called. sending: takes what they say."""
        await self.worker.start()
        self.inbox.hand_over(_taker(self.worker, self.inbox), sending)

    async def stop(self) -> None:
        """Lets the handlers that run end, for a while. To be called whether or not it has begun."""
        await self.worker.stop(patience=LAST_HANDLERS)

    async def close(self) -> None:
        await self._maintenance.stop()
        await self.inbox.close()


def taker_of_shared(parts: Sequence[Part], workers: Sequence[Worker]) -> Taker:
    """Of the queue that all processes share, if it is one of these, each with its worker."""
    pairs = zip(parts, workers, strict=True)
    return next((_taker(worker, part.queue) for part, worker in pairs if part.queue.backend == "redis"), NOBODY)


def _taker(worker: Worker, queue: Queue) -> Taker:
    """Where connections are few, one process gets most of what comes: of more than a few, others have to hear."""
    return Taker(lambda: worker.busy < _IN_HAND, queue.notify)
