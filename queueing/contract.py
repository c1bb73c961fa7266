"""What a queue does, whatever it is made of. RedisQueue and MemoryQueue keep this contract; one suite tests both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from queueing.message import Message, MessageState
from queueing.retry import Decision


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A message that is ours until a deadline.

    token:    proves the lease to the queue; unique for ever.
    lane:     the queue's name for (bot, chat).
    attempts: failures counted so far.
    takeovers: how often a process that held it was presumed dead.
    granted_at: not later than its grant, on the clock of `Queue.clock`.
    write_by: when a limited message must have been written, on that clock; None: no limit holds for it.
    """

    token: str
    lane: str
    message: Message
    attempts: int = 0
    takeovers: int = 0
    granted_at: float = 0.0
    write_by: float | None = None


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What became of a lease.

    written: seconds from `lease.granted_at` to the writing of the request; None: nothing was written, so it takes
    nothing of any limit, and says nothing about the receiver.
    """

    lease: Lease
    decision: Decision
    written: float | None = 0.0


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What one call of `claim` brought.

    leases:  as many as asked for, or fewer; those `ahead` are the last. One a lane at most.
    stale:   tokens of settlements that were refused: the lease was no longer ours.
    lost:    tokens among those we hold that are somebody else's by now.
    buried:  (reason, error) of elements that could not be read and went to the dead letters.
    next_due: seconds until a waiting lane can be looked at again; None: nothing is waiting for a time.
    more:    the front door holds more than one call takes: call again soon.
    kept:    tokens of settlements that buried a message which stays after all, because there is an outage.
    jumped:  seconds by which the server's clock turned out to have been set, forward or (negative) back, since the last
             call; nothing in the queue moved with it.
    limited: how often something had to wait in this call, by the limit: `chat`, `group` or `bot`.
    """

    leases: Sequence[Lease] = ()
    stale: Sequence[str] = ()
    lost: Sequence[str] = ()
    buried: Sequence[tuple[str, str]] = ()
    next_due: float | None = None
    more: bool = False
    kept: Sequence[str] = ()
    jumped: float = 0.0
    limited: Mapping[str, int] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What a process held that was presumed dead. recovered: messages, all uncertain; held: those of them that are not
    sent again, but are dead letters until a person decides."""

    incarnation: str
    recovered: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """One process that takes messages. seen: seconds since it was last heard; sent: acknowledged since its start."""

    incarnation: str
    pid: int
    workers: int
    inflight: int
    sent: int
    seen: float


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Counts of messages, by state. `ready` includes the front door. `oldest_age`: seconds, None if none waits.

    parts: of several queues that are as one, each on its own, by `backend`.
    """

    ready: int = 0
    waiting: int = 0
    scheduled: int = 0
    inflight: int = 0
    dead: int = 0
    oldest_age: float | None = None
    processed: int = 0
    processes: Sequence[ProcessStats] = ()
    parts: Mapping[str, "QueueStats"] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Everything that is to be sent and is not yet."""
        return self.ready + self.waiting + self.scheduled + self.inflight


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """What is known of a tracked message. Times: Unix seconds. `result`: JSON text of the acknowledgement.
    `reason`: of a dead one, the class of its error."""

    id: str
    state: MessageState
    bot: str
    chat: str
    created_at: float
    sent_at: float | None = None
    attempts: int = 0
    result: str | None = None
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that will not be sent. `element` is what stood in the list, with any token masked.

    died_at: Unix seconds. history: a line for each attempt: Unix seconds, reason, error.
    """

    id: str
    reason: str
    error: str
    died_at: float
    element: str
    bot: str | None = None
    chat: str | None = None
    history: Sequence[Mapping[str, object]] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class DeadPage:
    """Some dead letters. next: names the page after this one; None: there is none."""

    letters: Sequence[DeadLetter]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a message waits for.

    reason: `paused` (by a person), the class of the failure that paused its chat or bot (`flood`, `unauthorized`),
            `outage`, `retry`, `parent` (another message has to end before), `chat_limit`, `bot_limit`, `schedule`,
            `door` (no process has looked at it yet), `ahead` (only those before it), `turn` (only for its turn and a
            free worker).
    until:  Unix seconds, as far as it can be foreseen; None: it cannot.
    ahead:  messages that go before it: of its chat or, at the door, of all. Exact to 1,000.
    more:   there are more than those.
    """

    reason: str
    until: float | None
    ahead: int
    more: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing leaves of this bot and chat; of all the bot's chats if `chat` is None, of all bots if `bot` is None.

    reason: a line of the person who paused it, or the class of a failure. since: Unix seconds, if a person did.
    until:  Unix seconds; None: until a person resumes it.
    """

    bot: str | None
    chat: str | None
    reason: str
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the queue's server lacks, and what that means, in words. fatal: nothing works until it is put right;
    otherwise a promise is weaker than it could be."""

    words: str
    fatal: bool = False


DEAD_MOST = 10_000
"""Dead letters kept; at 1 KiB each, 10 MiB of memory. The oldest go first, counted and told."""

DEAD_DAYS = 30
"""Days for which a dead letter is kept."""


GROUP_DAYS = 30
"""Days for which a group's counts are kept after the last of them changed."""


class Desk(Protocol):
    """The operator's verbs, which are a part of a queue. Every method raises QueueUnavailable when the server does not
    answer; each may be given again after that without harm. Where each process has a queue of its own, a verb acts on
    that of the process."""

    async def dead_page(self, limit: int, before: str | None = None) -> DeadPage:
        """Dead letters, the newest first. before: `next` of the page before. Raises ValueError for another."""

    async def dead_letter(self, id: str) -> DeadLetter | None:
        """One of them."""

    async def redrive(self, ids: Sequence[str], *, head: bool = False) -> int:
        """Has dead letters sent after all, as if accepted now, to the tail or the head of their lanes; how many were
        there. They keep their ids; those whose element could not be read get a new one if it is so again."""

    async def redrive_all(self, *, head: bool = False) -> int:
        """All that are dead now, in the order in which they died; how many."""

    async def drop(self, ids: Sequence[str]) -> int:
        """Forgets dead letters; how many were there."""

    async def drop_all(self) -> int:
        """All that are dead now; how many."""

    async def trim(self) -> int:
        """Drops the dead letters that are too many or too old, a bounded number a call; how many."""

    async def pause(self, bot: str | None = None, chat: str | None = None, reason: str = "") -> None:
        """Lets nothing leave of a chat of a bot, of a bot, or at all, until `resume`. What is in flight goes on."""

    async def resume(self, bot: str | None = None, chat: str | None = None) -> None:
        """Ends what `pause` with the same bot and chat began, and nothing else."""

    async def paused(self, limit: int = 1000) -> Sequence[Pause]:
        """What is paused, by persons and by failures."""

    async def cancel(self, id: str) -> MessageState | None:
        """CANCELLED: the tracked message will not be sent. Another state: it is too late. None: it is unknown."""

    async def why(self, id: str) -> Waiting | None:
        """What a tracked message waits for; None if it is unknown, ended or in flight."""

    async def first_with(self, bot: str, dedup_key: str) -> str | None:
        """The id of the message that was taken with this key in the last 24 hours."""


class Front(Desk, Protocol):
    """What those see of a queue who put messages into it, ask about them, or operate it: of one, or of several as one.
    Every method raises QueueUnavailable when the server does not answer."""

    @property
    def backend(self) -> str:
        """`redis` or `memory`: the label of the metrics. `split`: both, each for some of the chats."""

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """Takes all of them, in this order, or none. An id that is tracked already is not taken again.

        Raises QueueFull when too many wait.
        """

    async def register(self, bot: str, credential: str) -> None:
        """Keeps what is needed to speak for a bot (a token) and is known to be right, instead of what was before."""

    async def offer(self, bot: str, credential: str) -> None:
        """Keeps what came with a message and may be right, beside what is registered."""

    async def proven(self, bot: str) -> bool:
        """Whether anything is registered for a bot: if it is refused now, it worked before."""

    async def credentials(self, bot: str) -> Sequence[str]:
        """What may speak for a bot, to be tried in this order: what is registered, then the newest that was offered and
        differs. Empty: the bot is unknown. Never to be shown."""

    async def status(self, id: str) -> MessageStatus | None:
        """What is known of a tracked message."""

    def hear_ends(self, told: Callable[[str], None]) -> None:
        """From now on `told(id)` is called whenever an `awaited` message has ended, wherever that was. It may be missed
        while the server is away: who waits asks for the status, too."""

    async def group(self, name: str) -> Mapping[str, int]:
        """How many messages of a group ended, by `sent`, `cancelled`, `expired`, and `dead:` and the reason."""

    async def cancel_group(self, name: str) -> None:
        """None of the group that is not in flight is sent any more; each ends as `cancelled` when its turn comes."""

    async def stats(self) -> QueueStats:
        """Counts, cheap enough to ask for at every scrape."""

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest dead letters."""

    async def check(self) -> Sequence[Finding]:
        """What its server lacks."""


class Queue(Front, Protocol):
    """A queue of messages in lanes. Every method raises QueueUnavailable when the server does not answer."""

    async def start(self) -> None:
        """Opens what is needed. Does not wait for a server that is away."""

    async def claim(
        self,
        want: int,
        settlements: Sequence[Settlement] = (),
        held: Sequence[Lease] = (),
        ahead: int = 0,
        at_hand: int = 0,
    ) -> Claim:
        """Settles, then leases up to `want` messages (0: none) of lanes that are eligible now. One caller a process.

        ahead: so many more for those coroutines of the caller that end next; given, if at all, after those wanted, and
        only while no other process has an idle one. Nothing of bulk is.
        at_hand: how many of `held` were given so, and are not begun: they are not of those that the coroutines have, of
        which bulk and each bot have their shares.

        held: the leases still being worked on. It is the heartbeat as well: a process that has not called for the
        lease time is presumed dead. When it raises, nothing is known: the same settlements are to be given again.
        """

    def clock(self) -> float:
        """Seconds on a clock that runs on while the process is stopped."""

    def remaining(self) -> float:
        """Seconds, on that clock, for which this process's leases are surely its own."""

    async def wait(self, timeout: float, due: float | None = None) -> None:
        """Returns when there may be something to claim, after `notify`, or after `timeout` seconds; also whenever the
        queue wants to be asked, be it only to hear that this process is alive.

        due: seconds after which the last claim said that something is due, if the caller will have room for it. Of
        several processes that wait for it one returns then."""

    def notify(self) -> None:
        """Makes `wait` return, or not begin: there is something to tell the queue."""

    async def alias(self, bot: str, chat: str, other: str) -> None:
        """From now on `chat` is another name of `other`: their lanes are one, in order of acceptance."""

    async def reap(self) -> Sequence[TakenOver]:
        """Takes back what dead processes held, for each found dead."""

    async def close(self) -> None:
        """Leaves cleanly: what this process still holds goes back to its lanes."""
