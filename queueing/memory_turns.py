"""Whose turn it is, within one process: the same as lua/grant.lua."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from queueing.memory_lanes import PRIORITIES, Lane, Tries
from queueing.memory_limits import Gate, account
from queueing.memory_outage import Outages
from queueing.message import Message, Priority
from queueing.schedule import Schedule

FRESH = 60.0
"""Seconds ago at which a lane that was empty counts as served: before the busy ones, but not before those that have
waited for longer, so that a stream of new lanes starves nobody."""

BULK_SHARE = 0.8
"""Of a process's coroutines, and of a bot's share of them; the rest is free for what a person waits for."""
BOT_SHARE = 0.5
"""Of them for one bot, where others were served of late: those may have something at any moment."""
OF_LATE = 3600.0
"""Seconds."""

LOOKS = 50
"""Lanes and messages that may be found not to be eligible after all, in one call."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A head that leaves now. granted: on the queue's clock."""

    lane: Lane
    message: Message
    tries: Tries
    granted: float

    @property
    def home(self) -> Lane:
        """Where it belongs by now."""
        lane = self.lane
        while lane.into:
            lane = lane.into
        return lane


@dataclass(slots=True)
class Hand:
    """What the process holds. workers: how many it can: the coroutines that ask, and those that are busy."""

    workers: int
    bulk: int = 0
    of_bot: Counter[str] = field(default_factory=Counter)
    bulk_of_bot: Counter[str] = field(default_factory=Counter)

    def add(self, message: Message) -> None:
        is_bulk = message.priority is Priority.BULK
        self.of_bot[message.bot] += 1
        self.bulk += is_bulk
        self.bulk_of_bot[message.bot] += is_bulk

    def has_share(self, bot: str) -> bool:
        return self.of_bot[bot] >= self.workers * BOT_SHARE

    def takes(self, bot: str, priority: Priority, *, alone: bool) -> bool:
        """alone: whether no other bot was served of late."""
        if priority is not Priority.BULK:
            return True
        if self.bulk >= self.workers * BULK_SHARE:
            return False
        return alone or self.bulk_of_bot[bot] < self.workers * BOT_SHARE * BULK_SHARE


@dataclass(slots=True)
class _Account:
    """The free or the paid messages of a bot: what has a limit of its own, and takes turns with the others.

    ready: its lanes that may be served now, by their last turn. messages: in those lanes.
    """

    name: str
    bot: str
    paid: bool
    served: float
    ready: dict[Priority, Schedule] = field(default_factory=lambda: {priority: Schedule() for priority in PRIORITIES})
    messages: int = 0


class Turns:
    """The lanes, and whose turn it is: accounts by their last turn, their lanes by priority, then by their last turn.

    A lane of which nothing is in flight is ready (may be served as soon as its account may), or due (looked at again
    at a time), or both, when it is ready for a lower priority than one that is retried later. An account with ready
    lanes is in `_accounts_ready` or, while it may not send, in `_accounts_due`.

    end_if_over: whether a head is not to be sent any more; one that is leaves, and its end is noted.
    held_up: until when a head that is `after` others waits for them. is_too_early: whether one of them is behind it.
    """

    def __init__(
        self,
        gate: Gate,
        outages: Outages,
        end_if_over: Callable[[Message], bool],
        held_up: Callable[[Message, Lane], float],
        is_too_early: Callable[[Message, Lane], bool],
    ) -> None:
        self._gate = gate
        self._outages = outages
        self._end_if_over = end_if_over
        self._held_up = held_up
        self._is_too_early = is_too_early
        self._lanes: dict[str, Lane] = {}
        self._due = Schedule()
        self._due_messages = 0
        self._accounts: dict[str, _Account] = {}
        self._accounts_ready = Schedule()
        self._accounts_due = Schedule()
        self._served: dict[str, float] = {}
        self._looks = LOOKS
        self.laned: Counter[Priority] = Counter()
        self._laned_bulk: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Lane]:
        """Those that have had messages for the longest come first."""
        return iter(self._lanes.values())

    def get(self, name: str) -> Lane | None:
        return self._lanes.get(name)

    @property
    def waiting(self) -> int:
        """Messages in lanes that wait for a time, or whose account does."""
        return self._due_messages + sum(self._accounts[name].messages for name in self._accounts_due)

    def next_due(self, now: float) -> float | None:
        """Seconds until a lane or an account has to be looked at again."""
        if not self._looks:
            return 0.0
        firsts = [first[0] for first in (self._due.first(), self._accounts_due.first()) if first]
        return max(0.0, min(firsts) - now) if firsts and min(firsts) < math.inf else None

    def laned_bulk(self, bot: str) -> int:
        """The bot's bulk messages in lanes, in flight or not."""
        return self._laned_bulk[bot]

    def bulk_ahead(self, bot: str) -> int:
        """The bot's bulk messages in lanes, in flight or not; 0 while every lane waits for its chat or a retry: what
        holds some chats up must not hold up the others that stand behind them."""
        accounts = (self._accounts.get(account(bot, paid=paid)) for paid in (False, True))
        is_any_ready = any(its and its.ready[Priority.BULK] for its in accounts)
        return self._laned_bulk[bot] if is_any_ready else 0

    def push(self, name: str, message: Message, now: float, *, tries: Tries | None = None) -> None:
        """tries: of this message, which count if it is a head now."""
        lane = self._lane(name, now)
        self._count_laned(lane, message.priority, 1)
        if message.priority in lane.messages:
            lane.push(message)
            self._count(lane, 1)
            return
        # A new head: it may go before the others of its chat.
        self._leave(lane)
        lane.push(message)
        if tries and tries.history:
            lane.tries[message.priority] = tries
        self.place(lane, now)

    def push_first(self, name: str, message: Message, now: float) -> None:
        """To the head of its lane, behind one that is sent or tried."""
        lane = self._lane(name, now)
        self._count_laned(lane, message.priority, 1)
        self._leave(lane)
        lane.push_first(message)
        self.place(lane, now)

    def _lane(self, name: str, now: float) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, served=now - FRESH)
        return lane

    def end(self, taken: Taken) -> None:
        """What was in flight will not come back."""
        taken.home.out -= 1
        self._count_laned(taken.home, taken.message.priority, -1)

    def give_back(self, taken: Taken) -> None:
        """What was in flight comes back."""
        lane = taken.home
        lane.out -= 1
        put = lane.put_between if lane.mixed else lane.put_back
        put(taken.message, taken.tries)

    def merge(self, name: str, into: str, now: float) -> None:
        """Two lanes turned out to be one."""
        old = self._lanes.pop(name, None)
        if old is None:
            return
        self._leave(old)
        lane = self._lane(into, now)
        self._leave(lane)
        lane.served = min(lane.served, old.served)
        lane.absorb(old)
        self.place(lane, now)

    def look_at(self, lane: Lane, now: float) -> None:
        """What held it up may have ended."""
        self._leave(lane)
        self.place(lane, now)

    def _count_laned(self, lane: Lane, priority: Priority, by: int) -> None:
        """by: messages that come into lanes; less than 0: that leave them for good."""
        self.laned[priority] += by
        if priority is Priority.BULK:
            self._laned_bulk[lane.bot] += by
            if not self._laned_bulk[lane.bot]:
                del self._laned_bulk[lane.bot]

    def _count(self, lane: Lane, messages: int) -> None:
        if lane.ready:
            self._accounts[lane.ready[0]].messages += messages
        elif lane.name in self._due:
            self._due_messages += messages

    def place(self, lane: Lane, now: float) -> None:
        """Puts a lane that is nowhere to where it belongs. One of which something is in flight stays nowhere; an empty
        one ends."""
        if lane.out:
            return
        if not lane.messages:
            self._lanes.pop(lane.name, None)
            return
        for one in lane.messages:
            if lane.head(one).after:
                lane.turn_round(one, self._is_too_early)
        priority, earlier = lane.eligible(now, self._held_up)
        free_at = self._gate.chat_free_at(lane.name)
        if priority and free_at <= now:
            self._make_ready(lane, priority, now)
            if earlier < math.inf:
                self._due.put(lane.name, earlier)
            return
        at = free_at if priority else max(free_at, earlier)
        if now < self._gate.limited_until(lane.name) == at:
            self.limited["group" if lane.chat.startswith(("-", "@")) else "chat"] += 1
        self._due.put(lane.name, at)
        self._count(lane, lane.waiting)

    def _make_ready(self, lane: Lane, priority: Priority, now: float) -> None:
        paid = lane.head(priority).paid
        name = account(lane.bot, paid=paid)
        its = self._accounts.get(name)
        if its is None:
            its = self._accounts[name] = _Account(name, lane.bot, paid, served=now - FRESH)
        its.ready[priority].put(lane.name, lane.served)
        lane.ready = (name, priority)
        self._count(lane, lane.waiting)
        if name not in self._accounts_ready and name not in self._accounts_due:
            self._accounts_ready.put(name, its.served)

    def _leave(self, lane: Lane) -> None:
        """Takes a lane away from where it is, if it is anywhere."""
        self._count(lane, -lane.waiting)
        if lane.ready:
            name, priority = lane.ready
            self._accounts[name].ready[priority].discard(lane.name)
            lane.ready = None
        self._due.discard(lane.name)

    def promote(self, now: float) -> None:
        """What has become due goes to its place."""
        while (first := self._due.first()) and first[0] <= now:
            self.look_at(self._lanes[first[1]], now)
        while (name := self._accounts_due.pop_due(now)) is not None:
            self._accounts_ready.put(name, self._accounts[name].served)

    def look_again(self, bot: str) -> None:
        """Something that held the bot up may have ended."""
        for name in (account(bot, paid=False), account(bot, paid=True)):
            if name in self._accounts_due:
                self._accounts_due.discard(name)
                self._accounts_ready.put(name, self._accounts[name].served)

    def look_again_at_all(self) -> None:
        for name in list(self._accounts_due):
            self.look_again(self._accounts[name].bot)

    def lanes_before(self, lane: Lane, priority: Priority, *, paid: bool) -> int:
        """Lanes of its account that have their turn before this one."""
        its = self._accounts.get(account(lane.bot, paid=paid))
        if its is None:
            return 0
        higher = PRIORITIES[: PRIORITIES.index(priority)]
        return sum(len(its.ready[one]) for one in higher) + its.ready[priority].rank(lane.name)

    def hand(self, workers: int, held: Iterator[Message], now: float) -> Hand:
        """What the process holds before it takes more."""
        self._served = {bot: at for bot, at in self._served.items() if at > now - OF_LATE}
        hand = Hand(workers)
        for message in held:
            hand.add(message)
        return hand

    def grant(self, want: int, hand: Hand, now: float) -> list[Taken]:
        """Up to `want` heads that leave now. Their lanes are nowhere after it, until they are placed again."""
        grants: list[Taken] = []
        aside: deque[_Account] = deque()
        self._looks = LOOKS
        while len(grants) < want and self._looks and (chosen := self._choose(hand, now, aside)):
            taken = self._grant_one(chosen, hand, now)
            if chosen.messages and chosen.name not in self._accounts_due:
                self._accounts_ready.put(chosen.name, chosen.served)
            if taken:
                hand.add(taken.message)
                grants.append(taken)
        for one in aside:
            self._accounts_ready.put(one.name, one.served)
        return grants

    def _choose(self, hand: Hand, now: float, aside: deque[_Account]) -> _Account | None:
        """Takes away the account that was served longest ago, of those that may send and have what may be taken; one of
        a bot that has its share only if no other can. Those that have nothing to be taken now are put aside."""
        second = None
        while entry := self._accounts_ready.pop():
            its = self._accounts[entry[1]]
            free_at = max(self._gate.bot_free_at(its.bot, paid=its.paid), self._outages.probe_at(its.bot))
            if not its.messages:
                continue
            if free_at > now:
                self._put_off(its, free_at, self._gate.limited_until(its.name))
            elif self._first_ready(its, hand) is None:
                aside.append(its)
            elif not hand.has_share(its.bot):
                if second:
                    self._accounts_ready.put(second.name, second.served)
                return its
            elif second or not self._is_alone(its.bot):
                aside.append(its)
            else:
                second = its
        return second

    def _is_alone(self, bot: str) -> bool:
        """Whether no other bot was served of late."""
        return self._served.keys() <= {bot}

    def _first_ready(self, its: _Account, hand: Hand) -> Priority | None:
        alone = self._is_alone(its.bot)
        return next((one for one in PRIORITIES if its.ready[one] and hand.takes(its.bot, one, alone=alone)), None)

    def _put_off(self, its: _Account, free_at: float, limited_until: float) -> None:
        if limited_until == free_at:
            self.limited["bot"] += 1
        self._accounts_due.put(its.name, free_at)

    def _grant_one(self, its: _Account, hand: Hand, now: float) -> Taken | None:
        """The account's next head, if it may leave after all. All limits are asked before anything is written."""
        priority = self._first_ready(its, hand)
        first = priority and its.ready[priority].first()
        if not priority or not first:
            return None
        lane = self._lanes[first[1]]
        if self._gate.chat_free_at(lane.name) > now:
            self._looks -= 1
            self.look_at(lane, now)
            return None
        if self._clear(lane, priority, now):
            return None
        if lane.head(priority).after and self._held_up(lane.head(priority), lane) > now:
            self._looks -= 1
            self.look_at(lane, now)
            return None
        free_at = self._gate.depart(lane.name, its.bot, now, paid=its.paid)
        if free_at > now:
            self._put_off(its, free_at, free_at)
            return None
        self._leave(lane)
        lane.out, lane.mixed = 1, False
        its.served = self._served[its.bot] = now
        self._outages.granted(its.bot, lane.name, now)
        return Taken(lane, *lane.take(priority), now)

    def _clear(self, lane: Lane, priority: Priority, now: float) -> bool:
        """Takes away heads that are not to be sent any more. → whether there were: then the lane is placed anew."""
        cleared = False
        while self._looks and priority in lane.messages and self._end_if_over(lane.head(priority)):
            if not cleared:
                self._leave(lane)
            cleared = True
            self._looks -= 1
            self._count_laned(lane, priority, -1)
            lane.take(priority)
        if cleared:
            self.place(lane, now)
        return cleared
