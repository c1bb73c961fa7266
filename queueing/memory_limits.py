"""What may leave now, within one process: limits and pauses. The same as lua/limits.lua."""

import math
from dataclasses import dataclass

from queueing.limits import MARGIN, Rate, RateLimits
from queueing.schedule import Schedule
from queueing.shared_budget import SharedBudget
from queueing.sliding_log import Pace, SlidingLog

FLOOD_CHATS = 3
"""Distinct chats refused within FLOOD_WITHIN seconds, with deadlines as close to each other, that mean the bot."""
FLOOD_WITHIN = 1.0

EVERYTHING = "*"
"""The scope of a pause of all bots."""


def account(bot: str, *, paid: bool) -> str:
    """The name of what a bot's free or paid messages use."""
    return f"{bot} paid" if paid else f"{bot} free"


@dataclass(slots=True)
class _Scope:
    """A bot ("123"), an account of it ("123 paid"), a lane ("123:42") or everything: its log, its pace, and until when
    and why a failure paused it."""

    log: SlidingLog | None
    pace: Pace | None
    paused_until: float = -math.inf
    reason: str = ""

    @property
    def limited_until(self) -> float:
        return max(self.log.free_at if self.log else -math.inf, self.pace.free_at if self.pace else -math.inf)

    @property
    def over_at(self) -> float:
        """When nothing of it matters any more."""
        return max(self.paused_until, self.limited_until, self.log.over_at if self.log else -math.inf)


@dataclass(frozen=True, slots=True)
class HandPause:
    """A pause that a person ordered, and ends. since: Unix seconds."""

    since: float
    reason: str


class Gate:
    """Asked before anything is granted, told of everything that was. Forgets what is past.

    limits: of this process. budgets: of all processes together, per bot: the free and the paid one.
    """

    def __init__(self, limits: RateLimits, budget: SharedBudget | None, paid_budget: SharedBudget | None) -> None:
        self.limits = limits
        self._budgets = {False: budget, True: paid_budget}
        self._scopes: dict[str, _Scope] = {}
        self._over = Schedule()
        self._floods: dict[str, dict[str, tuple[float, float]]] = {}
        self._singles: dict[str, Rate] = {}
        self.by_hand: dict[str, HandPause] = {}

    def limited_until(self, scope: str) -> float:
        """When one more message of this account or lane may leave by its limit; -inf: at any time."""
        kept = self._scopes.get(scope)
        return kept.limited_until if kept else -math.inf

    def pause_of(self, scope: str) -> tuple[float, str]:
        """→ until when it is paused (-inf: it is not; inf: until a person resumes it), and why."""
        if scope in self.by_hand:
            return math.inf, "paused"
        kept = self._scopes.get(scope)
        return (kept.paused_until, kept.reason) if kept else (-math.inf, "")

    def chat_free_at(self, lane: str) -> float:
        """When a message of this lane may leave, as far as its chat goes."""
        return max(self.pause_of(lane)[0], self.limited_until(lane))

    def bot_free_at(self, bot: str, *, paid: bool) -> float:
        """When a message of this bot may leave, as far as this process knows."""
        paused = max(self.pause_of(EVERYTHING)[0], self.pause_of(bot)[0])
        return max(paused, self.limited_until(account(bot, paid=paid)))

    def depart(self, lane: str, bot: str, now: float, *, paid: bool) -> float:
        """A message leaves, if all processes together leave room for it: then the answer is -inf, else when to ask
        again, and nothing was done."""
        budget = self._budgets[paid]
        free_at = budget.take(bot, now) if budget else -math.inf
        if free_at > now:
            return free_at
        for name in (lane, account(bot, paid=paid)):
            if not self._rate(name).count:
                continue
            scope = self._scope(name)
            if scope.log:
                scope.log.add(now)
            if scope.pace:
                scope.pace.add(now)
            self._over.put(name, scope.over_at)
        return -math.inf

    def take_back(self, lane: str, bot: str, granted: float, *, paid: bool) -> None:
        """What was granted at this time did not leave: its places are free again."""
        budget = self._budgets[paid]
        if budget:
            budget.take_back(bot, granted)
        for name in (lane, account(bot, paid=paid)):
            scope = self._scopes.get(name)
            if scope and scope.log:
                scope.log.take_back(granted)
            if scope and scope.pace:
                scope.pace.take_back()

    def left_late(self, lane: str, bot: str, granted: float, at: float, *, paid: bool) -> None:
        """What was granted took until `at` to be written."""
        for name in (lane, account(bot, paid=paid)):
            scope = self._scope(name)
            if scope.log:
                scope.log.take_back(granted)
                scope.log.merge([at])
                self._over.put(name, scope.over_at)

    def pause(self, scope: str, until: float, reason: str) -> None:
        """Two pauses of the same thing combine by the later deadline."""
        kept = self._scope(scope)
        if until > kept.paused_until:
            kept.paused_until, kept.reason = until, reason
        self._over.put(scope, kept.over_at)

    def flooded(self, lane: str, bot: str, until: float, now: float) -> None:
        """A chat was told to wait. Two flooded chats are two; three at once are the bot."""
        self.pause(lane, until, "flood")
        recent = {name: told for name, told in self._floods.get(bot, {}).items() if told[0] > now - FLOOD_WITHIN}
        recent[lane] = (now, until)
        self._floods[bot] = recent
        alike = [other for _, other in recent.values() if abs(other - until) <= FLOOD_WITHIN]
        if len(alike) >= FLOOD_CHATS:
            self.pause(bot, max(alike), "flood")

    def merge(self, lane: str, into: str) -> None:
        """Two lanes are one chat: what left of either counts for it, and what held either up holds it up."""
        if pause := self.by_hand.pop(lane, None):
            self.by_hand.setdefault(into, pause)
        single = self._singles.pop(lane, None) or self.limits.chats.get(_chat_of(lane))
        if single:
            self._singles[into] = single
        both = [scope for scope in (self._scopes.pop(lane, None), self._scopes.pop(into, None)) if scope]
        self._over.discard(lane)
        self._over.discard(into)
        for scope in both:
            kept = self._scope(into)
            if scope.log and kept.log:
                kept.log.merge(scope.log.times)
            self.pause(into, scope.paused_until, scope.reason)

    def pauses(self, now: float) -> dict[str, tuple[float, str]]:
        """What failures paused: for how many seconds, and why."""
        return {
            name: (kept.paused_until - now, kept.reason)
            for name, kept in self._scopes.items()
            if kept.paused_until > now
        }

    def sweep(self, now: float) -> None:
        """Forgets the scopes of which nothing matters any more."""
        while (scope := self._over.pop_due(now)) is not None:
            del self._scopes[scope]
        for bot in [bot for bot, told in self._floods.items() if max(told.values())[0] <= now - FLOOD_WITHIN]:
            del self._floods[bot]

    def close(self) -> None:
        for budget in self._budgets.values():
            if budget:
                budget.close()

    def limit_of_chat(self, lane: str) -> Rate:
        """By its own name or, if one was set for another of its names, by that."""
        chat = _chat_of(lane)
        single = None if chat in self.limits.chats else self._singles.get(lane)
        return single or self.limits.of_chat(chat)

    def is_limited(self, lane: str, *, paid: bool) -> bool:
        """Whether any limit holds for a message of this lane."""
        return bool(self.limits.of_bot(paid=paid).count or self.limit_of_chat(lane).count)

    def _rate(self, name: str) -> Rate:
        """The limit of a lane or an account; a bot as a whole has none."""
        if ":" in name:
            return self.limit_of_chat(name)
        _, space, kind = name.partition(" ")
        return self.limits.of_bot(paid=kind == "paid") if space else Rate(0)

    def _scope(self, name: str) -> _Scope:
        kept = self._scopes.get(name)
        if kept is None:
            rate = self._rate(name)
            wide = Rate(rate.count, rate.period + MARGIN)
            kept = self._scopes[name] = _Scope(
                log=SlidingLog(wide) if rate.count else None,
                pace=Pace(wide) if rate.count and ":" not in name else None,
            )
        return kept


def _chat_of(lane: str) -> str:
    return lane.partition(":")[2]
