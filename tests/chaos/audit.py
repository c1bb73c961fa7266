"""What became of every message, from the ledger, the stand-in's judge and the dead letters; nothing of the senders'."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from queueing.contract import DeadLetter
from tests.chaos.arena import Arena
from tests.chaos.plan import Plan

WORKERS = 10
"""Coroutines of a process: what it holds at most when it is hit (QUEUE_WORKERS)."""

TOLD_WITHIN_NS = 500_000_000
"""From Telegram's answer to the queue's record of it, on a busy machine; until then the message is in flight."""

PART_NS = 8_000_000_000
"""A part of the run whose windows are judged together: twice the longest period of the limits, at least."""

_EVER = 1_000_000

Span = tuple[int, int]
"""From when to when: CLOCK_MONOTONIC, ns."""


@dataclass(slots=True)
class Hit:
    """A process that was killed or stopped. Times: CLOCK_MONOTONIC, ns; until: when it was taken over, or went on."""

    kind: str
    at_ns: int
    until_ns: int = 0
    doubles: int = 0


@dataclass(frozen=True, slots=True)
class Windows:
    """exceeded: scope → windows. parts, judged: parts of the run, and those whose timestamps are good enough."""

    exceeded: Mapping[str, int]
    parts: int
    judged: int
    error_ms: float

    def __str__(self) -> str:
        counts = ", ".join(f"{scope} {count}" for scope, count in self.exceeded.items()) or "none judged"
        void = f"; {self.parts - self.judged} VOID, timestamps up to {self.error_ms:.0f} ms off"
        return f"{counts} (in {self.judged} of {self.parts} parts{void if self.judged < self.parts else ''})"


@dataclass(frozen=True, slots=True)
class Report:
    accepted: int
    sent: int
    dead: Mapping[str, int]
    lost: int
    duplicated_uncertain: int
    duplicated: int
    disorder: int
    windows: "Windows"
    utilisation: float
    refused_by_limit: int
    longest_takeover: float
    longest_with_server_away: float
    hits: Mapping[str, int]
    examples: Sequence[str]

    @property
    def violations(self) -> list[str]:
        found = {
            "lost": self.lost,
            "dead": sum(self.dead.values()),
            "duplicated, and not uncertain": self.duplicated,
            "order violations": self.disorder,
            "windows exceeded": sum(self.windows.exceeded.values()),
        }
        return [f"{what}: {count}" for what, count in found.items() if count]

    def table(self) -> str:
        dead = ", ".join(f"{reason} {count}" for reason, count in self.dead.items())
        rows = {
            "accepted": self.accepted,
            "sent": self.sent,
            "dead": dead or 0,
            "lost": self.lost,
            "duplicated, uncertain": self.duplicated_uncertain,
            "duplicated, not uncertain": self.duplicated,
            "order violations": self.disorder,
            "windows exceeded": self.windows,
            "refused by an enforced limit": self.refused_by_limit,
            "utilisation of the bots' limit": f"{self.utilisation:.1%}",
            "longest take-over": f"{self.longest_takeover:.1f} s",
            "… with the server away in it": f"{self.longest_with_server_away:.1f} s",
            "processes hit": ", ".join(f"{kind} {count}" for kind, count in self.hits.items()) or "none",
        }
        lines = [f"  {name:<32}{value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"  ! {example}" for example in self.examples)])


async def audit(
    place: Arena, plan: Plan, hits: Sequence[Hit], away: Sequence[Span], takeovers: Sequence[Span]
) -> Report:
    """hits, away (the server's absences) and takeovers (from the signal on): what the run did and saw."""
    calls = await place.calls()
    verdict = await place.verdict(
        series=[{"bot": one.bot, "chat": one.chat, "count": one.count} for one in plan.series]
    )
    letters = await place.watcher.dead_letters(_EVER)
    delivery = verdict["delivery"]
    taken = {(call["bot"], call["text"]) for call in calls if call["taken"]}
    unsent = [letter for letter in letters if not any(text in letter.element for _, text in taken)] if letters else []
    unexcused = judge_doubles(calls, hits, away)
    utilisation = next(window["mean_utilisation"] for window in verdict["windows"] if window["scope"] == "bot")
    windows = await _judge_windows(place, calls)
    kinds = [hit.kind for hit in hits]
    return Report(
        accepted=sum(one.count for one in plan.series),
        sent=delivery["arrived"],
        dead=_tally(letter.reason for letter in letters),
        lost=delivery["lost"] - len(unsent),
        duplicated_uncertain=delivery["duplicated"] - len(unexcused),
        duplicated=len(unexcused),
        disorder=delivery["out_of_order"],
        windows=windows,
        utilisation=utilisation or 0.0,
        refused_by_limit=sum(call["fault"] == "limit" for call in calls),
        longest_takeover=_longest(span for span in takeovers if not _meets(span, away)),
        longest_with_server_away=_longest(span for span in takeovers if _meets(span, away)),
        hits=_tally(kinds),
        examples=_examples(delivery, unexcused, letters),
    )


async def _judge_windows(place: Arena, calls: Sequence[Mapping[str, Any]]) -> Windows:
    """In parts that overlap by more than the longest period: a machine that pauses once makes only some void."""
    exceeded: dict[str, int] = {}
    parts = judged = 0
    error_ms = 0.0
    for begin in range(calls[0]["arrival_ns"], calls[-1]["arrival_ns"], PART_NS // 2):
        within = [call["seq"] for call in calls if begin <= call["arrival_ns"] < begin + PART_NS]
        if not within:
            continue
        verdict = await place.verdict(since=within[0], until=within[-1] + 1)
        parts += 1
        error_ms = max(error_ms, verdict["timestamp_error_ms"])
        if verdict["void"]:
            continue
        judged += 1
        for window in verdict["windows"]:
            exceeded[window["scope"]] = exceeded.get(window["scope"], 0) + window["exceeded"]
    return Windows(exceeded, parts, judged, error_ms)


def _meets(span: Span, away: Sequence[Span]) -> bool:
    """Whether the server was away within it: then every lease got one more term."""
    return any(begin < span[1] and span[0] < end for begin, end in away)


def _longest(spans: Iterable[Span]) -> float:
    return max((end - begin for begin, end in spans), default=0) / 1e9


def _tally(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def judge_doubles(calls: Sequence[Mapping[str, Any]], hits: Sequence[Hit], away: Sequence[Span]) -> list[str]:
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


def _in_flight(call: Mapping[str, Any], again: Mapping[str, Any], hits: Sequence[Hit], away: Sequence[Span]) -> bool:
    for hit in hits:
        # While the server was away, nothing could be recorded.
        unrecorded = min(
            [begin for begin, end in away if begin <= hit.at_ns <= end + TOLD_WITHIN_NS], default=hit.at_ns
        )
        in_hand = call["arrival_ns"] <= hit.at_ns and call["answered_ns"] >= unrecorded - TOLD_WITHIN_NS
        if in_hand and again["arrival_ns"] > hit.at_ns and hit.doubles < WORKERS:
            hit.doubles += 1
            return True
    return False


def _examples(delivery: Mapping[str, Any], unexcused: Sequence[str], letters: Sequence[DeadLetter]) -> list[str]:
    lost = [f"lost: {one['key']} of bot {one['bot']}" for one in delivery["lost_examples"][:5]]
    disorder = [f"out of order: {one['key']} of bot {one['bot']}" for one in delivery["disorder_examples"][:5]]
    dead = [f"dead: {letter.id}, {letter.reason}: {letter.error}" for letter in letters[:5]]
    return [*lost, *(f"duplicated: {one}" for one in unexcused[:5]), *disorder, *dead]
