"""What happened, for whoever watches: metrics and logs hear of the queue through these alone.

Structs, since two of them are made for each message: a frozen dataclass takes ten times as long to make.
"""

from typing import Protocol

import msgspec

from queueing.message import Message


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    message: Message


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """`waited`: seconds from acceptance to this claim."""

    message: Message
    waited: float


class Acked(msgspec.Struct, frozen=True, gc=False):
    """`took`: seconds of the attempt; `since_accepted`: seconds from acceptance to now."""

    message: Message
    took: float
    since_accepted: float


class Released(msgspec.Struct, frozen=True, gc=False):
    """`reason` is None for what was not tried. `delay`: seconds."""

    message: Message
    reason: str | None
    error: str | None
    delay: float
    uncertain: bool


class Buried(msgspec.Struct, frozen=True, gc=False):
    """`message` is None for an element that could not be read."""

    message: Message | None
    reason: str
    error: str
    uncertain: bool = False


class Reaped(msgspec.Struct, frozen=True, gc=False):
    """`recovered` messages of the process `incarnation`, presumed dead, went back to their lanes, all uncertain; but
    for `held` of them, which are dead letters."""

    incarnation: str
    recovered: int
    held: int = 0


class Limited(msgspec.Struct, frozen=True, gc=False):
    """`times` something had to wait for a limit. scope: `chat`, `group` or `bot`."""

    scope: str
    times: int


class ClockJumped(msgspec.Struct, frozen=True, gc=False):
    """The server's clock was set by `seconds`, forward or (negative) back. Nothing in the queue moved with it."""

    seconds: float


class Trimmed(msgspec.Struct, frozen=True, gc=False):
    """`dropped` dead letters are gone: there were too many, or they were too old."""

    dropped: int


class Fenced(msgspec.Struct, frozen=True, gc=False):
    """A settlement came too late: the lease was somebody else's by then. Nothing was changed."""

    message: Message


class Crashed(msgspec.Struct, frozen=True, gc=False):
    """A task of the worker ended by an error that nobody foresaw: the process should be replaced."""

    task: str


class Unavailable(msgspec.Struct, frozen=True, gc=False):
    """The queue's server does not answer, since `seconds`."""

    seconds: float
    error: str


class Available(msgspec.Struct, frozen=True, gc=False):
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
