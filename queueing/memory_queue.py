"""MemoryQueue: the contract within one process, on asyncio.Queue. What it holds ends with the process."""

import asyncio
import contextlib
import heapq
import itertools
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from queueing.contract import Claim, DeadLetter, Lease, MessageStatus, ProcessStats, QueueStats, Settlement
from queueing.errors import QueueFull
from queueing.message import Message, MessageState, encode
from queueing.retry import Ack, Bury, Release

KEPT = 10_000
"""Dead letters, and statuses of messages that ended, kept at most: memory is all there is. The oldest go first."""


@dataclass(slots=True)
class _Lane:
    """messages: in order; the head stays until it is settled. attempts, history: of the head."""

    messages: deque[Message] = field(default_factory=deque)
    attempts: int = 0
    history: list[Mapping[str, object]] = field(default_factory=list)


class MemoryQueue:
    """See queueing.contract.Queue; the arguments are those of RedisQueue.

    A lane is in exactly one of `_ready`, `_due` and `_held`, and goes when it is empty. There is one process, so no
    lease is ever taken over, and no token stale but one that was settled before.
    """

    backend = "memory"

    def __init__(self, *, workers: int = 10, status_ttl: float = 86_400.0, queue_max: int = 5_000_000) -> None:
        self._workers = workers
        self._status_ttl = status_ttl
        self._queue_max = queue_max
        self._front: asyncio.Queue[Message] = asyncio.Queue()
        self._lanes: dict[str, _Lane] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._due: list[tuple[float, str]] = []
        self._held: dict[str, str] = {}
        self._dead: OrderedDict[str, DeadLetter] = OrderedDict()
        self._open: dict[str, MessageStatus] = {}
        self._ended: OrderedDict[str, tuple[float, MessageStatus]] = OrderedDict()
        self._credentials: dict[str, str] = {}
        self._fence = itertools.count(1)
        self._laned = 0
        self._processed = 0
        self._woken = asyncio.Event()

    async def start(self) -> None:
        pass

    async def enqueue(self, messages: Sequence[Message]) -> None:
        for message in messages:
            encode(message)  # what could not go through Redis must not get further here
        if self._front.qsize() + self._laned + len(messages) > self._queue_max:
            raise QueueFull(f"{self._front.qsize() + self._laned} messages wait")
        now = time.time()
        for message in messages:
            if message.track and await self.status(message.id):
                continue
            if message.track:
                self._open[message.id] = MessageStatus(
                    message.id, MessageState.PENDING, message.bot, message.chat, created_at=now
                )
            self._front.put_nowait(replace(message, accepted=now))
        self.notify()

    async def register(self, bot: str, credential: str) -> None:
        self._credentials[bot] = credential

    async def credentials(self, bot: str) -> Sequence[str]:
        return [self._credentials[bot]] if bot in self._credentials else []

    async def claim(self, want: int, settlements: Sequence[Settlement] = (), held: Sequence[Lease] = ()) -> Claim:
        stale = [settlement.lease.token for settlement in settlements if not self._settle(settlement)]
        claimed = {lease.token for lease in held}
        lost = sorted(claimed - set(self._held.values()))
        for lane in [lane for lane, token in self._held.items() if token not in claimed]:
            del self._held[lane]
            self._requeue(lane)
        self._drain()
        self._promote()
        leases = [self._lease() for _ in range(min(want, len(self._ready)))]
        next_due = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        return Claim(leases=leases, stale=stale, lost=lost, next_due=next_due)

    def _settle(self, settlement: Settlement) -> bool:
        """Whether the lease was still good; if not, nothing is changed."""
        lane = settlement.lease.lane
        if self._held.get(lane) != settlement.lease.token:
            return False
        del self._held[lane]
        match settlement.decision:
            case Ack(result):
                self._ack(lane, result)
            case Release() as release:
                self._release(lane, release)
            case Bury(reason, error, _):
                self._bury(lane, reason, error)
        return True

    def _ack(self, lane: str, result: str | None) -> None:
        message = self._remove_head(lane)
        self._processed += 1
        self._end(message, state=MessageState.SENT, sent_at=time.time(), result=result)
        self._requeue(lane)

    def _release(self, lane: str, release: Release) -> None:
        self._note_try(lane, release)
        if release.delay > 0:
            heapq.heappush(self._due, (time.monotonic() + release.delay, lane))
        else:
            self._requeue(lane)

    def _note_try(self, name: str, release: Release) -> None:
        lane = self._lanes[name]
        if release.reason is None:
            self._mark(lane.messages[0], MessageState.PENDING)
            return
        lane.attempts += release.counts
        lane.history.append({"at": time.time(), "reason": release.reason, "error": release.error})
        self._mark(lane.messages[0], MessageState.RETRYING, attempts=lane.attempts, error=release.error)

    def _bury(self, lane: str, reason: str, error: str) -> None:
        now, history = time.time(), self._lanes[lane].history
        message = self._remove_head(lane)
        self._dead[message.id] = DeadLetter(
            id=message.id,
            reason=reason,
            error=error,
            died_at=now,
            element=encode(message).decode(),
            bot=message.bot,
            chat=message.chat,
            history=[*history, {"at": now, "reason": reason, "error": error}],
        )
        while len(self._dead) > KEPT:
            self._dead.popitem(last=False)
        self._end(message, state=MessageState.DEAD, error=error)
        self._requeue(lane)

    def _remove_head(self, name: str) -> Message:
        lane = self._lanes[name]
        lane.attempts, lane.history = 0, []
        self._laned -= 1
        return lane.messages.popleft()

    def _requeue(self, lane: str) -> None:
        """After its head left or was given back: the lane waits for its turn again, if anything is in it."""
        if self._lanes[lane].messages:
            self._ready[lane] = None
        else:
            del self._lanes[lane]

    def _drain(self) -> None:
        while not self._front.empty():
            message = self._front.get_nowait()
            name = f"{message.bot}:{message.chat}"
            lane = self._lanes.setdefault(name, _Lane())
            lane.messages.append(message)
            self._laned += 1
            if len(lane.messages) == 1:
                self._ready[name] = None

    def _promote(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._ready[heapq.heappop(self._due)[1]] = None

    def _lease(self) -> Lease:
        name, _ = self._ready.popitem(last=False)
        token = str(next(self._fence))
        self._held[name] = token
        lane = self._lanes[name]
        self._mark(lane.messages[0], MessageState.SENDING)
        return Lease(token, name, lane.messages[0], attempts=lane.attempts)

    def _mark(self, message: Message, state: MessageState, **changes: object) -> None:
        if message.id in self._open:
            self._open[message.id] = replace(self._open[message.id], state=state, **changes)  # type: ignore[arg-type]

    def _end(self, message: Message, **changes: object) -> None:
        status = self._open.pop(message.id, None)
        if status is None:
            return
        now = time.monotonic()
        self._ended[message.id] = (now + self._status_ttl, replace(status, **changes))  # type: ignore[arg-type]
        while self._ended and (len(self._ended) > KEPT or next(iter(self._ended.values()))[0] < now):
            self._ended.popitem(last=False)

    def clock(self) -> float:
        return time.monotonic()

    def remaining(self) -> float:
        return math.inf

    def notify(self) -> None:
        self._woken.set()

    async def wait(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        self._woken.clear()

    async def reap(self) -> Mapping[str, int]:
        return {}

    async def status(self, id: str) -> MessageStatus | None:
        expires, ended = self._ended.get(id, (0.0, None))
        return self._open.get(id) or (ended if expires > time.monotonic() else None)

    async def stats(self) -> QueueStats:
        waiting = sum(len(self._lanes[lane].messages) for _, lane in self._due)
        heads = [self._lanes[lane].messages[0] for lane in (*self._ready, *(lane for _, lane in self._due))]
        accepted = [head.accepted for head in heads if head.accepted is not None]
        return QueueStats(
            ready=self._front.qsize() + self._laned - waiting - len(self._held),
            waiting=waiting,
            inflight=len(self._held),
            dead=len(self._dead),
            oldest_age=max(0.0, time.time() - min(accepted)) if accepted else None,
            processed=self._processed,
            processes=[
                ProcessStats(f"{os.getpid()}", os.getpid(), self._workers, len(self._held), self._processed, seen=0.0)
            ],
        )

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return list(itertools.islice(reversed(self._dead.values()), limit))

    async def close(self) -> None:
        pass
