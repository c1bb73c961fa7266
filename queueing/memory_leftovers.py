"""What a queue within a process leaves when it stops and takes up when it starts: from its parts to disk and back."""

import heapq
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from queueing.memory_aliases import Aliases
from queueing.memory_doors import Doors, is_later
from queueing.memory_lanes import Lane, Tries
from queueing.memory_limits import Gate, HandPause
from queueing.memory_parents import Parents
from queueing.memory_records import DedupKeys, Statuses
from queueing.memory_turns import Turns
from queueing.message import Message, Priority
from queueing.unsent import Journal, Left, Unsent

_logger = logging.getLogger(__name__)


class Leftovers:
    """directory: None: nothing is kept. Times: seconds; now: on the queue's clock, wall: Unix time."""

    def __init__(
        self,
        directory: Path | None,
        doors: Doors,
        turns: Turns,
        gate: Gate,
        aliases: Aliases,
        dedup: DedupKeys,
        statuses: Statuses,
        parents: Parents,
        is_cancelled: Callable[[Message], bool],
    ) -> None:
        self._journal = None if directory is None else Journal(directory)
        self._doors = doors
        self._turns = turns
        self._gate = gate
        self._aliases = aliases
        self._dedup = dedup
        self._statuses = statuses
        self._parents = parents
        self._is_cancelled = is_cancelled
        self._complaint = ""

    def write(self, now: float, wall: float) -> None:
        """Writes down what was not sent, and what has to be known of it."""
        waiting, later = self._doors.empty()
        for message in waiting:
            self._turns.push(self._lane_of(message), message, now)
        unsent = self._turns.laned.total() + len(later)
        left = self._known(now, wall)
        if not self._journal or not (unsent or left.by_hand or left.aliases or left.dedup or left.ended):
            kept_in = None
        else:
            left.messages = self._unsent(later, wall - now)
            try:
                kept_in = self._journal.write(left)
            except OSError as error:
                kept_in = None
                _logger.error("what is unsent cannot be written down: %s", error)
        if unsent and kept_in:
            _logger.info("%d messages are unsent and kept in %s for the next start", unsent, kept_in)
        elif unsent:
            _logger.error("%d messages end unsent with this process", unsent)

    def _known(self, now: float, wall: float) -> Left:
        return Left(
            paused={scope: (wall + left, reason) for scope, (left, reason) in self._gate.pauses(now).items()},
            by_hand={scope: (pause.since, pause.reason) for scope, pause in self._gate.by_hand.items()},
            aliases=self._aliases.known,
            dedup=list(self._dedup.all(wall)),
            ended=list(self._parents.ended(wall)),
        )

    def _unsent(self, later: list[Message], ahead: float) -> Iterator[Unsent]:
        """All lanes and what is for later, merged by acceptance, each in its order; but for what was cancelled. ahead:
        of Unix time before the queue's clock."""
        lanes = [_unsent_of(lane, priority, ahead) for lane in self._turns for priority in lane.messages]
        merged = heapq.merge(*lanes, map(Unsent, later), key=_accepted)
        return (unsent for unsent in merged if not self._is_cancelled(unsent.message))

    def take_up(self, now: float, wall: float) -> bool:
        """Takes over what others left. → whether there was anything."""
        left: list[Left] = []
        try:
            left.extend(self._journal.take() if self._journal else ())
        except OSError as error:
            if str(error) != self._complaint:
                _logger.error("what was left unsent cannot be taken up: %s", error)
            self._complaint = str(error)
        for one in left:
            self._learn(one, now, wall)
        taken = 0
        for unsent in heapq.merge(*(one.messages for one in left), key=_accepted):
            self._take(unsent, now, wall)
            taken += 1
        if taken:
            _logger.info("took up %d messages that were unsent", taken)
        return bool(left)

    def _learn(self, left: Left, now: float, wall: float) -> None:
        for scope, (until, reason) in left.paused.items():
            self._gate.pause(scope, now + until - wall, reason)
        for scope, (since, reason) in left.by_hand.items():
            self._gate.by_hand.setdefault(scope, HandPause(since, reason))
        for name, other in left.aliases.items():
            if (into := self._aliases.learn(name, other)) is not None:
                self._gate.merge(name, into)
                self._turns.merge(name, into, now)
        for bot, key, id, until in left.dedup:
            if self._dedup.first(bot, key, wall) is None:
                self._dedup.keep(bot, key, id, until)
        for id, what, until in left.ended:
            self._parents.keep(id, what, until)

    def _take(self, unsent: Unsent, now: float, wall: float) -> None:
        message = unsent.message
        self._statuses.begin(message, _accepted(unsent))
        self._parents.begin(message)
        if unsent.history:
            self._statuses.note_try(message, unsent.attempts, str(unsent.history[-1].get("error")))
        if is_later(message, wall):
            self._doors.put_off(message)
        else:
            self._parents.placed(message)
            tries = Tries(unsent.attempts, unsent.until - wall + now, list(unsent.history))
            self._turns.push(self._lane_of(message), message, now, tries=tries)

    def _lane_of(self, message: Message) -> str:
        return self._aliases.lane(message.bot, message.chat)


def _unsent_of(lane: Lane, priority: Priority, ahead: float) -> Iterator[Unsent]:
    tries = lane.tries_of(priority)
    for message in lane.messages[priority]:
        yield Unsent(message, tries.attempts, max(0.0, tries.until + ahead), tries.history)
        tries = Tries()


def _accepted(unsent: Unsent) -> float:
    return unsent.message.accepted or 0.0
