"""`make bench`: what the same work costs us and others, in one run. See docs/benchmarks.md, which this writes.

make bench                          everything, in about twenty minutes
make bench QUICK=1                  the main figures of a few, in about a minute; writes nothing
python -m tests.benchmarks --scenario sending --only telequeue --only aiohttp     a part; writes nothing
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import ours, scenarios
from tests.benchmarks.backlog import backlog
from tests.benchmarks.bench import Bench
from tests.benchmarks.entrants import ENTRANTS, PTB_AIOHTTP, RPUSH, TELEQUEUE, Entrant
from tests.benchmarks.page import machine, write
from tests.benchmarks.place import CHECKOUT, place
from tests.benchmarks.verdict import verdict

Scenario = Callable[[Bench], None]
SCENARIOS: Mapping[str, Scenario] = {
    "sending": scenarios.sending,
    "counting": scenarios.counting,
    "processes": scenarios.processes,
    "single": scenarios.single,
    "api": ours.api,
    "memory": scenarios.memory,
    "backlog": backlog,
    "webhook": ours.webhook,
    "limits": ours.limits,
    "rest": ours.rest,
    "start": ours.start,
}
DOCS = CHECKOUT / "docs"
QUICK = ("sending", "counting", "memory")
QUICK_ENTRANTS = (TELEQUEUE, PTB_AIOHTTP, RPUSH)


def main() -> None:
    options = _options()
    if not Path("/proc/self/stat").exists():
        sys.exit("make bench reads CPU times from /proc: it needs Linux")
    chosen = options.scenario or (QUICK if options.quick else tuple(SCENARIOS))
    entrants = _entrants(options.only, quick=options.quick)
    missing = [entrant for entrant in entrants if not entrant.installed]
    for entrant in missing:
        print(f"left out: {entrant.name} ({entrant.needs} is not installed)")
    began = time.monotonic()
    with place() as where:
        bench = Bench(
            where,
            [entrant for entrant in entrants if entrant.installed],
            rounds=options.rounds or (2 if options.quick else 5),
            seconds=0.7 if options.quick else 1.2,
            quick=options.quick,
        )
        for name in chosen:
            print(f"{name}: {SCENARIOS[name].__doc__}", flush=True)
            SCENARIOS[name](bench)
        seconds = time.monotonic() - began
        _print(bench, seconds)
        if not (options.quick or options.scenario or options.only or options.rounds):
            write(bench, missing, seconds, DOCS)
            print(f"written: {DOCS / 'benchmarks.md'}")
    sys.exit(1 if bench.book.voids else 0)


def _print(bench: Bench, seconds: float) -> None:
    """Everything that was measured, in the book's units, and what must show."""
    book = bench.book
    print(f"\n{machine(bench)}\n{seconds:.0f} s; medians of {bench.rounds}; seconds, bytes, messages a second:")
    for measure in book.measures():
        for entrant in book.entrants(measure):
            print(f"  {measure:<18} {entrant:<32} {book.median(measure, entrant):>14,.6g}")
    print()
    for line in verdict(book, bench.entrants):
        if line.measured:
            print(f"  {line.measure:<42} {line.must:<50} {line.measured:>10}  {line.said}")
    for void in book.voids:
        print(f"VOID  {void}")


def _entrants(only: Sequence[str], *, quick: bool) -> list[Entrant]:
    if only:
        return [entrant for entrant in ENTRANTS if any(part.lower() in entrant.name.lower() for part in only)]
    return list(QUICK_ENTRANTS if quick else ENTRANTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, scenarios and entrants")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only these")
    parser.add_argument("--only", action="append", default=[], help="only entrants with this in their name")
    parser.add_argument("--rounds", type=int, help="of each entrant, instead of 5; then nothing is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
