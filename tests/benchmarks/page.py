"""docs/benchmarks.md, as the command writes it."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.book import quotient
from tests.benchmarks.entrants import PTB_AIOHTTP, RPUSH, TELEQUEUE, Entrant
from tests.benchmarks.place import cpu_model, server_version
from tests.benchmarks.tables import TABLES, Column, Table
from tests.benchmarks.verdict import Line, verdict

US = TELEQUEUE.name
_LIBRARIES = ("python-telegram-bot", "aiohttp", "httpx", "redis", "hiredis", "uvloop", "gunicorn", "uvicorn")
_INTRODUCTION = """# Benchmarks

Written by `make bench`; never by hand. The same work for us and for others, in one run: entrants take turns, each value
is the median of {rounds} rounds, ± half of what lies between the least and the greatest. Seconds are this machine's;
conclusions are to be drawn from the ratios. CPU time is the operating system's, of all processes of an entrant. A round
in which a message is lost or arrives twice is void{voids}.

{machine}. The whole took {minutes:.0f} minutes.
"""
_CONDITIONS = """
Every entrant's processes are started anew for each round and warmed up; then they are stopped (SIGSTOP), the messages
are queued, in the queue's own bulk call, and the time runs from SIGCONT to the last arrival; the CPU time 0.2 s longer.
A message is a text of 100 characters, for 1,000 chats in turn. Six processes, ten coroutines each, unless another
number stands there. The server is the one that `telequeue up` starts, with an append-only file (everysec), for all.

The Bot API is a process of our own (`tests/benchmarks/stand_in.py`): uvloop, no framework, some 300 bytes of answer. It
takes about 10 µs of CPU a call, as nginx with `return 200` does (9.9 to 11.1 against 8.6 to 11.5 µs, alternating, 60
connections); it can also answer late, and tell when a message arrived.

PTB's transport is httpx, its default, where nothing else is said. How each entrant runs, and what becomes of a message
whose process dies, is told in its module in `tests/benchmarks/contenders/`.
"""


def page(bench: Bench, left_out: Iterable[Entrant], seconds: float) -> str:
    """The whole of it. left_out: who could not take part."""
    voids = f" ({len(bench.book.voids)} in this run, listed at the end)" if bench.book.voids else "; there was none"
    lines = [_INTRODUCTION.format(rounds=bench.rounds, voids=voids, machine=machine(bench), minutes=seconds / 60)]
    lines += ["## What must show\n", *_verdict(verdict(bench.book, bench.entrants)), ""]
    for table in TABLES:
        lines += _section(bench, table)
    lines += ["## Conditions", _CONDITIONS, *_entrants(bench.entrants), ""]
    if out := [f"{entrant.name} ({entrant.needs} is not installed)" for entrant in left_out]:
        lines += [f"Left out: {', '.join(out)}.\n"]
    if bench.book.voids:
        lines += ["## Void rounds\n", *(f"- {void}" for void in bench.book.voids), ""]
    return "\n".join(lines)


def machine(bench: Bench) -> str:
    """Of which all seconds are."""
    cores, kernel = os.cpu_count(), platform.release().partition("-")[0]
    return f"{cpu_model()}, {cores} cores, {platform.system()} {kernel}, Python {platform.python_version()}, " + (
        f"{server_version(bench.place)}, {versions(_LIBRARIES)}"
    )


def versions(packages: Iterable[str]) -> str:
    """Of those that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _verdict(lines: Sequence[Line]) -> list[str]:
    rows = [[line.measure, line.must, line.measured or "-", line.said] for line in lines]
    return markdown(["measure", "must", "measured", "holds"], rows)


def _section(bench: Bench, table: Table) -> list[str]:
    book = bench.book
    measures = [f"{table.scenario}.{column.measure}" for column in table.columns]
    names = list(dict.fromkeys(name for measure in measures for name in book.entrants(measure)))
    if not names:
        return []
    names.sort(key=lambda name: -table.sign * (book.median(measures[0], name) or 0.0))
    ratios = {to: f"times {short}" for to, short in _REFERENCES.items() if table.ratios and to in names}
    head = [table.first, *(column.title for column in table.columns), *ratios.values()]
    rows = []
    for name in names:
        cells = [_cell(bench, measure, column, name) for measure, column in zip(measures, table.columns, strict=True)]
        compared = [quotient(book.median(measures[0], name), book.median(measures[0], to)) for to in ratios]
        shown = f"**{name}**" if name == US else name
        rows.append([shown, *cells, *("" if ratio is None else f"{ratio:.2f}" for ratio in compared)])
    picture = [f"![{table.title}](benchmarks/{table.scenario}.png)\n"] if table.plotted else []
    return [f"## {table.title}\n", *([f"{table.note}\n"] if table.note else []), *markdown(head, rows), "", *picture]


_REFERENCES: Mapping[str, str] = {PTB_AIOHTTP.name: "PTB aiohttp", RPUSH.name: "RPUSH"}


def _cell(bench: Bench, measure: str, column: Column, name: str) -> str:
    value, spread = bench.book.median(measure, name), bench.book.spread(measure, name)
    if value is None:
        return "-"
    shown = f"{value * column.factor:,.{column.digits}f}"
    return f"{shown} ±{spread:.0%}" if spread and column.spread else shown


def _entrants(entrants: Iterable[Entrant]) -> list[str]:
    rows = []
    for entrant in entrants:
        library = versions([entrant.package]) if entrant.package else ""
        rows.append([entrant.name, library, "yes" if entrant.crash_safe else "no", entrant.conditions])
    return markdown(["entrant", "version", "survives the death of a process", "runs as"], rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def write(bench: Bench, left_out: Iterable[Entrant], seconds: float, docs: Path) -> None:
    """The page, and the plots beside it."""
    from tests.benchmarks.plots import draw  # only where matplotlib is installed

    (docs / "benchmarks").mkdir(exist_ok=True)
    draw(bench.book, docs / "benchmarks")
    (docs / "benchmarks.md").write_text(page(bench, left_out, seconds))
