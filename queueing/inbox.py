"""What the queue of updates does beyond a queue: it takes each update once, and commits what came of it as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from queueing.contract import Queue
from queueing.message import Message


class Standing(Enum):
    """What `accept` found: NEW was taken now, HANDLING was taken before and has not ended, DONE has."""

    NEW = auto()
    HANDLING = auto()
    DONE = auto()


class _Anything(Enum):
    ANYTHING = auto()


ANYTHING: Final = _Anything.ANYTHING


@dataclass(frozen=True, slots=True)
class Write:
    """A field of a hash to be set, or deleted if `value` is None.

    key:  below the queue's hash tag: "state:8081" is the key "{telegram_messages}:state:8081".
    seen: what it held when it was read (None: nothing); anything else there now is a conflict. ANYTHING: not compared.
    ttl:  seconds from now after which the whole hash goes; None: its TTL, if any, stays as it is.
    """

    key: str
    field: str
    value: bytes | None
    seen: bytes | _Anything | None = ANYTHING
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What came of one update. sends: for the queue of messages. updates: for this queue, jobs with `send_at`.

    failed: it is to be a dead letter, of this reason and error, also if its process dies before it buries it.
    """

    sends: Sequence[Message] = ()
    updates: Sequence[Message] = ()
    writes: Sequence[Write] = ()
    failed: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that holds something else than what its write had seen."""

    write: Write
    holds: bytes | None


class Inbox(Queue, Protocol):
    """A queue whose messages are updates. Every method raises QueueUnavailable when the server does not answer."""

    async def accept(self, update: Message, number: int) -> Standing:
        """Takes an update, unless its bot's update of this number was taken in the last 25 hours. Raises QueueFull."""

    async def commit(self, update: Message, commit: Commit) -> Sequence[Conflict] | None:
        """Stores all of it and that the update is done, or nothing. Empty: it is stored, also if it was before.
        Conflicts: nothing is. None: the update is no longer ours; whoever has it runs it again."""

    async def read(self, fields: Sequence[tuple[str, str]]) -> Sequence[bytes | None]:
        """What fields of hashes hold, each given as (key, field); keys as in Write."""

    async def read_all(self, key: str) -> dict[str, bytes]:
        """All fields of a hash."""

    async def write(self, writes: Sequence[Write]) -> Sequence[Conflict]:
        """Stores all of the writes, or nothing if there are conflicts: what belongs to no update."""
