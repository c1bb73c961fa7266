"""MemoryQueue: the contract within one process, on asyncio.Queue. What a clean stop leaves unsent is kept on disk."""

import asyncio
import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from queueing.clock import CLOCK
from queueing.contract import (
    Claim,
    Finding,
    Lease,
    MessageStatus,
    ProcessStats,
    QueueStats,
    Settlement,
    TakenOver,
)
from queueing.errors import QueueFull
from queueing.limits import WRITE_AT_ONCE, RateLimits
from queueing.memory_desk import Held
from queueing.memory_leftovers import Leftovers
from queueing.memory_settling import MemorySettling
from queueing.memory_turns import Taken
from queueing.message import Message, MessageState, encode
from queueing.shared_budget import SharedBudget

DRAIN_MOST = 200
"""Messages that one claim takes from the doors: at 1 µs each, 20 µs with a new lane (measured), it stays within
4 ms; a process that is fully busy still drains 20,000 a second."""

_STATS_SAMPLE = 1000
"""Lanes that `stats` looks at for the oldest message."""


def boot_clock() -> float:
    """Seconds since the machine was started: the same in all of its processes."""
    return time.clock_gettime(CLOCK)


class MemoryQueue(MemorySettling):
    """See queueing.contract.Queue and, for the operator's verbs, MemoryDesk; workers, status_ttl, queue_max and ttl are
    those of RedisQueue.

    limits:  what may leave this process.
    budget:  what may leave all processes of this machine together, per bot; paid_budget: of what is paid.
    journal: the directory in which what is unsent at `close` waits for the next `start`; None: it is dropped.
    clock:   seconds, going on while the process is stopped. wall: Unix seconds.

    There is one process, so no lease is ever taken over, and no token is stale but one that was settled before.
    """

    backend = "memory"

    def __init__(
        self,
        *,
        workers: int = 10,
        status_ttl: float = 86_400.0,
        queue_max: int = 5_000_000,
        ttl: float | None = None,
        limits: RateLimits = RateLimits(),  # noqa: B008  frozen
        budget: SharedBudget | None = None,
        paid_budget: SharedBudget | None = None,
        journal: Path | None = None,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            status_ttl=status_ttl, limits=limits, budget=budget, paid_budget=paid_budget, clock=clock, wall=wall
        )
        self._workers = workers
        self._queue_max = queue_max
        self._ttl = ttl
        self._leftovers = Leftovers(
            journal,
            self._doors,
            self._turns,
            self._gate,
            self._aliases,
            self._dedup,
            self._statuses,
            self._parents,
            lambda message: self._over(message) is MessageState.CANCELLED,
        )
        self._credentials: dict[str, str] = {}
        self._offered: dict[str, str] = {}
        self._fence = itertools.count(1)

    async def start(self) -> None:
        self._take_up()

    async def enqueue(self, messages: Sequence[Message]) -> None:
        for message in messages:
            encode(message)  # what could not go through Redis must not get further here
        waiting = len(self._doors) + self._turns.laned.total()
        if waiting + len(messages) > self._queue_max:
            raise QueueFull(f"{waiting} messages wait")
        now = self._wall()
        for message in messages:
            if self._is_first(message, now):
                ttl = self._ttl if message.ttl is None else message.ttl
                message = message.changed(accepted=now, ttl=ttl, track=message.track or message.awaited)
                self._statuses.begin(message, now)
                self._parents.begin(message)
                self._doors.put(message)
        self.notify()

    def _is_first(self, message: Message, now: float) -> bool:
        """Whether neither its id, if it is tracked or provisional, nor its dedup key was taken before."""
        if (message.track or message.awaited) and self._statuses.get(message.id):
            return False
        if message.provisional and self._parents.knows(message.id):
            return False
        key = message.dedup_key
        if key is None or self._dedup.claim(message.bot, key, message.id, now):
            return True
        self._parents.end(message, "!deduplicated", now)
        return False

    async def register(self, bot: str, credential: str) -> None:
        self._credentials[bot] = credential
        self._offered.pop(bot, None)

    async def offer(self, bot: str, credential: str) -> None:
        if self._credentials.get(bot) != credential:
            self._offered[bot] = credential

    async def proven(self, bot: str) -> bool:
        return bot in self._credentials

    async def credentials(self, bot: str) -> Sequence[str]:
        return [kept[bot] for kept in (self._credentials, self._offered) if bot in kept]

    async def claim(
        self,
        want: int,
        settlements: Sequence[Settlement] = (),
        held: Sequence[Lease] = (),
        ahead: int = 0,
        at_hand: int = 0,
    ) -> Claim:
        # Nothing is given to be at hand: here is as near.
        now = self.clock()
        self._turns.limited.clear()
        stale, kept = self._settle(settlements, now)
        lost = self._reconcile({lease.token for lease in held}, now)
        self._drain(now)
        self._gate.sweep(now)
        self._look_at_woken(now)
        self._turns.promote(now)
        hand = self._turns.hand(want + len(held), (one.message for one in self._held.values()), now)
        leases = [self._lease(taken) for taken in self._turns.grant(want, hand, now)]
        buried, self._buried = self._buried, []
        more_at_once = self._look_at_woken(now)  # some that were in the way ended in this call
        return Claim(
            leases=leases,
            stale=stale,
            lost=lost,
            buried=buried,
            next_due=0.0 if more_at_once else self._next_due(now),
            more=self._doors.more,
            kept=kept,
            limited=dict(self._turns.limited),
        )

    def _next_due(self, now: float) -> float | None:
        times = (self._turns.next_due(now), self._doors.next_due(self._wall()))
        return min((at for at in times if at is not None), default=None)

    def _reconcile(self, claimed: set[str], now: float) -> list[str]:
        """Compares what the caller holds by its own account with ours. → the tokens that are not its own."""
        lost = sorted(claimed - self._held.keys())
        for token in [token for token in self._held if token not in claimed]:
            # Its grant never reached the caller: nothing was sent.
            self._undo(self._held.pop(token), now)
        return lost

    def _drain(self, now: float) -> None:
        for message in self._doors.drain(DRAIN_MOST, self._turns.bulk_ahead, self._wall()):
            self._parents.placed(message)
            self._turns.push(self._aliases.lane(message.bot, message.chat), message, now)

    def _lease(self, taken: Taken) -> Lease:
        token, message = str(next(self._fence)), taken.message
        results = self._parents.of(message).results if message.after else {}
        if message.after:
            self._parents.use(message, self._wall())
        if message.chat != taken.lane.chat or results:
            taken = replace(taken, message=message.changed(chat=taken.lane.chat, results=results))
        self._held[token] = Held(token, taken)
        self._statuses.mark(message, MessageState.SENDING)
        is_limited = self._gate.is_limited(taken.lane.name, paid=message.paid)
        return Lease(
            token,
            taken.lane.name,
            taken.message,
            attempts=taken.tries.attempts,
            granted_at=taken.granted,
            write_by=taken.granted + WRITE_AT_ONCE if is_limited else None,
        )

    def remaining(self) -> float:
        return math.inf

    async def wait(self, timeout: float, due: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout if due is None else min(timeout, due + 0.001)):
                await self._woken.wait()
        self._woken.clear()

    async def reap(self) -> Sequence[TakenOver]:
        """Nobody dies without its queue here. But a process that stopped later than this one began may have left
        something: in a reload, the old ones do."""
        self._take_up()
        return []

    async def status(self, id: str) -> MessageStatus | None:
        return self._statuses.get(id)

    async def stats(self) -> QueueStats:
        waiting, inflight = self._turns.waiting, len(self._held)
        oldest = [
            queue[0].accepted
            for lane in itertools.islice(self._turns, _STATS_SAMPLE)
            if not lane.out
            for queue in lane.messages.values()
        ]
        accepted = [at for at in oldest if at is not None]
        return QueueStats(
            ready=self._doors.waiting + self._turns.laned.total() - waiting - inflight,
            waiting=waiting,
            scheduled=self._doors.scheduled,
            inflight=inflight,
            dead=len(self._dead),
            oldest_age=max(0.0, self._wall() - min(accepted)) if accepted else None,
            processed=self._processed,
            processes=[ProcessStats(f"{os.getpid()}", os.getpid(), self._workers, inflight, self._processed, seen=0.0)],
        )

    async def check(self) -> Sequence[Finding]:
        return ()  # it has no server

    async def close(self) -> None:
        now = self.clock()
        self._reconcile(set(), now)  # what is still leased is unsent, too: whoever held it has let go
        self._leftovers.write(now, self._wall())
        self._gate.close()

    def _take_up(self) -> None:
        if self._leftovers.take_up(self.clock(), self._wall()):
            self.notify()
