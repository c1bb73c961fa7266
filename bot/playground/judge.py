"""The judge: from the ledger alone, what was lost, doubled or out of order, and which window held too much.

Pure functions over calls; nothing here waits, reads a clock or knows the server.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from bot.playground.chats import parse_chat
from bot.playground.clock import VOID_ABOVE_MS
from bot.playground.ledger import TEXT_KEPT, Call
from bot.playground.limits import parse_rate

SLACK_NS = 10_000_000  # a window is exceeded by limit + 1 arrivals within the period less 10 ms
EXAMPLES = 20  # of each kind of finding
KEY = re.compile(r"\bm-(-?\d+)(?:-([a-z]+))?-(\d+)\b")  # m-<chat>-<n> or m-<chat>-<priority>-<n>

Scope = Literal["bot", "chat", "group"]
Lane = tuple[int, int, str]  # bot, chat, priority


class Expectation(msgspec.Struct, forbid_unknown_fields=True):
    """A message that was accepted. `key` is looked for in the text as m-<chat>-<n>; else the whole `text` is compared
    (as far as the ledger keeps it: its first 256 bytes)."""

    bot: int
    chat: int | str
    text: str = ""
    key: str = ""
    priority: str = ""


class Series(msgspec.Struct, forbid_unknown_fields=True):
    """`count` expectations in short: the keys m-<chat>[-<priority>]-<n>, with n from `start`."""

    bot: int
    chat: int | str
    count: int
    start: int = 0
    priority: str = ""


class WindowRule(msgspec.Struct, forbid_unknown_fields=True):
    """A limit to judge: `rate` for every bot, private chat or group (channels too)."""

    scope: Scope
    rate: str


TELEGRAM_LIMITS = (WindowRule("bot", "30/1s"), WindowRule("chat", "1/1s"), WindowRule("group", "20/60s"))


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked of the judge.

    Without `expect` and `series` the numbers in the texts (m-<chat>-<n>) are judged: a number missing between the
    lowest and the highest seen is lost. `count`: which calls count in windows, every one that arrived or only those
    taken. `from_ns`, `until_ns` (CLOCK_MONOTONIC) bound utilisation and windows; else the first and last arrival do.
    """

    expect: list[Expectation] | None = None
    series: list[Series] | None = None
    windows: list[WindowRule] = msgspec.field(default_factory=lambda: list(TELEGRAM_LIMITS))
    count: Literal["calls", "taken"] = "calls"
    from_ns: int | None = None
    until_ns: int | None = None


class Finding(msgspec.Struct):
    """One message that went wrong: the calls it arrived with (seq), and what they had in common."""

    bot: int
    chat: int
    key: str
    priority: str = ""
    seqs: list[int] = []
    processes: list[str] = []
    apart_ms: float = 0.0


class DeliveryVerdict(msgspec.Struct):
    """G1, G2, G8: counts, and the first examples of each."""

    basis: str
    expected: int = 0
    arrived: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unexpected: int = 0
    lost_examples: list[Finding] = []
    duplicate_examples: list[Finding] = []
    disorder_examples: list[Finding] = []
    unexpected_examples: list[Finding] = []


class KeyVerdict(msgspec.Struct):
    """One bot or chat under a limit. `worst` is the largest number of arrivals in one window."""

    bot: int
    chat: int
    arrivals: int
    worst: int
    worst_seq: int
    exceeded: int
    utilisation: float | None
    longest_gap_ms: float


class WindowVerdict(msgspec.Struct):
    """G3, G5 for one limit: the worst over all its keys, and the keys that were worst."""

    scope: Scope
    rate: str
    keys: int
    arrivals: int
    worst: int
    exceeded: int
    lowest_utilisation: float | None
    mean_utilisation: float | None
    longest_gap_ms: float
    worst_keys: list[KeyVerdict]


class Verdict(msgspec.Struct):
    """`ok` says that nothing is wrong and nothing is void. `void` lists why a part of the verdict says nothing."""

    ok: bool
    void: list[str]
    timestamp_error_ms: float
    calls: int
    sends: int
    taken: int
    calls_during_penalty: int
    delivery: DeliveryVerdict
    windows: list[WindowVerdict]


def is_send(method: str) -> bool:
    """Does this method put messages into a chat?"""
    return method.startswith(("send", "copy", "forward")) and method != "sendChatAction"


def judge(
    calls: Iterable[Call], question: Question | None = None, *, timestamp_error_ms: float = 0.0, dropped: int = 0
) -> Verdict:
    """The whole verdict. `timestamp_error_ms` and `dropped` (calls the ledger had no room for) can make it void."""
    question = question or Question()
    every = list(calls)
    sends = sorted((call for call in every if is_send(call.method)), key=lambda call: call.arrival_ns)
    taken = [call for call in sends if call.taken]
    delivery = judge_delivery(taken, question)
    counted = sends if question.count == "calls" else taken
    windows = [judge_windows(counted, rule, question.from_ns, question.until_ns) for rule in question.windows]
    void = []
    if timestamp_error_ms > VOID_ABOVE_MS:
        void.append(f"windows: a timestamp may be {timestamp_error_ms:.1f} ms off, more than {VOID_ABOVE_MS:g} ms")
    if dropped:
        void.append(f"everything: the ledger was full, {dropped} calls were not recorded")
    wrong = delivery.lost or delivery.duplicated or delivery.out_of_order or delivery.unexpected
    return Verdict(
        ok=not (wrong or void or any(window.exceeded for window in windows)), void=void,
        timestamp_error_ms=timestamp_error_ms, calls=len(every), sends=len(sends), taken=len(taken),
        calls_during_penalty=sum(call.fault == "penalty" for call in sends), delivery=delivery, windows=windows,
    )  # fmt: skip


# --- lost, duplicated, out of order


def judge_delivery(taken: list[Call], question: Question) -> DeliveryVerdict:
    """`taken` are the sends that had their effect, by arrival."""
    if question.expect is None and question.series is None:
        return _judge_numbers(taken)
    verdict = DeliveryVerdict("expectations")
    places: dict[tuple[int, int, str], list[tuple[str, int]]] = {}  # what → (priority, place in its lane), each
    lengths: dict[Lane, int] = {}
    by_key = set()  # bots whose messages are recognised by key
    for expectation in _expected(question):
        chat = parse_chat(expectation.chat)
        name = expectation.key or _cut(expectation.text)
        if expectation.key:
            by_key.add(expectation.bot)
        lane = (expectation.bot, chat, expectation.priority)
        place = lengths[lane] = lengths.get(lane, 0) + 1
        places.setdefault((expectation.bot, chat, name), []).append((expectation.priority, place))
        verdict.expected += 1
    _walk(verdict, taken, places, by_key)
    return verdict


def _expected(question: Question) -> Iterator[Expectation]:
    yield from question.expect or ()
    for series in question.series or ():
        middle = f"-{series.priority}" if series.priority else ""
        for number in range(series.start, series.start + series.count):
            key = f"m-{series.chat}{middle}-{number}"
            yield Expectation(series.bot, series.chat, key=key, priority=series.priority)


def _walk(
    verdict: DeliveryVerdict, taken: list[Call], places: dict[tuple[int, int, str], list[tuple[str, int]]],
    by_key: set[int],
) -> None:  # fmt: skip
    """Go through the arrivals in order; each takes the next open place of its text, or is a duplicate."""
    arrivals: dict[tuple[int, int, str], list[Call]] = {}
    reached: dict[Lane, int] = {}
    for call in taken:
        match = KEY.search(call.text) if call.bot in by_key else None
        name = match[0] if match else call.text
        what = (call.bot, call.chat, name)
        open_places = places.get(what)
        if open_places is None and match:
            what = (call.bot, call.chat, call.text)
            open_places = places.get(what)
        if open_places is None:
            verdict.unexpected += 1
            _example(verdict.unexpected_examples, Finding(*what, seqs=[call.seq]))
            continue
        seen = arrivals.setdefault(what, [])
        seen.append(call)
        if len(seen) > len(open_places):
            verdict.duplicated += 1
            _example(verdict.duplicate_examples, _double(what, open_places[-1][0], seen))
            continue
        verdict.arrived += 1
        priority, place = open_places[len(seen) - 1]
        _order(verdict, reached, (call.bot, call.chat, priority), place, call, name)
    for what, expected_places in places.items():
        for priority, _ in expected_places[len(arrivals.get(what, ())) :]:
            verdict.lost += 1
            _example(verdict.lost_examples, Finding(*what, priority=priority))


def _judge_numbers(taken: list[Call]) -> DeliveryVerdict:
    """Without expectations: the numbers that the texts carry."""
    verdict = DeliveryVerdict("numbers in the texts (m-<chat>-<n>)")
    seen: dict[Lane, dict[int, list[Call]]] = {}
    reached: dict[Lane, int] = {}
    for call in taken:
        match = KEY.search(call.text)
        if match is None:
            continue
        lane, number = (call.bot, call.chat, match[2] or ""), int(match[3])
        calls = seen.setdefault(lane, {}).setdefault(number, [])
        calls.append(call)
        if len(calls) > 1:
            verdict.duplicated += 1
            _example(verdict.duplicate_examples, _double((call.bot, call.chat, match[0]), lane[2], calls))
            continue
        verdict.arrived += 1
        _order(verdict, reached, lane, number, call, match[0])
    for (bot, chat, priority), numbers in seen.items():
        missing = max(numbers) - min(numbers) + 1 - len(numbers)
        verdict.lost += missing
        if missing:
            gaps = (number for number in range(min(numbers), max(numbers)) if number not in numbers)
            _example(verdict.lost_examples, Finding(bot, chat, f"number {next(gaps)}", priority))
    verdict.expected = verdict.arrived + verdict.lost
    return verdict


def _order(verdict: DeliveryVerdict, reached: dict[Lane, int], lane: Lane, place: int, call: Call, name: str) -> None:
    if place < reached.get(lane, -1):
        verdict.out_of_order += 1
        _example(verdict.disorder_examples, Finding(call.bot, call.chat, name, lane[2], [call.seq], [call.process]))
    else:
        reached[lane] = place


def _double(what: tuple[int, int, str], priority: str, calls: list[Call]) -> Finding:
    apart = (calls[-1].arrival_ns - calls[0].arrival_ns) / 1e6
    return Finding(*what, priority, [call.seq for call in calls], [call.process for call in calls], apart)


def _example(examples: list[Finding], finding: Finding) -> None:
    if len(examples) < EXAMPLES:
        examples.append(finding)


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:TEXT_KEPT].decode("utf-8", "ignore")


# --- windows


def judge_windows(sends: list[Call], rule: WindowRule, from_ns: int | None, until_ns: int | None) -> WindowVerdict:
    """One limit over all its keys. `sends` by arrival; an album counts each of its messages."""
    rate = parse_rate(rule.rate)
    if rate is None:
        raise ValueError("a window to judge needs a rate, such as 30/1s")
    by_key: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for call in sends:
        if (from_ns is not None and call.arrival_ns < from_ns) or (until_ns is not None and call.arrival_ns > until_ns):
            continue
        if rule.scope == "bot":
            key = (call.bot, 0)
        elif call.chat and (call.chat > 0) == (rule.scope == "chat"):
            key = (call.bot, call.chat)
        else:
            continue
        by_key.setdefault(key, []).extend([(call.arrival_ns, call.seq)] * max(call.weight, 1))
    period_ns = int(rate.period * 1e9)
    verdicts = [
        _judge_key(key, arrivals, rate.count, period_ns, (from_ns, until_ns)) for key, arrivals in by_key.items()
    ]
    used = [verdict.utilisation for verdict in verdicts if verdict.utilisation is not None]
    verdicts.sort(key=lambda verdict: (-verdict.exceeded, -verdict.worst, verdict.bot, verdict.chat))
    return WindowVerdict(
        scope=rule.scope, rate=rule.rate, keys=len(verdicts), arrivals=sum(verdict.arrivals for verdict in verdicts),
        worst=max((verdict.worst for verdict in verdicts), default=0),
        exceeded=sum(verdict.exceeded for verdict in verdicts),
        lowest_utilisation=min(used, default=None), mean_utilisation=sum(used) / len(used) if used else None,
        longest_gap_ms=max((verdict.longest_gap_ms for verdict in verdicts), default=0.0),
        worst_keys=verdicts[:EXAMPLES],
    )  # fmt: skip


def _judge_key(
    key: tuple[int, int], arrivals: list[tuple[int, int]], limit: int, period_ns: int,
    bounds: tuple[int | None, int | None],
) -> KeyVerdict:  # fmt: skip
    times = [at for at, _ in arrivals]
    span = period_ns - SLACK_NS
    worst = worst_at = exceeded = oldest = 0
    for newest, now in enumerate(times):
        while now - times[oldest] > span:
            oldest += 1
        held = newest - oldest + 1
        exceeded += held > limit
        if held > worst:
            worst, worst_at = held, oldest
    gap = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0)
    return KeyVerdict(
        bot=key[0], chat=key[1], arrivals=len(times), worst=worst, worst_seq=arrivals[worst_at][1], exceeded=exceeded,
        utilisation=_utilisation(times, limit / period_ns, bounds), longest_gap_ms=gap / 1e6,
    )  # fmt: skip


def _utilisation(times: list[int], per_ns: float, bounds: tuple[int | None, int | None]) -> float | None:
    """Arrivals ÷ (limit by duration). Without bounds the last arrival ends the duration and is not counted itself."""
    begin = bounds[0] if bounds[0] is not None else times[0]
    end = bounds[1] if bounds[1] is not None else times[-1]
    if end <= begin:
        return None
    counted = len(times) if bounds[1] is not None else len(times) - 1
    return counted / (per_ns * (end - begin))
