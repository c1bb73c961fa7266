"""MemoryQueue: the contract within one process, on asyncio.Queue. What a clean stop leaves unsent is kept on disk."""

import asyncio
import contextlib
import heapq
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from queueing.contract import (
    Claim,
    DeadLetter,
    Lease,
    MessageStatus,
    ProcessStats,
    QueueStats,
    Settlement,
    TakenOver,
)
from queueing.errors import QueueFull
from queueing.limits import WRITE_AT_ONCE, RateLimits
from queueing.memory_lanes import Hand, Lane, Tries, Turns
from queueing.memory_limits import Gate
from queueing.memory_outage import Outages
from queueing.memory_records import DeadLetters, Statuses
from queueing.message import Message, MessageState, Priority, encode
from queueing.retry import Ack, Bury, Release, Scope
from queueing.shared_budget import SharedBudget
from queueing.unsent import Journal, Left, Unsent

# A clock that runs on while the process, or the whole machine, is stopped. Where there is none (macOS), the next best.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

DRAIN_MOST = 200
"""Messages that one claim takes from the front door: at 1 µs each, 20 µs with a new lane (measured), it stays within
4 ms; a process that is fully busy still drains 20,000 a second."""

_STATS_SAMPLE = 1000
"""Lanes that `stats` looks at for the oldest message."""

_logger = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds since the machine was started: the same in all of its processes."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease. granted: on the queue's clock."""

    token: str
    lane: Lane
    priority: Priority
    granted: float

    @property
    def head(self) -> Message:
        return self.lane.head(self.priority)


class MemoryQueue:
    """See queueing.contract.Queue; workers, status_ttl and queue_max are those of RedisQueue.

    limits:  what may leave this process.
    budget:  what may leave all processes of this machine together, per bot.
    journal: the directory in which what is unsent at `close` waits for the next `start`; None: it is dropped.
    clock:   seconds, going on while the process is stopped.

    There is one process, so no lease is ever taken over, and no token is stale but one that was settled before.
    """

    backend = "memory"

    def __init__(
        self,
        *,
        workers: int = 10,
        status_ttl: float = 86_400.0,
        queue_max: int = 5_000_000,
        limits: RateLimits = RateLimits(),  # noqa: B008  frozen
        budget: SharedBudget | None = None,
        journal: Path | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._workers = workers
        self._queue_max = queue_max
        self._budget = budget
        self._journal = None if journal is None else Journal(journal)
        self._clock = clock
        self._complaint = ""
        self._front: asyncio.Queue[Message] = asyncio.Queue()
        self._gate = Gate(limits, budget)
        self._outages = Outages()
        self._turns = Turns(self._gate, self._outages)
        self._held: dict[str, _Held] = {}
        self._statuses = Statuses(status_ttl)
        self._dead = DeadLetters()
        self._credentials: dict[str, str] = {}
        self._offered: dict[str, str] = {}
        self._fence = itertools.count(1)
        self._laned = 0
        self._processed = 0
        self._woken = asyncio.Event()

    async def start(self) -> None:
        self._take_up()

    async def enqueue(self, messages: Sequence[Message]) -> None:
        for message in messages:
            encode(message)  # what could not go through Redis must not get further here
        waiting = self._front.qsize() + self._laned
        if waiting + len(messages) > self._queue_max:
            raise QueueFull(f"{waiting} messages wait")
        now = time.time()
        for message in messages:
            if not (message.track and self._statuses.get(message.id)):
                self._statuses.begin(message, now)
                self._front.put_nowait(replace(message, accepted=now))
        self.notify()

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

    async def claim(self, want: int, settlements: Sequence[Settlement] = (), held: Sequence[Lease] = ()) -> Claim:
        now = self.clock()
        stale, kept = self._settle(settlements, now)
        lost = self._reconcile({lease.token for lease in held}, now)
        self._drain(now)
        self._gate.sweep(now)
        self._turns.promote(now)
        return Claim(
            leases=self._grant(want, want + len(held), now),
            stale=stale,
            lost=lost,
            next_due=self._turns.next_due(now),
            more=not self._front.empty(),
            kept=kept,
        )

    def _settle(self, settlements: Sequence[Settlement], now: float) -> tuple[list[str], list[str]]:
        """→ the tokens of leases that were no longer ours, of which nothing is changed, and of those that stay after
        all, because there is an outage."""
        stale, kept = [], []
        for settlement in settlements:
            token = settlement.lease.token
            held = self._held.get(settlement.lease.lane)
            if held is None or held.token != token:
                stale.append(token)
                continue
            match settlement.decision:
                case Ack(result):
                    self._ack(held, result)
                case Release() as release:
                    self._release(held, release, now)
                case Bury(_, error, _, Scope.RECEIVER) if self._is_outage(held.lane, now):
                    # Its attempts ran out in an outage: that is not its fault.
                    self._note_try(held, Release(0.0, "outage", error), now)
                    kept.append(token)
                case Bury(reason, error, _, scope):
                    self._bury(held, reason, error, answered=scope is not Scope.RECEIVER)
            self._give_back(held, now)
        return stale, kept

    def _ack(self, held: _Held, result: str | None) -> None:
        message = self._remove_head(held)
        self._processed += 1
        self._statuses.sent(message, result)
        self._note_answer(held.lane.bot)

    def _release(self, held: _Held, release: Release, now: float) -> None:
        if release.reason is None:
            self._take_back(held, now)
            return
        lane, until = held.lane, now + release.delay
        match release.scope:
            case Scope.RECEIVER if self._is_outage(lane, now):
                release = replace(release, delay=0.0, counts=False)
            case Scope.CHAT:
                self._note_answer(lane.bot)
                self._gate.flooded(lane.name, lane.bot, until, now)
            case Scope.BOT:
                self._note_answer(lane.bot)
                self._gate.pause(lane.bot, until)
        self._note_try(held, release, now)

    def _take_back(self, held: _Held, now: float) -> None:
        """It did not leave: it costs nothing of any limit."""
        lane = held.lane
        self._gate.take_back(lane.name, lane.bot, held.granted)
        self._outages.unsent(lane.bot, lane.name, now)
        self._turns.look_again(lane.bot)
        self._statuses.mark(held.head, MessageState.PENDING)

    def _note_try(self, held: _Held, release: Release, now: float) -> None:
        tries = held.lane.tries.setdefault(held.priority, Tries())
        tries.attempts += release.counts
        tries.until = now + release.delay
        tries.history.append({"at": time.time(), "reason": release.reason, "error": release.error})
        self._statuses.note_try(held.head, tries.attempts, release.error)

    def _is_outage(self, lane: Lane, now: float) -> bool:
        """Of a send that failed as in one."""
        failed = self._outages.failed(lane.bot, lane.name, now)
        self._turns.look_again(lane.bot)  # the next probe may be due earlier than it was
        return failed

    def _note_answer(self, bot: str) -> None:
        if self._outages.answered(bot):
            self._turns.look_again(bot)

    def _bury(self, held: _Held, reason: str, error: str, *, answered: bool) -> None:
        if answered:
            self._note_answer(held.lane.bot)
        history = held.lane.tries_of(held.priority).history
        message = self._remove_head(held)
        self._dead.add(message, reason, error, history)
        self._statuses.died(message, error)

    def _remove_head(self, held: _Held) -> Message:
        self._laned -= 1
        return held.lane.remove_head(held.priority)

    def _give_back(self, held: _Held, now: float) -> None:
        """The lane had its turn, and waits for the next."""
        del self._held[held.lane.name]
        held.lane.served = now
        self._turns.place(held.lane, now)

    def _reconcile(self, claimed: set[str], now: float) -> list[str]:
        """Compares what the caller holds by its own account with ours. → the tokens that are not its own."""
        lost = sorted(claimed - {held.token for held in self._held.values()})
        for held in [held for held in self._held.values() if held.token not in claimed]:
            # Its grant never reached the caller: nothing was sent.
            self._take_back(held, now)
            self._give_back(held, now)
        return lost

    def _drain(self, now: float) -> None:
        for _ in range(min(DRAIN_MOST, self._front.qsize())):
            self._push(self._front.get_nowait(), now)

    def _push(self, message: Message, now: float, tries: Tries | None = None) -> None:
        self._laned += 1
        self._turns.push(message, now, held=f"{message.bot}:{message.chat}" in self._held, tries=tries)

    def _grant(self, want: int, workers: int, now: float) -> list[Lease]:
        hand = Hand(workers)
        for held in self._held.values():
            hand.add(held.lane.bot, held.priority)
        return [self._lease(lane, priority, now) for lane, priority in self._turns.grant(want, hand, now)]

    def _lease(self, lane: Lane, priority: Priority, now: float) -> Lease:
        held = self._held[lane.name] = _Held(str(next(self._fence)), lane, priority, now)
        message = held.head
        self._statuses.mark(message, MessageState.SENDING)
        write_by = now + WRITE_AT_ONCE if self._gate.limits.limits(message.chat) else None
        attempts = lane.tries_of(priority).attempts
        return Lease(held.token, lane.name, message, attempts=attempts, write_by=write_by)

    def clock(self) -> float:
        return self._clock()

    def remaining(self) -> float:
        return math.inf

    def notify(self) -> None:
        self._woken.set()

    async def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
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
            if lane.name not in self._held
            for queue in lane.messages.values()
        ]
        accepted = [at for at in oldest if at is not None]
        return QueueStats(
            ready=self._front.qsize() + self._laned - waiting - inflight,
            waiting=waiting,
            inflight=inflight,
            dead=len(self._dead),
            oldest_age=max(0.0, time.time() - min(accepted)) if accepted else None,
            processed=self._processed,
            processes=[ProcessStats(f"{os.getpid()}", os.getpid(), self._workers, inflight, self._processed, seen=0.0)],
        )

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return self._dead.newest(limit)

    async def close(self) -> None:
        self._leave()
        if self._budget:
            self._budget.close()

    def _leave(self) -> None:
        """Writes down what was not sent. What is still leased is part of it: whoever held it has let go."""
        now = self.clock()
        self._reconcile(set(), now)
        while not self._front.empty():
            self._drain(now)
        if not self._laned:
            return
        kept_in = None
        if self._journal:
            ahead = time.time() - now
            paused = {scope: now + seconds + ahead for scope, seconds in self._gate.pauses(now).items()}
            try:
                kept_in = self._journal.write(self._unsent(ahead), paused)
            except OSError as error:
                _logger.error("what is unsent cannot be written down: %s", error)
        if kept_in:
            _logger.info("%d messages are unsent and kept in %s for the next start", self._laned, kept_in)
        else:
            _logger.error("%d messages end unsent with this process", self._laned)

    def _unsent(self, ahead: float) -> Iterator[Unsent]:
        """All lanes merged by acceptance, each in its order. ahead: of Unix time before the queue's clock, seconds."""
        queues = [_unsent_of(lane, priority, ahead) for lane in self._turns for priority in lane.messages]
        return heapq.merge(*queues, key=_accepted)

    def _take_up(self) -> None:
        if not self._journal:
            return
        left: list[Left] = []
        try:
            left.extend(self._journal.take())
        except OSError as error:
            if str(error) != self._complaint:
                _logger.error("what was left unsent cannot be taken up: %s", error)
            self._complaint = str(error)
        now, ahead = self.clock(), time.time() - self.clock()
        for scope, until in itertools.chain.from_iterable(one.paused.items() for one in left):
            self._gate.pause(scope, until - ahead)
        for unsent in heapq.merge(*(one.messages for one in left), key=_accepted):
            message = unsent.message
            tries = Tries(unsent.attempts, unsent.until - ahead, list(unsent.history))
            self._statuses.begin(message, _accepted(unsent))
            if unsent.history:
                self._statuses.note_try(message, unsent.attempts, str(unsent.history[-1].get("error")))
            self._push(message, now, tries)
        if left:
            _logger.info("took up %d messages that were unsent", sum(len(one.messages) for one in left))
            self.notify()


def _unsent_of(lane: Lane, priority: Priority, ahead: float) -> Iterator[Unsent]:
    tries = lane.tries_of(priority)
    for message in lane.messages[priority]:
        yield Unsent(message, tries.attempts, max(0.0, tries.until + ahead), tries.history)
        tries = Tries()


def _accepted(unsent: Unsent) -> float:
    return unsent.message.accepted or 0.0
