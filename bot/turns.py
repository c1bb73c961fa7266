"""What one process of the machine does for all of them, every so often: see queueing/turns.py."""

from dataclasses import dataclass, field

from queueing.turns import Turn


@dataclass(frozen=True, slots=True)
class QueueTurns:
    """look: whether a queue has something that no bell told of. care: for what dead processes held."""

    look: Turn = field(default_factory=Turn)
    care: Turn = field(default_factory=Turn)


@dataclass(frozen=True, slots=True)
class Turns:
    """To be made before the fork, and anew for processes that are to have other settings."""

    messages: QueueTurns = field(default_factory=QueueTurns)
    updates: QueueTurns = field(default_factory=QueueTurns)
    election: Turn = field(default_factory=Turn)
    spreading: Turn = field(default_factory=Turn)
    looking_after: Turn = field(default_factory=Turn)
