"""What the model (model.py) knows of a message, of a lease, and of a bot's outage. Times: ms."""

import math
from dataclasses import dataclass, field

from queueing.message import Message, Priority


@dataclass(eq=False)
class Entry:
    """A message.

    state:   door, later, lane, held, sent, dead, cancelled, expired or gone (dropped).
    status:  what a tracked one says while it waits, or once it is dead.
    came:    the event at which it came into its lane.
    tried:   something is noted of it.
    over:    it expired once, so it may be gone although the clock was set back.
    renamed: the lane that its own is another name of.
    loose:   a parent was sent again, so it may have gone behind others of its lane.
    """

    message: Message
    number: int
    accepted: int
    state: str = "door"
    status: str = "pending"
    came: int = 0
    attempts: int = 0
    takeovers: int = 0
    until: float = 0
    tried: bool = False
    over: bool = False
    renamed: str = ""
    loose: bool = False

    def __repr__(self) -> str:
        return f"<{self.message.id} of {self.lane} {self.priority.value}, {self.state}>"

    @property
    def lane(self) -> str:
        return self.renamed or f"{self.message.bot}:{self.message.chat}"

    @property
    def priority(self) -> Priority:
        return self.message.priority

    @property
    def due(self) -> int:
        return round((self.message.send_at or 0) * 1000)

    @property
    def stamp(self) -> int:
        """When it was accepted, for its order."""
        return max(self.accepted, self.due)

    @property
    def expires(self) -> float:
        return math.inf if self.message.ttl is None else self.stamp + self.message.ttl * 1000

    def note_try(self, until: float, *, counts: bool = False) -> None:
        self.attempts += counts
        self.until = until
        self.tried, self.status = True, "retrying"

    def forget_tries(self) -> None:
        self.attempts = self.takeovers = 0
        self.until, self.tried, self.status = 0, False, "pending"


@dataclass
class Grant:
    """A lease in the model: whose, and since when."""

    entry: Entry
    token: str
    process: int
    call: int
    at: int


@dataclass
class Outage:
    """Of one bot. level 0: it is none (yet)."""

    failing: set[str] = field(default_factory=set)
    last: float = -math.inf
    level: int = 0
    probe_at: float = 0
    probe: str | None = None
