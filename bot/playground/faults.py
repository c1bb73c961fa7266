"""Faults to order: what goes wrong, where, how often. Each rule draws from its own seeded generator."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

Kind = Literal[
    "latency", "error", "hang", "reset_before", "reset_after", "blocked", "chat_not_found", "flood", "migrate",
    "unauthorized",
]  # fmt: skip


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One rule. What is not given matches everything; `chat` is an id or @name.

    kind            what happens
    latency         the answer comes after `ms` (to `ms_max`) milliseconds; other rules still apply
    error           a 5xx (`code`); the message is not taken, unless `taken`
    hang            taken, but no answer; with `seconds` the answer comes after these
    reset_before    RST; the message is not taken
    reset_after     taken, then RST
    blocked         403 "Forbidden: bot was blocked by the user"
    chat_not_found  400 "Bad Request: chat not found"
    flood           429 with `retry_after`, for this `scope` (chat, or the whole bot) until that time has passed
    migrate         400 with migrate_to_chat_id = `to`
    unauthorized    401 for the bot, or only for one `token` of it
    """

    kind: Kind
    bot: int | None = None
    chat: int | str | None = None
    method: str | None = None
    probability: float = 1.0
    skip: int = 0
    count: int | None = None
    seed: int = 0
    ms: float = 0.0
    ms_max: float = 0.0
    code: int = 502
    taken: bool = False
    seconds: float | None = None
    retry_after: int = 3
    scope: Literal["chat", "bot"] = "chat"
    to: int = 0
    token: str | None = None


class Rule:
    """A fault in force, with its dice and its tally."""

    def __init__(self, number: int, fault: Fault, chat: int | None) -> None:
        self.number = number
        self.fault = fault
        self.fired = 0
        self._seen = 0
        self._chat = chat
        self._method = fault.method.lower() if fault.method else None
        self._dice = random.Random(fault.seed)

    def strikes(self, bot: int, chat: int, method: str, token: str) -> bool:
        """Does it hit this call? Counts the matching calls, and draws only for those."""
        fault = self.fault
        if fault.bot not in (None, bot) or self._chat not in (None, chat) or fault.token not in (None, token):
            return False
        if self._method not in (None, method.lower()):
            return False
        self._seen += 1
        if self._seen <= fault.skip or (fault.count is not None and self.fired >= fault.count):
            return False
        if fault.probability < 1 and self._dice.random() >= fault.probability:
            return False
        self.fired += 1
        return True

    def delay(self) -> float:
        """Seconds of latency."""
        low, high = self.fault.ms, max(self.fault.ms, self.fault.ms_max)
        return (low if low == high else self._dice.uniform(low, high)) / 1000

    def describe(self) -> dict[str, object]:
        """The rule and its tally; never the token."""
        fault = msgspec.structs.asdict(self.fault)
        shown = {name: value for name, value in fault.items() if value is not None and name != "token"}
        return {"id": self.number, "fired": self.fired, "matched": self._seen, **shown}


class Faults:
    """The rules in force, in the order in which they were set. The first that strikes decides; latencies add up."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._next = 1

    def add(self, fault: Fault, chat: int | None) -> Rule:
        rule = Rule(self._next, fault, chat)
        self._next += 1
        self.rules.append(rule)
        return rule

    def remove(self, number: int) -> bool:
        before = len(self.rules)
        self.rules = [rule for rule in self.rules if rule.number != number]
        return len(self.rules) < before

    def clear(self) -> None:
        self.rules = []

    def pick(self, bot: int, chat: int, method: str, token: str) -> tuple[Rule | None, float]:
        """The rule that decides this call, if any, and its latency in seconds."""
        delay = 0.0
        for rule in self.rules:
            if not rule.strikes(bot, chat, method, token):
                continue
            if rule.fault.kind != "latency":
                return rule, delay
            delay += rule.delay()
        return None, delay
