"""What became of every message, from the ledger, the stand-in's judge and the dead letters; nothing of the senders'."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from queueing.contract import DeadLetter
from tests.chaos.arena import Arena
from tests.chaos.plan import Plan

WORKERS = 10
"""Coroutines of a process: what it holds at most when it is hit (QUEUE_WORKERS)."""

TOLD_WITHIN_NS = 500_000_000
"""From Telegram's answer to the queue's record of it, on a busy machine; until then the message is in flight."""

_EVER = 1_000_000


@dataclass(slots=True)
class Hit:
    """A process that was killed or stopped. Times: CLOCK_MONOTONIC, ns; until: when it was taken over, or went on."""

    kind: str
    at_ns: int
    until_ns: int = 0
    doubles: int = 0


@dataclass(slots=True)
class Report:
    accepted: int
    sent: int
    dead: Mapping[str, int]
    lost: int
    duplicated_uncertain: int
    duplicated: int
    disorder: int
    exceeded: Mapping[str, int]
    timestamp_error_ms: float
    utilisation: float
    refused_by_limit: int
    longest_takeover: float
    hits: Mapping[str, int]
    void: bool
    examples: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        found = {
            "lost": self.lost,
            "dead": sum(self.dead.values()),
            "duplicated, and not uncertain": self.duplicated,
            "order violations": self.disorder,
            "windows exceeded": 0 if self.void else sum(self.exceeded.values()),
        }
        return [f"{what}: {count}" for what, count in found.items() if count]

    def table(self) -> str:
        exceeded = ", ".join(f"{scope} {count}" for scope, count in self.exceeded.items())
        void = f", VOID: a timestamp may be {self.timestamp_error_ms:.0f} ms off" if self.void else ""
        dead = ", ".join(f"{reason} {count}" for reason, count in self.dead.items())
        rows = {
            "accepted": self.accepted,
            "sent": self.sent,
            "dead": dead or 0,
            "lost": self.lost,
            "duplicated, uncertain": self.duplicated_uncertain,
            "duplicated, not uncertain": self.duplicated,
            "order violations": self.disorder,
            "windows exceeded": exceeded + void,
            "refused by an enforced limit": self.refused_by_limit,
            "utilisation of the bots' limit": f"{self.utilisation:.1%}",
            "longest take-over": f"{self.longest_takeover:.1f} s",
            "processes hit": ", ".join(f"{kind} {count}" for kind, count in self.hits.items()) or "none",
        }
        lines = [f"  {name:<32}{value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"  ! {example}" for example in self.examples)])


async def audit(
    place: Arena, plan: Plan, hits: Sequence[Hit], away: Sequence[tuple[int, int]], takeovers: Sequence[float]
) -> Report:
    """hits, away (the server's absences) and takeovers (seconds): what the run did and saw."""
    calls = await place.calls()
    verdict = await place.verdict(
        series=[{"bot": one.bot, "chat": one.chat, "count": one.count} for one in plan.series]
    )
    letters = await place.watcher.dead_letters(_EVER)
    delivery = verdict["delivery"]
    taken = {(call["bot"], call["text"]) for call in calls if call["taken"]}
    unsent = [letter for letter in letters if not any(text in letter.element for _, text in taken)] if letters else []
    unexcused = _judge_doubles(calls, hits, away)
    windows = {window["scope"]: window for window in verdict["windows"]}
    kinds = [hit.kind for hit in hits]
    return Report(
        accepted=sum(one.count for one in plan.series),
        sent=delivery["arrived"],
        dead=_tally(letter.reason for letter in letters),
        lost=delivery["lost"] - len(unsent),
        duplicated_uncertain=delivery["duplicated"] - len(unexcused),
        duplicated=len(unexcused),
        disorder=delivery["out_of_order"],
        exceeded={scope: window["exceeded"] for scope, window in windows.items()},
        timestamp_error_ms=verdict["timestamp_error_ms"],
        utilisation=windows["bot"]["mean_utilisation"] or 0.0,
        refused_by_limit=sum(call["fault"] == "limit" for call in calls),
        longest_takeover=max(takeovers, default=0.0),
        hits=_tally(kinds),
        void=any("windows" in reason for reason in verdict["void"]),
        examples=_examples(delivery, unexcused, letters),
    )


def _tally(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _judge_doubles(
    calls: Sequence[Mapping[str, Any]], hits: Sequence[Hit], away: Sequence[tuple[int, int]]
) -> list[str]:
    """The duplicates that nothing excuses. A message may come again if an earlier call that was taken had no answer,
    or was in the hands of a process when it was hit: at most ten each."""
    earlier: dict[tuple[int, int, str], list[Mapping[str, Any]]] = {}
    unexcused = []
    for call in calls:
        if not call["taken"]:
            continue
        before = earlier.setdefault((call["bot"], call["chat"], call["text"]), [])
        if before and not _unanswered(before[-1]) and not _in_flight(before[-1], call, hits, away):
            first, again = before[-1]["arrival_ns"], call["arrival_ns"]
            apart = (again - first) / 1e6
            since = [f"{hit.kind} {(first - hit.at_ns) / 1e9:+.2f} s" for hit in hits]
            unexcused.append(f"{call['text']} of bot {call['bot']} again after {apart:.0f} ms; it came at {since}")
        before.append(call)
    return unexcused


def _unanswered(call: Mapping[str, Any]) -> bool:
    return call["status"] == 0 or bool(call["client_gone"])


def _in_flight(
    call: Mapping[str, Any], again: Mapping[str, Any], hits: Sequence[Hit], away: Sequence[tuple[int, int]]
) -> bool:
    for hit in hits:
        # While the server was away, nothing could be recorded.
        told = max([TOLD_WITHIN_NS, *(hit.at_ns - begin for begin, end in away if begin <= hit.at_ns <= end + TOLD_WITHIN_NS)])
        in_hand = call["arrival_ns"] <= hit.at_ns <= call["answered_ns"] + told
        if in_hand and again["arrival_ns"] > hit.at_ns and hit.doubles < WORKERS:
            hit.doubles += 1
            return True
    return False


def _examples(delivery: Mapping[str, Any], unexcused: Sequence[str], letters: Sequence[DeadLetter]) -> list[str]:
    lost = [f"lost: {one['key']} of bot {one['bot']}" for one in delivery["lost_examples"][:5]]
    disorder = [f"out of order: {one['key']} of bot {one['bot']}" for one in delivery["disorder_examples"][:5]]
    dead = [f"dead: {letter.id}, {letter.reason}: {letter.error}" for letter in letters[:5]]
    return [*lost, *(f"duplicated: {one}" for one in unexcused[:5]), *disorder, *dead]
