"""What happened, for whoever watches: metrics and logs hear of the queue through these alone."""

from dataclasses import dataclass
from typing import Protocol

from queueing.message import Message


@dataclass(frozen=True, slots=True)
class Enqueued:
    message: Message


@dataclass(frozen=True, slots=True)
class Claimed:
    """`waited`: seconds from acceptance to this claim."""

    message: Message
    waited: float


@dataclass(frozen=True, slots=True)
class Acked:
    """`took`: seconds of the attempt; `since_accepted`: seconds from acceptance to now."""

    message: Message
    took: float
    since_accepted: float


@dataclass(frozen=True, slots=True)
class Released:
    """`reason` is None for what was not tried. `delay`: seconds."""

    message: Message
    reason: str | None
    error: str | None
    delay: float
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Buried:
    """`message` is None for an element that could not be read."""

    message: Message | None
    reason: str
    error: str
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class Reaped:
    """`recovered` messages of the process `incarnation`, presumed dead, went back to their lanes, all uncertain; but
    for `held` of them, which are dead letters."""

    incarnation: str
    recovered: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Limited:
    """`times` something had to wait for a limit. scope: `chat`, `group` or `bot`."""

    scope: str
    times: int


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The server's clock was set by `seconds`, forward or (negative) back. Nothing in the queue moved with it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Trimmed:
    """`dropped` dead letters are gone: there were too many, or they were too old."""

    dropped: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """A settlement came too late: the lease was somebody else's by then. Nothing was changed."""

    message: Message


@dataclass(frozen=True, slots=True)
class Crashed:
    """A task of the worker ended by an error that nobody foresaw: the process should be replaced."""

    task: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The queue's server does not answer, since `seconds`."""

    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class Available:
    """The queue's server answers again, after `seconds`."""

    seconds: float


Event = (
    Enqueued
    | Claimed
    | Acked
    | Released
    | Buried
    | Reaped
    | Limited
    | ClockJumped
    | Trimmed
    | Fenced
    | Crashed
    | Unavailable
    | Available
)


class Observer(Protocol):
    def __call__(self, event: Event, /) -> None:
        """Called on the event loop, between two sends: must be quick and must not raise."""
