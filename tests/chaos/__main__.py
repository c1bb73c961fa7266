"""`make chaos SECONDS=… SEED="…"`: runs of chaos, one for each seed, then the figures. Exit code 1 on a violation."""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from tests.chaos import limits, scale, trouble
from tests.chaos.measure import Figure
from tests.chaos.plan import Load
from tests.chaos.run import chaos

FIGURES: Sequence[Callable[[], Awaitable[Figure]]] = (
    lambda: limits.no_faults(500, 40, 1000),
    lambda: limits.backlog(30, 20),
    lambda: limits.backlog(100, 20),
    lambda: limits.backlog(1000, 20),
    lambda: limits.flooded_chat(5_000, 30),
    lambda: limits.bulk(100_000, 60),
    lambda: trouble.refused_chat(5),
    lambda: trouble.refused_bot(5),
    lambda: trouble.some_fail(60),
    lambda: trouble.all_fail(120),
    lambda: trouble.slow_bot(60, "hang", kind="hang"),
    lambda: trouble.slow_bot(60, "take 1.8 s each, of 2 s that they may", kind="latency", ms=1_800),
    lambda: trouble.server_away(3),
    lambda: trouble.full_server(20_000),
    lambda: scale.backlog_cost(1_000, 1_000_000, (1_000, 1_000)),
    # What a hundred thousand lanes cost that are in no processor's cache; printed, not judged.
    lambda: scale.backlog_cost(1_000, 1_000_000, (100, 100_000), most=10),
)


def main() -> int:
    options = _arguments()
    failed = False
    for seed in options.seed or [random.randrange(10_000)]:
        failed |= asyncio.run(_chaos(options.seconds, seed))
    _say("figures")
    for figure in FIGURES:
        failed |= asyncio.run(_figure(figure))
    return int(failed)


async def _chaos(seconds: float, seed: int) -> bool:
    load = Load()
    rates = ", ".join(f"{name}={rate}" for name, rate in load.rates(seconds).items())
    _say(f"chaos: SECONDS={seconds:g} SEED={seed}, {load.messages:,} messages, {rates}")
    began = time.monotonic()
    report = await chaos(seconds, seed, load)
    _say(report.table())
    _say(f"  {'took':<32}{time.monotonic() - began:.0f} s")
    for violation in report.violations:
        _say(f"  VIOLATION  {violation}")
    return bool(report.violations)


async def _figure(measure: Callable[[], Awaitable[Figure]]) -> bool:
    figure = await measure()
    _say(str(figure))
    return bool(figure.failures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="for which messages come and things break (180)")
    parser.add_argument("--seed", type=int, nargs="*", help="one run for each; drawn and printed where there is none")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a command line prints


if __name__ == "__main__":
    sys.exit(main())
