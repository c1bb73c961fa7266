"""A lane within one process: the same as lua/lane.lua."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from queueing.message import Message, Priority

PRIORITIES = (Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK)

_TURNED_MOST = 100

Place = tuple[str, Priority]
"""Where a ready lane is: the account that its head uses (see memory_turns), and the head's priority."""


@dataclass(slots=True)
class Tries:
    """What was tried with a head. until: before which it is not tried again, on the queue's clock."""

    attempts: int = 0
    until: float = -math.inf
    history: list[Mapping[str, object]] = field(default_factory=list)


@dataclass(slots=True)
class Lane:
    """The messages of a (bot, chat) that are not in flight. What is in flight comes back to their head, or never.

    served: when it had its turn last. tries: of heads. ready: None: it is not.
    out:    how many are in flight: one or, where two lanes that had one each turned out to be the same, two.
    mixed:  whether it became one with another since then. into: the lane that it is a part of by now.
    """

    name: str
    served: float
    messages: dict[Priority, deque[Message]] = field(default_factory=dict)
    tries: dict[Priority, Tries] = field(default_factory=dict)
    ready: Place | None = None
    out: int = 0
    mixed: bool = False
    into: "Lane | None" = None

    @property
    def waiting(self) -> int:
        """Messages."""
        return sum(len(queue) for queue in self.messages.values())

    @property
    def bot(self) -> str:
        return self.name.partition(":")[0]

    @property
    def chat(self) -> str:
        return self.name.partition(":")[2]

    def head(self, priority: Priority) -> Message:
        return self.messages[priority][0]

    def push(self, message: Message) -> None:
        self.messages.setdefault(message.priority, deque()).append(message)

    def push_first(self, message: Message) -> None:
        """To the head, but behind one that was tried: its tries are noted of the head."""
        queue = self.messages.setdefault(message.priority, deque())
        queue.insert(1 if message.priority in self.tries else 0, message)

    def take(self, priority: Priority) -> tuple[Message, Tries]:
        """Its head, which is in the lane no more, and what was tried with it."""
        queue = self.messages[priority]
        message = queue.popleft()
        if not queue:
            del self.messages[priority]
        return message, self.tries.pop(priority, None) or Tries()

    def turn_round(self, priority: Priority, is_too_early: Callable[[Message, "Lane"], bool]) -> None:
        """A head that waits for a message behind it goes to the end. One that was tried waits for none."""
        queue = self.messages[priority]
        for _ in range(min(len(queue), _TURNED_MOST)):
            if priority in self.tries or not is_too_early(queue[0], self):
                return
            queue.rotate(-1)

    def put_back(self, message: Message, tries: Tries) -> None:
        """To the head, where it was taken."""
        self.messages.setdefault(message.priority, deque()).appendleft(message)
        self._note(message.priority, tries)

    def put_between(self, message: Message, tries: Tries) -> None:
        """What was taken before two lanes became one: to where it belongs by acceptance."""
        queue = self.messages.setdefault(message.priority, deque())
        place = next((n for n, other in enumerate(queue) if _accepted(other) >= _accepted(message)), len(queue))
        queue.insert(place, message)
        if place == 0:
            self.tries.pop(message.priority, None)
            self._note(message.priority, tries)

    def absorb(self, other: "Lane") -> None:
        """Takes over what another lane has, by acceptance. A head that was tried keeps its tries if it stays one."""
        other.into = self
        self.out += other.out
        self.mixed = self.out > 0
        for priority, theirs in other.messages.items():
            ours = self.messages.get(priority, deque())
            heads = [(queue[0], lane.tries.get(priority)) for queue, lane in ((ours, self), (theirs, other)) if queue]
            merged = self.messages[priority] = deque(heapq.merge(theirs, ours, key=_accepted))
            self.tries.pop(priority, None)
            for head, tries in heads:
                if head is merged[0] and tries:
                    self.tries[priority] = tries

    def _note(self, priority: Priority, tries: Tries) -> None:
        if tries.history:
            self.tries[priority] = tries

    def tries_of(self, priority: Priority) -> Tries:
        return self.tries.get(priority) or Tries()

    def eligible(self, now: float, held_up: Callable[[Message, "Lane"], float]) -> tuple[Priority | None, float]:
        """→ the first priority whose head may be tried now, and when one before it may be (inf: there is none, or it is
        not known). held_up: until when a head waits for another message."""
        earliest = math.inf
        for priority in PRIORITIES:
            if priority in self.messages:
                until = self.tries_of(priority).until
                if until <= now and self.head(priority).after:
                    until = held_up(self.head(priority), self)
                if until <= now:
                    return priority, earliest
                earliest = min(earliest, until)
        return None, earliest


def _accepted(message: Message) -> float:
    return message.accepted or 0.0
