"""What the webhook stands: updates offered at a fixed rate to six processes, each of which is handled once.

make webhook            1,000 updates a second for 30 s
"""

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from tests.chaos.arena import Arena, arena
from tests.chaos.counting_bot import FILE
from tests.chaos.poster import Poster, text_update, within
from tests.conftest import wait_until
from tests.e2e.conftest import SECRET

CHATS = 1000
NO_LIMITS = {"RATE_GLOBAL": "off", "RATE_CHAT": "off", "RATE_GROUP": "off"}
_OWN_TIME = re.compile(r'telequeue_webhook_seconds_bucket\{le="([^"]+)"\} (\S+)')


async def measure(rate: float, seconds: float) -> bool:
    updates = int(rate * seconds)
    with tempfile.TemporaryDirectory(prefix="telequeue-webhook-") as directory:
        runs = Path(directory) / "runs"
        bot = {"BOT_APP": "tests.chaos.counting_bot:setup", FILE: str(runs)}
        async with arena(NO_LIMITS, **bot) as place:
            poster = Poster(place.url, SECRET)
            _go_before_others()
            begun = time.monotonic()
            took = await poster.offer(updates, rate, lambda n: text_update(n + 1, 1 + n % CHATS, f"n{n}"))
            say(f"{updates} updates offered at {rate:.0f}/s, all taken after {took:.1f} s")
            await _all_handled(place)
            say(f"all handled and answered after {time.monotonic() - begun:.1f} s")
            say(await _times(place, poster))
            return _judge(updates, Counter(runs.read_text().split()), await _arrived(place))


def _go_before_others() -> None:
    """Where that is allowed: Telegram has machines of its own, and what is measured is the answer's time."""
    if os.geteuid() == 0:
        os.nice(-10)


async def _all_handled(place: Arena) -> None:
    async def handled() -> bool:
        queue: Any = await place.queue()
        await asyncio.sleep(0.2)
        return bool(queue["updates"]["queue_depth"] == 0 and queue["queue_depth"] == 0)

    await wait_until(handled, "all to be handled and answered", timeout=600)


async def _times(place: Arena, poster: Poster) -> str:
    answered, due = poster.seconds, poster.seconds_from_due
    statuses = ", ".join(f"{status}: {many}" for status, many in sorted(poster.answers.items()))
    buckets = {float(le): float(many) for le, many in _OWN_TIME.findall(await place.metrics())}
    return "\n".join(
        (
            f"answers by status          {statuses}",
            f"answer, from the writing   p50 {within(answered, 0.5):.1f} ms, p99 {within(answered, 0.99):.1f} ms",
            f"answer, from when due      p50 {within(due, 0.5):.1f} ms, p99 {within(due, 0.99):.1f} ms",
            f"our own time               p50 {_quantile(buckets, 0.5)}, p99 {_quantile(buckets, 0.99)}",
        )
    )


def _quantile(buckets: dict[float, float], share: float) -> str:
    """In words. buckets: of a histogram: bounds, in seconds, and how many are not above each."""
    below, before = 0.0, 0.0
    for bound, many in sorted(buckets.items()):
        if many >= share * buckets[float("inf")]:
            if bound == float("inf"):
                break
            part = (share * buckets[float("inf")] - before) / max(1.0, many - before)
            return f"{1000 * (below + part * (bound - below)):.1f} ms"
        below, before = bound, many
    return f"more than {1000 * below:.0f} ms"


async def _arrived(place: Arena) -> Counter[str]:
    """The texts that Telegram took."""
    return Counter(call["text"] for call in await place.calls() if call["status"] == 200)


def _judge(updates: int, runs: Counter[str], arrived: Counter[str]) -> bool:
    """Prints the verdict. → whether each update was handled and answered once"""
    texts = [f"n{number}" for number in range(updates)]
    lost = [text for text in texts if not runs[text] or not arrived[text]]
    twice = [text for text in texts if runs[text] > 1 or arrived[text] > 1]
    say(f"lost {len(lost)}, handled twice {len(twice)}")
    return not lost and not twice


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a command line prints


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=float, default=1000, help="updates a second")
    options.add_argument("--seconds", type=float, default=30)
    given = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        raise SystemExit(0 if runner.run(measure(given.rate, given.seconds)) else 1)


if __name__ == "__main__":
    main()
