"""What must show: ratios within one run, what was measured of each, and whether it holds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.benchmarks.backlog import SIZES, name_of
from tests.benchmarks.book import Book, quotient
from tests.benchmarks.entrants import (
    PTB_AIOHTTP,
    PTB_HTTPX,
    RPUSH,
    RPUSH_AIOHTTP,
    RPUSH_NEW_BOT,
    TELEQUEUE,
    Entrant,
)

US = TELEQUEUE.name
_NO_OTHER_QUEUE = {entrant.name for entrant in (TELEQUEUE, PTB_AIOHTTP, PTB_HTTPX, RPUSH_AIOHTTP, RPUSH_NEW_BOT)}


@dataclass(frozen=True, slots=True)
class Line:
    """measured: None where this run did not."""

    measure: str
    must: str
    measured: str | None
    holds: bool | None

    @property
    def said(self) -> str:
        return "not measured" if self.holds is None else "yes" if self.holds else "NO"


def at_least(measure: str, what: str, value: float | None, bound: float, unit: str = "times") -> Line:
    return _line(measure, f"≥ {bound:g} {unit} {what}".rstrip(), value, unit, lambda found: found >= bound)


def at_most(measure: str, what: str, value: float | None, bound: float, unit: str = "times") -> Line:
    return _line(measure, f"≤ {bound:g} {unit} {what}".rstrip(), value, unit, lambda found: found <= bound)


def _line(measure: str, must: str, value: float | None, unit: str, holds: Callable[[float], bool]) -> Line:
    if value is None:
        return Line(measure, must, None, None)
    return Line(measure, must, f"{value:.2f} {unit}", holds(value))


def verdict(book: Book, entrants: Iterable[Entrant]) -> Sequence[Line]:
    """The table of what this project set out to reach."""
    safe = {entrant.name for entrant in entrants if entrant.crash_safe} - {US}
    return [
        *_draining(book),
        *_counting(book, safe),
        *_slowly(book),
        *_enqueueing(book),
        *_arriving(book),
        *_rest(book),
    ]


def _draining(book: Book) -> list[Line]:
    name, cpu = "drain, 0 ms, six processes", "CPU per message of the sending processes"
    queue = best(book, "drain.rate", book.entrants("drain.rate"), without=_NO_OTHER_QUEUE | {RPUSH.name})
    return [
        at_least(name, RPUSH.name, book.ratio("drain.rate", US, RPUSH.name), 8),
        at_least(name, f"the fastest queue ({queue or 'none ran'})", _to(book, "drain.rate", queue), 6),
        at_least(name, PTB_AIOHTTP.name, book.ratio("drain.rate", US, PTB_AIOHTTP.name), 1),
        at_most(cpu, PTB_AIOHTTP.name, book.ratio("drain.cpu", US, PTB_AIOHTTP.name), 1),
    ]


def _counting(book: Book, safe: set[str]) -> list[Line]:
    name = "no-op drain (queue alone)"
    other = best(book, "counting.rate", [entrant for entrant in book.entrants("counting.rate") if entrant in safe])
    return [
        at_least(name, f"the fastest crash-safe queue ({other or 'none ran'})", _to(book, "counting.rate", other), 2.5),
        at_least(name, "unguarded RPUSH/BLPOP", book.ratio("counting.rate", US, RPUSH.name), 0.7),
    ]


def _slowly(book: Book) -> list[Line]:
    six, one = book.median("slow6.share", US), book.median("slow1.share", US)
    return [
        at_least("drain at 50 ms, six processes", "of 1,200/s", _percent(six), 98, "%"),
        at_least("drain at 50 ms, one process", "of 200/s", _percent(one), 98, "%"),
    ]


def _enqueueing(book: Book) -> list[Line]:
    queue = best(book, "bulk.rate", book.entrants("bulk.rate"), without=_NO_OTHER_QUEUE | {RPUSH.name})
    bulk = "enqueue in bulk, one producer"
    return [
        at_least(bulk, "RPUSH in a pipeline", book.ratio("bulk.rate", US, RPUSH.name), 0.5),
        at_least(bulk, f"the fastest queue's bulk call ({queue or 'none ran'})", _to(book, "bulk.rate", queue), 3),
        at_least("enqueue one by one", "RPUSH", book.ratio("single.rate", US, RPUSH.name), 0.6),
    ]


def _arriving(book: Book) -> list[Line]:
    lines = []
    for measure, name in (("idle.p50", "p50"), ("idle.p99", "p99")):
        others = [entrant for entrant in book.entrants(measure) if entrant != US]
        least = min(others, key=lambda other: book.median(measure, other) or 0.0, default=None)
        what = f"the fastest ({least or 'none ran'})"
        lines.append(at_most(f"enqueue → arrival at idle, {name}", what, _to(book, measure, least), 1))
    return lines


def _rest(book: Book) -> list[Line]:
    few, many = name_of(*SIZES[0]), name_of(1_000_000, 1_000)
    p50, p99 = book.median("webhook.p50", US), book.median("webhook.p99", US)
    return [
        at_most("backlog 10⁶ against 10³, cost per message", "", book.ratio("backlog.cost", many, few), 1.15),
        at_most("bytes per waiting bulk message", "the bare list", book.ratio("memory.bytes", US, RPUSH.name), 1.6),
        at_most("webhook at 500/s, own time, p50", "", None if p50 is None else 1e3 * p50, 1, "ms"),
        at_most("webhook at 500/s, own time, p99", "", None if p99 is None else 1e3 * p99, 5, "ms"),
        at_most("six processes at rest", "of a core", _percent(book.median("rest.cpu", US)), 1, "%"),
    ]


def best(book: Book, measure: str, entrants: Iterable[str], without: Iterable[str] = ()) -> str | None:
    """Who has most of it."""
    left = [entrant for entrant in entrants if entrant not in set(without) | {US}]
    return max(left, key=lambda entrant: book.median(measure, entrant) or 0.0, default=None)


def _to(book: Book, measure: str, other: str | None) -> float | None:
    return None if other is None else quotient(book.median(measure, US), book.median(measure, other))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
