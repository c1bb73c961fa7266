"""What may leave now, within one process: limits, pauses and floods. The same as lua/limits.lua and lua/outage.lua."""

import math
from dataclasses import dataclass

from queueing.limits import MARGIN, Rate, RateLimits
from queueing.schedule import Schedule
from queueing.shared_budget import SharedBudget
from queueing.sliding_log import Pace, SlidingLog

FLOOD_CHATS = 3
"""Distinct chats refused within FLOOD_WITHIN seconds, with deadlines as close to each other, that mean the bot."""
FLOOD_WITHIN = 1.0


@dataclass(slots=True)
class _Scope:
    """A bot ("123") or a lane ("123:42"): its log, its pace, and until when it is paused."""

    log: SlidingLog | None
    pace: Pace | None
    paused_until: float = -math.inf

    @property
    def free_at(self) -> float:
        return max(
            self.paused_until,
            self.log.free_at if self.log else -math.inf,
            self.pace.free_at if self.pace else -math.inf,
        )

    @property
    def over_at(self) -> float:
        """When nothing of it matters any more."""
        return max(self.free_at, self.log.over_at if self.log else -math.inf)


class Gate:
    """Asked before anything is granted, told of everything that was. Forgets what is past.

    limits: of this process. budget: of all processes together, per bot.
    """

    def __init__(self, limits: RateLimits, budget: SharedBudget | None) -> None:
        self.limits = limits
        self._budget = budget
        self._scopes: dict[str, _Scope] = {}
        self._over = Schedule()
        self._floods: dict[str, dict[str, tuple[float, float]]] = {}

    def free_at(self, scope: str) -> float:
        """When a message of this bot or lane may leave, as far as this process knows; -inf: at any time."""
        kept = self._scopes.get(scope)
        return kept.free_at if kept else -math.inf

    def depart(self, lane: str, bot: str, now: float) -> float:
        """A message leaves, if all processes together leave room for it: then the answer is -inf, else when to ask
        again, and nothing was done."""
        free_at = self._budget.take(bot, now) if self._budget else -math.inf
        if free_at > now:
            return free_at
        for name in (lane, bot):
            if not self._rate(name).count:
                continue
            scope = self._scope(name)
            if scope.log:
                scope.log.add(now)
            if scope.pace:
                scope.pace.add(now)
            self._over.put(name, scope.over_at)
        return -math.inf

    def take_back(self, lane: str, bot: str, granted: float) -> None:
        """What was granted at this time did not leave: its places are free again."""
        if self._budget:
            self._budget.take_back(bot, granted)
        for name in (lane, bot):
            scope = self._scopes.get(name)
            if scope and scope.log:
                scope.log.take_back(granted)
            if scope and scope.pace:
                scope.pace.take_back()

    def pause(self, scope: str, until: float) -> None:
        """Two pauses of the same thing combine by the later deadline."""
        kept = self._scope(scope)
        kept.paused_until = max(kept.paused_until, until)
        self._over.put(scope, kept.over_at)

    def flooded(self, lane: str, bot: str, until: float, now: float) -> None:
        """A chat was told to wait. Two flooded chats are two; three at once are the bot."""
        self.pause(lane, until)
        recent = {name: told for name, told in self._floods.get(bot, {}).items() if told[0] > now - FLOOD_WITHIN}
        recent[lane] = (now, until)
        self._floods[bot] = recent
        alike = [other for _, other in recent.values() if abs(other - until) <= FLOOD_WITHIN]
        if len(alike) >= FLOOD_CHATS:
            self.pause(bot, max(alike))

    def pauses(self, now: float) -> dict[str, float]:
        """What is paused, for how many seconds."""
        return {name: kept.paused_until - now for name, kept in self._scopes.items() if kept.paused_until > now}

    def sweep(self, now: float) -> None:
        """Forgets the scopes of which nothing matters any more."""
        while (scope := self._over.pop_due(now)) is not None:
            del self._scopes[scope]
        for bot in [bot for bot, told in self._floods.items() if max(told.values())[0] <= now - FLOOD_WITHIN]:
            del self._floods[bot]

    def _rate(self, name: str) -> Rate:
        _, colon, chat = name.partition(":")
        return self.limits.of_chat(chat) if colon else self.limits.bot

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
