"""`make bench`: what the same work costs us and others, in one run. See docs/benchmarks.md, which this writes.

make bench                          everything, in about twenty minutes
make bench QUICK=1                  the main figures of a few, in about a minute; writes nothing
python -m tests.benchmarks --scenario sending --only telequeue --only aiohttp     a part; writes nothing
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks import ours, scenarios
from tests.benchmarks.backlog import backlog
from tests.benchmarks.bench import Bench
from tests.benchmarks.entrants import ENTRANTS, PTB_AIOHTTP, RPUSH, TELEQUEUE, Entrant
from tests.benchmarks.place import place

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
QUICK = ("sending", "counting", "memory")
QUICK_ENTRANTS = (TELEQUEUE, PTB_AIOHTTP, RPUSH)


def main() -> None:
    options = _options()
    chosen = options.scenario or (QUICK if options.quick else tuple(SCENARIOS))
    entrants = _entrants(options.only, quick=options.quick)
    for missing in (entrant for entrant in entrants if not entrant.installed):
        print(f"left out: {missing.name} ({missing.needs} is not installed)")
    began = time.monotonic()
    with place() as where:
        bench = Bench(
            where,
            [entrant for entrant in entrants if entrant.installed],
            rounds=options.rounds or (2 if options.quick else 5),
            seconds=0.7 if options.quick else 1.5,
            quick=options.quick,
        )
        for name in chosen:
            print(f"{name}: {SCENARIOS[name].__doc__}", flush=True)
            SCENARIOS[name](bench)
    print(f"\n{time.monotonic() - began:.0f} s; medians of {bench.rounds}:")
    for line in _plain_table(bench):
        print(line)
    for void in bench.book.voids:
        print(f"VOID  {void}")
    sys.exit(1 if bench.book.voids else 0)


def _entrants(only: Sequence[str], *, quick: bool) -> list[Entrant]:
    if only:
        return [entrant for entrant in ENTRANTS if any(part.lower() in entrant.name.lower() for part in only)]
    return list(QUICK_ENTRANTS if quick else ENTRANTS)


def _plain_table(bench: Bench) -> list[str]:
    """Of everything that was measured, as it is in the book."""
    book = bench.book
    return [
        f"  {measure:<18} {entrant:<32} {book.median(measure, entrant):>14,.6g}"
        for measure in book.measures()
        for entrant in book.entrants(measure)
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, scenarios and entrants")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only these")
    parser.add_argument("--only", action="append", default=[], help="only entrants with this in their name")
    parser.add_argument("--rounds", type=int, help="of each entrant; default: 5")
    return parser.parse_args()


if __name__ == "__main__":
    main()
