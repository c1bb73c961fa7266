"""Worker: claim → deliver → decide → settle, by N coroutines that share one caller of the queue."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar

import msgspec

from queueing.at_hand import MOST, AtHand
from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.errors import QueueUnavailable
from queueing.events import (
    Acked,
    Available,
    Buried,
    Claimed,
    ClockJumped,
    Crashed,
    Event,
    Fenced,
    Limited,
    Observer,
    Released,
    Unavailable,
)
from queueing.grants import Grants
from queueing.message import Message
from queueing.retry import Ack, Bury, Hold, Move, Outcome, Release, RetryLater, RetryPolicy, Scope, decide
from queueing.tasks import end

MayWrite = Callable[[], bool]
Deliver = Callable[[Message, MayWrite], Awaitable[Outcome]]
"""Delivers a message. Asks `may_write()` immediately before the request is written; if it says no, the lease is about
to end or has ended, nothing may be written, and the outcome is Unsent. Must end by itself within the send timeout.
What takes long to be written tells the end of it, if `may_write` is a Permit."""

QUIET = 5.0
"""Seconds after which a queue is asked again at the latest. One whose bells may be lost has its process ask earlier."""

_GATHER, _GATHER_MOST = 0.5, 0.01
"""How long settlements wait for others to travel with them: in times of what the last call took, and seconds at most.
Under load a call takes longer, and one with twice as many costs server and process hardly more (decision 26)."""

_QUICK = 20
"""An attempt of fewer times of what the last call took is a quick one. Where attempts take long, few end together, and
each coroutine that waits for others is missed."""

LEASE_MARGIN = 1.0
"""Seconds a lease must still last for a request to be written."""

_DRAIN_PAUSE = 0.01
"""Seconds between two calls that only drain the front door, all coroutines being busy: 100 elements a call make 10,000
a second a process, and leave the server time for those that send."""

_lease: ContextVar[Lease | None] = ContextVar("lease", default=None)
"""Of the message that is being delivered."""

_logger = logging.getLogger(__name__)


def failures_so_far() -> int:
    """How often the message failed before that is being delivered: for a Deliver, which is not told."""
    lease = _lease.get()
    return 0 if lease is None else lease.attempts


def takeovers_so_far() -> int:
    """How often the message was taken over from a dead process before, likewise."""
    lease = _lease.get()
    return 0 if lease is None else lease.takeovers


class Permit(msgspec.Struct, frozen=True, gc=False):
    """What a worker gives as `may_write`: both functions are asked with the lease."""

    ask: Callable[[Lease], bool]
    note: Callable[[Lease], None]
    lease: Lease

    def __call__(self) -> bool:
        return self.ask(self.lease)

    def note_end(self) -> None:
        """Says that the last byte is written now: for the limits, it left then."""
        self.note(self.lease)


class _Done(msgspec.Struct, frozen=True, gc=False):
    """An attempt that ended and that the queue has not confirmed yet. `took`: seconds."""

    settlement: Settlement
    took: float


class _Request(msgspec.Struct, frozen=True, gc=False):
    """The arguments of one claim, repeated as they are until the queue answers."""

    want: int
    done: Sequence[_Done]
    held: Sequence[Lease]
    ahead: int
    at_hand: int


async def _all() -> float:
    return math.inf


class Worker:
    """Takes messages from the queue and has them delivered, `workers` at a time.

    turn: is awaited before each claim, and says how many more may be taken now: what else the process does goes before.
    It must take much less than the lease: settlements wait for it, too.

    at_hand: how many messages it may take, where that saves time, for coroutines that end next.

    The coroutines share one puller: each of its calls carries every settlement since the last and asks for as many
    messages as coroutines are idle, so that batches form by themselves under load, as databases commit in groups.
    """

    def __init__(
        self,
        queue: Queue,
        deliver: Deliver,
        *,
        workers: int,
        policy: RetryPolicy,
        observe: Observer,
        turn: Callable[[], Awaitable[float]] = _all,
        at_hand: int = MOST,
    ) -> None:
        self.workers = workers
        self._queue = queue
        self._deliver = deliver
        self._policy = policy
        self._observe = observe
        self._turn = turn
        self._granted: Grants
        self._held: dict[str, Lease] = {}
        self._at_hand = AtHand(at_hand)
        self._lost: set[str] = set()
        self._written: dict[str, float] = {}
        self._done: list[_Done] = []
        self._confirming: Sequence[_Done] = ()
        self._all_done = asyncio.Event()
        self._stopping = False
        self._away_since: float | None = None
        self._puller: asyncio.Task[None] | None = None
        self._coroutines: list[asyncio.Task[None]] = []

    @property
    def busy(self) -> int:
        """Coroutines that have a message."""
        return len(self._held) - len(self._at_hand)

    @property
    def available(self) -> bool:
        """Whether the queue's server answered the last call."""
        return self._away_since is None

    @property
    def remaining(self) -> float:
        """Seconds for which its leases are surely its own."""
        return self._queue.remaining()

    @property
    def running(self) -> bool:
        """Whether the puller and every coroutine are alive."""
        return self._puller is not None and not any(task.done() for task in (self._puller, *self._coroutines))

    async def start(self) -> None:
        self._granted = Grants(asyncio.get_running_loop())
        self._puller = asyncio.create_task(self._pull(), name="puller")
        self._coroutines = [asyncio.create_task(self._work(), name=f"worker-{n}") for n in range(self.workers)]
        for task in (self._puller, *self._coroutines):
            task.add_done_callback(self._note_end)

    async def stop(self, grace: float = 5.0, patience: float = math.inf) -> None:
        """Takes no more messages, lets those in hand end (each within the send timeout), and settles them.

        grace: seconds for which a server that is away is waited for, if there are settlements to reach it.
        patience: seconds for which those in hand are waited for; then they are cancelled, and others may have them.
        """
        self._stopping = True
        self._queue.notify()
        ends = time.monotonic() + patience
        while self._puller and not self._puller.done() and self._waits_for_the_last(grace):
            await asyncio.wait([self._puller], timeout=0.1)
            if time.monotonic() > ends:
                break
        await end(*self._coroutines)
        await end(self._puller)

    def _waits_for_the_last(self, grace: float) -> bool:
        if self.busy or self.available:
            return True
        return bool(self._done or self._confirming) and self._away_for < grace

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        """None of the tasks may end by an error: one that does is a mistake of ours, and leaves the process useless."""
        if not task.cancelled() and (error := task.exception()):
            _logger.critical("%s failed: this process takes no more messages", task.get_name(), exc_info=error)
            self._tell(Crashed(task.get_name()))

    @property
    def _away_for(self) -> float:
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    async def _pull(self) -> None:
        took = 0.0
        while True:
            await self._gather(took)
            request = self._request(await self._turn())
            self._confirming, self._done = self._done, []
            began = time.monotonic()
            claim = await self._claim(request)
            took = time.monotonic() - began
            self._at_hand.note_call(took)
            self._confirming = ()
            self._take(request, claim)
            if self._stopping and not self._held and not self._done:
                return
            await self._pause(request, claim)

    async def _gather(self, took: float) -> None:
        """Lets settlements of quick attempts wait for others, but not for long. took: seconds, by the last call."""
        if not self._done or not self._held or self._at_hand or self._done[0].took > took * _QUICK:
            return
        self._all_done.clear()
        pause = min(took * _GATHER, _GATHER_MOST)
        late = asyncio.get_running_loop().call_later(pause, self._all_done.set)
        await self._all_done.wait()
        late.cancel()

    def _request(self, most: float) -> _Request:
        """What is at hand is begun when the end of its coroutine's last attempt is told to the queue, no earlier: so no
        more than there are coroutines may have been sent, for all the queue knows."""
        if self._at_hand:
            self._give_back()
        while self._at_hand and self.busy < self.workers and self.available and most >= 1:
            self._granted.put(self._at_hand.take())
            most -= 1
        want = int(min(self._wanted, most))
        ahead = 0 if self._stopping else int(min(self._at_hand.room, most - want))
        return _Request(want, self._done, list(self._held.values()), ahead, len(self._at_hand))

    def _give_back(self) -> None:
        """What is not to be begun, or that no coroutine came for. Where an attempt told something about others, too,
        the queue is to decide anew."""
        scopes = {getattr(done.settlement.decision, "scope", None) for done in self._done}
        is_over = self._stopping or bool(scopes & {Scope.BOT, Scope.RECEIVER})
        for lease in self._at_hand.give_up() if is_over else self._at_hand.give_up_old():
            self._done.append(_Done(Settlement(lease, Release(), None), 0.0))
            del self._held[lease.token]

    @property
    def _wanted(self) -> int:
        return 0 if self._stopping else max(0, self.workers - len(self._held))

    async def _claim(self, request: _Request) -> Claim:
        """Asks until there is an answer: only the queue can say what became of the question."""
        settlements = [done.settlement for done in request.done]
        pause = 0.05
        while True:
            try:
                claim = await self._queue.claim(request.want, settlements, request.held, request.ahead, request.at_hand)
            except QueueUnavailable as error:
                self._note_away(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self._note_back()
                return claim

    def _note_away(self, error: QueueUnavailable) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
        self._tell(Unavailable(self._away_for, str(error)))

    def _note_back(self) -> None:
        if self._away_since is not None:
            away_for, self._away_since = self._away_for, None
            self._tell(Available(away_for))

    def _take(self, request: _Request, claim: Claim) -> None:
        stale, kept = set(claim.stale), set(claim.kept)
        for done in request.done:
            token = done.settlement.lease.token
            self._tell(_fate(done, stale=token in stale, kept=token in kept))
        for reason, error in claim.buried:
            self._tell(Buried(None, reason, error))
        if claim.jumped:
            self._tell(ClockJumped(claim.jumped))
        for scope, times in claim.limited.items():
            self._tell(Limited(scope, times))
        self._lost.update(claim.lost)
        for number, lease in enumerate(claim.leases):
            self._held[lease.token] = lease
            if number < request.want:
                self._granted.put(lease)
            else:
                self._at_hand.put(lease)

    async def _pause(self, request: _Request, claim: Claim) -> None:
        """Until there is a reason for the next call: a settlement, the bell, a lane that is due, or long silence."""
        if claim.more and len(claim.leases) < request.want:
            return
        if claim.leases and len(claim.leases) >= request.want and self._wanted:
            return  # its turn was for no more than these
        seconds = _DRAIN_PAUSE if claim.more else QUIET
        if self._at_hand:
            seconds = min(seconds, self._at_hand.seconds_left)
        await self._queue.wait(seconds, claim.next_due if self._wanted else None)

    async def _work(self) -> None:
        while True:
            lease = await self._granted.get()
            done = await self._attempt(lease)
            self._at_hand.note_attempt(done.took)
            self._done.append(done)
            del self._held[lease.token]
            self._lost.discard(lease.token)
            if not self._held:
                self._all_done.set()
            self._queue.notify()

    async def _attempt(self, lease: Lease) -> _Done:
        message, started = lease.message, time.monotonic()
        if message.accepted is not None:
            self._tell(Claimed(message, max(0.0, time.time() - message.accepted)))
        outcome = await self._outcome(lease)
        decision = decide(
            outcome,
            attempts=lease.attempts,
            policy=self._policy,
            max_attempts=message.max_attempts,
            uncertain=message.uncertain,
        )
        written = self._written.pop(lease.token, None)
        lag = None if written is None else max(0.0, written - lease.granted_at)
        return _Done(Settlement(lease, decision, lag), time.monotonic() - started)

    async def _outcome(self, lease: Lease) -> Outcome:
        _lease.set(lease)
        try:
            return await self._deliver(lease.message, Permit(self._may_write, self._note_last_byte, lease))
        except Exception as error:  # whatever one message does, the next is served
            _logger.exception("delivering message %s failed in a way nobody foresaw", lease.message.id)
            return RetryLater(f"{type(error).__name__} inside telequeue, see its log", "internal_error")

    def _may_write(self, lease: Lease) -> bool:
        at = self._queue.clock()
        if lease.write_by is not None and at > lease.write_by:
            return False
        if lease.token in self._lost or self._queue.remaining() <= LEASE_MARGIN:
            return False
        self._written[lease.token] = at
        return True

    def _note_last_byte(self, lease: Lease) -> None:
        self._written[lease.token] = self._queue.clock()

    def _tell(self, event: Event) -> None:
        self._observe(event)


def _fate(done: _Done, *, stale: bool, kept: bool) -> Event:
    """What the queue's confirmation of a settlement means to those who watch."""
    message = done.settlement.lease.message
    if stale:
        return Fenced(message)
    match done.settlement.decision:
        case Ack():
            now = time.time()
            return Acked(message, done.took, max(0.0, now - (message.accepted or now)))
        case Release(delay, reason, error, _, uncertain):
            return Released(message, reason, error, delay, uncertain)
        case Move(_, error):
            return Released(message, "migrated", error, 0.0, uncertain=False)
        case Hold(error):
            return Buried(message, "uncertain", error, uncertain=True)
        case Bury(_, error, uncertain) if kept:
            return Released(message, "outage", error, 0.0, uncertain)
        case Bury(reason, error, uncertain):
            return Buried(message, reason, error, uncertain)
