"""Lanes within one process, and whose turn it is: the same as lua/lane.lua and lua/grant.lua."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from queueing.memory_limits import Gate
from queueing.memory_outage import Outages
from queueing.message import Message, Priority
from queueing.schedule import Schedule

FRESH = 60.0
"""Seconds ago at which a lane that was empty counts as served: before the busy ones, but not before those that have
waited for longer, so that a stream of new lanes starves nobody."""

BULK_SHARE = 0.8
"""Of a process's coroutines; the rest is free for what a person waits for."""
BOT_SHARE = 0.5
"""Of them for one bot, while others have something to send."""

PRIORITIES = (Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK)


@dataclass(slots=True)
class Tries:
    """What was tried with a head. until: before which it is not tried again, on the queue's clock."""

    attempts: int = 0
    until: float = -math.inf
    history: list[Mapping[str, object]] = field(default_factory=list)


@dataclass(slots=True)
class Lane:
    """The messages of a (bot, chat). A head stays where it is until it is settled.

    served: when it had its turn last. ready: the priority for which it is ready; None: it is not.
    """

    name: str
    bot: str
    served: float
    messages: dict[Priority, deque[Message]] = field(default_factory=dict)
    tries: dict[Priority, Tries] = field(default_factory=dict)
    ready: Priority | None = None

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.messages.values())

    def push(self, message: Message) -> None:
        self.messages.setdefault(message.priority, deque()).append(message)

    def head(self, priority: Priority) -> Message:
        return self.messages[priority][0]

    def remove_head(self, priority: Priority) -> Message:
        self.tries.pop(priority, None)
        queue = self.messages[priority]
        message = queue.popleft()
        if not queue:
            del self.messages[priority]
        return message

    def tries_of(self, priority: Priority) -> Tries:
        return self.tries.get(priority) or Tries()

    def eligible(self, now: float) -> tuple[Priority | None, float]:
        """→ the first priority whose head may be tried now, and when one before it may be (inf: there is none)."""
        earliest = math.inf
        for priority in PRIORITIES:
            if priority in self.messages:
                until = self.tries_of(priority).until
                if until <= now:
                    return priority, earliest
                earliest = min(earliest, until)
        return None, earliest


@dataclass(slots=True)
class Hand:
    """What the process holds. workers: how many it can: the coroutines that ask, and those that are busy."""

    workers: int
    bulk: int = 0
    of_bot: dict[str, int] = field(default_factory=dict)

    def add(self, bot: str, priority: Priority) -> None:
        self.of_bot[bot] = self.of_bot.get(bot, 0) + 1
        self.bulk += priority is Priority.BULK

    def takes(self, priority: Priority) -> bool:
        return priority is not Priority.BULK or self.bulk < self.workers * BULK_SHARE

    def has_share(self, bot: str) -> bool:
        return self.of_bot.get(bot, 0) >= self.workers * BOT_SHARE


@dataclass(slots=True)
class _Bot:
    """ready: its lanes that may be served now, by their last turn. messages: in those lanes."""

    served: float
    ready: dict[Priority, Schedule] = field(default_factory=lambda: {priority: Schedule() for priority in PRIORITIES})
    messages: int = 0


class Turns:
    """The lanes, and in what order they are served: bots by their last turn, their lanes by priority, then by theirs.

    A lane that is not held is ready (may be served as soon as its bot may), or due (looked at again at a time), or
    both, when it is ready for a lower priority than one that is retried later. A bot with ready lanes is in `_bots` or,
    while it may not send, in `_bots_due`.
    """

    def __init__(self, gate: Gate, outages: Outages) -> None:
        self._gate = gate
        self._outages = outages
        self._lanes: dict[str, Lane] = {}
        self._due = Schedule()
        self._due_messages = 0
        self._by_bot: dict[str, _Bot] = {}
        self._bots = Schedule()
        self._bots_due = Schedule()

    def __iter__(self) -> Iterator[Lane]:
        """Those that have had messages for the longest come first."""
        return iter(self._lanes.values())

    @property
    def waiting(self) -> int:
        """Messages in lanes that wait for a time, or whose bot does."""
        return self._due_messages + sum(self._by_bot[bot].messages for bot in self._bots_due)

    def next_due(self, now: float) -> float | None:
        """Seconds until a lane or a bot has to be looked at again."""
        firsts = [first[0] for first in (self._due.first(), self._bots_due.first()) if first]
        return max(0.0, min(firsts) - now) if firsts else None

    def push(self, message: Message, now: float, *, held: bool, tries: Tries | None = None) -> None:
        """tries: of this message, which count if it is a head now."""
        name = f"{message.bot}:{message.chat}"
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, message.bot, served=now - FRESH)
        if message.priority in lane.messages:
            lane.push(message)
            self._count(lane, 1)
            return
        # A new head: it may go before the others of its chat.
        if not held:
            self._leave(lane)
        if tries:
            lane.tries[message.priority] = tries
        lane.push(message)
        if not held:
            self.place(lane, now)

    def _count(self, lane: Lane, messages: int) -> None:
        if lane.ready:
            self._by_bot[lane.bot].messages += messages
        elif lane.name in self._due:
            self._due_messages += messages

    def place(self, lane: Lane, now: float) -> None:
        """Puts a lane that is nowhere to where it belongs; an empty one ends."""
        if not lane.messages:
            del self._lanes[lane.name]
            return
        priority, earlier = lane.eligible(now)
        chat_free_at = self._gate.free_at(lane.name)
        if priority and chat_free_at <= now:
            self._make_ready(lane, priority, now)
            if earlier < math.inf:
                self._due.put(lane.name, earlier)
        else:
            self._due.put(lane.name, chat_free_at if priority else max(chat_free_at, earlier))
            self._count(lane, len(lane))

    def _make_ready(self, lane: Lane, priority: Priority, now: float) -> None:
        bot = self._by_bot.setdefault(lane.bot, _Bot(served=now - FRESH))
        bot.ready[priority].put(lane.name, lane.served)
        lane.ready = priority
        self._count(lane, len(lane))
        if lane.bot not in self._bots and lane.bot not in self._bots_due:
            self._bots.put(lane.bot, bot.served)

    def _leave(self, lane: Lane) -> None:
        """Takes a lane that is not held away from where it is."""
        self._count(lane, -len(lane))
        if lane.ready:
            self._by_bot[lane.bot].ready[lane.ready].discard(lane.name)
            lane.ready = None
        self._due.discard(lane.name)

    def promote(self, now: float) -> None:
        """What has become due goes to its place."""
        while (first := self._due.first()) and first[0] <= now:
            lane = self._lanes[first[1]]
            self._leave(lane)
            self.place(lane, now)
        while (bot := self._bots_due.pop_due(now)) is not None:
            self._bots.put(bot, self._by_bot[bot].served)

    def look_again(self, bot: str) -> None:
        """Something that held the bot up may have ended."""
        if bot in self._bots_due:
            self._bots_due.discard(bot)
            self._bots.put(bot, self._by_bot[bot].served)

    def grant(self, want: int, hand: Hand, now: float) -> list[tuple[Lane, Priority]]:
        """Up to `want` lanes whose head leaves now. They are nowhere after it, until they are placed again."""
        grants: list[tuple[Lane, Priority]] = []
        aside: list[tuple[float, str]] = []
        while len(grants) < want and (bot := self._choose(hand, now, aside)):
            granted = self._grant_one(bot, hand, now)
            if self._by_bot[bot].messages and bot not in self._bots_due:
                self._bots.put(bot, self._by_bot[bot].served)
            if granted:
                hand.add(bot, granted[1])
                grants.append(granted)
        for served, bot in aside:
            self._bots.put(bot, served)
        return grants

    def _choose(self, hand: Hand, now: float, aside: list[tuple[float, str]]) -> str | None:
        """Takes away the bot that was served longest ago, of those that may send and have what may be taken; one that
        has its share only if no other can. Those that have nothing to be taken now are put aside."""
        with_share: list[tuple[float, str]] = []
        chosen = None
        while chosen is None and (entry := self._bots.pop()):
            bot = entry[1]
            free_at = max(self._gate.free_at(bot), self._outages.probe_at(bot))
            if not self._by_bot[bot].messages:
                continue
            if free_at > now:
                self._bots_due.put(bot, free_at)
            elif self._first_ready(bot, hand) is None:
                aside.append(entry)
            elif hand.has_share(bot):
                with_share.append(entry)
            else:
                chosen = bot
        if chosen is None and with_share:
            chosen = with_share.pop(0)[1]
        for served, bot in with_share:
            self._bots.put(bot, served)
        return chosen

    def _first_ready(self, bot: str, hand: Hand) -> Priority | None:
        ready = self._by_bot[bot].ready
        return next((priority for priority in PRIORITIES if ready[priority] and hand.takes(priority)), None)

    def _grant_one(self, bot: str, hand: Hand, now: float) -> tuple[Lane, Priority] | None:
        """The bot's next lane, if it may be served after all. All limits are asked before anything is written."""
        priority = self._first_ready(bot, hand)
        first = priority and self._by_bot[bot].ready[priority].first()
        if not priority or not first:
            return None
        lane = self._lanes[first[1]]
        if self._gate.free_at(lane.name) > now:
            self._leave(lane)
            self.place(lane, now)
            return None
        free_at = self._gate.depart(lane.name, bot, now)
        if free_at > now:
            self._bots_due.put(bot, free_at)
            return None
        self._leave(lane)
        self._by_bot[bot].served = now
        self._outages.granted(bot, lane.name, now)
        return lane, priority
