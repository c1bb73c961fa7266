"""Why a message waits, within one process: the same as lua/why.lua."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from queueing.contract import Waiting
from queueing.limits import MARGIN, Rate
from queueing.memory_lanes import PRIORITIES, Lane
from queueing.memory_limits import EVERYTHING, Gate, account
from queueing.memory_outage import Outages
from queueing.memory_turns import Turns
from queueing.message import Message, Priority

MOST = 1000
"""Messages before it that are counted."""


@dataclass(slots=True)
class _Search:
    """Looks for a message, and counts those before it."""

    id: str
    ahead: int = 0

    def find(self, messages: Iterable[Message]) -> Message | None:
        for message in messages:
            if self.is_over:
                return None
            if message.id == self.id:
                return message
            self.ahead += 1
        return None

    @property
    def is_over(self) -> bool:
        return self.ahead >= MOST


class Why:
    """Asks everything that could be in a message's way."""

    def __init__(self, gate: Gate, outages: Outages, turns: Turns, waits: Callable[[Message], str | None]) -> None:
        """waits: whether a head waits for another message."""
        self._gate = gate
        self._outages = outages
        self._turns = turns
        self._waits = waits

    def in_lane(self, id: str, name: str, out: Iterable[Message], now: float, wall: float) -> Waiting | None:
        """Of a message in a lane; None if it is not there. out: what is in flight of the lane. wall: Unix seconds."""
        lane = self._turns.get(name)
        if lane is None:
            return None
        search = _Search(id)
        found = None
        for priority in PRIORITIES:
            search.ahead += sum(message.priority is priority for message in out)
            found = search.find(lane.messages.get(priority, ()))
            if found or search.is_over:
                break
        else:
            return None
        if found and not search.is_over:
            search.ahead += sum(PRIORITIES.index(message.priority) > PRIORITIES.index(priority) for message in out)
        paid = found is not None and found.paid
        reason, until = self._obstacle(lane, priority, search.ahead, now, paid=paid)
        slot = max(_spacing(self._gate.limit_of_chat(lane.name)), _spacing(self._gate.limits.of_bot(paid=paid)))
        until += search.ahead * slot
        known = now < until < math.inf
        return Waiting(reason, until - now + wall if known else None, search.ahead, search.is_over)

    def at_a_door(self, id: str, front: Iterable[Message], bulk: Iterable[Message], laned_bulk: int) -> Waiting:
        """Of a message that is in no lane yet. bulk: of its bot, behind `laned_bulk` that were taken from there."""
        search = _Search(id)
        found = search.find(front)
        if not found:
            search.ahead = min(MOST, search.ahead + laned_bulk)
            found = search.find(bulk)
        return Waiting("door", None, search.ahead, found is None and search.is_over)

    def _obstacle(self, lane: Lane, priority: Priority, ahead: int, now: float, *, paid: bool) -> tuple[str, float]:
        """What holds the lane, and until when: the latest of all and, of those that end together, the widest."""
        gate, bot = self._gate, lane.bot
        before = self._turns.lanes_before(lane, priority, paid=paid)
        bot_free = gate.limited_until(account(bot, paid=paid))
        if before:
            bot_free = max(bot_free, now) + before * _spacing(gate.limits.of_bot(paid=paid))
        pauses = [gate.pause_of(scope) for scope in (EVERYTHING, bot, lane.name)]
        reason, until = "ahead" if ahead else "turn", now
        for at, why in (
            *pauses,
            (bot_free, "bot_limit"),
            (gate.limited_until(lane.name), "chat_limit"),
            (lane.tries_of(priority).until, "retry"),
            (math.inf if priority in lane.messages and self._waits(lane.head(priority)) else -math.inf, "parent"),
            (self._outages.probe_at(bot), "outage"),
        ):
            if at > until:
                reason, until = why, at
        return reason, until


def _spacing(rate: Rate) -> float:
    return (rate.period + MARGIN) / rate.count if rate.count else 0.0
