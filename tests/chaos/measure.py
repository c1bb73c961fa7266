"""What the cases share: elements that carry the time of their push, steady producers, and percentiles."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.plan import TOKENS

Element = dict[str, object]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. failures: guarantees that did not hold; timings are printed and not judged."""

    case: str
    measured: str
    failures: Sequence[str] = ()

    def __str__(self) -> str:
        failed = "".join(f"\n    ! {failure}" for failure in self.failures)
        return f"  {self.case:<44} {self.measured}{failed}"


def element(chat: int, n: int, *, bot: int = 0, **fields: object) -> Element:
    """A message that the judge knows by its key, and that tells when it was pushed (CLOCK_MONOTONIC, ns)."""
    return {"bot_token": TOKENS[bot], "chat_id": chat, "text": f"m-{chat}-{n} {time.monotonic_ns()}", **fields}


async def steadily(place: Arena, make: Callable[[int], Element], a_second: float, seconds: float) -> None:
    """Pushes one element after the other, at even distances."""
    began = time.monotonic()
    for n in range(int(a_second * seconds)):
        await asyncio.sleep(max(0.0, began + n / a_second - time.monotonic()))
        await place.push([make(n)])


def waits(calls: Iterable[Mapping[str, Any]]) -> list[float]:
    """From push to first arrival, in ms, sorted."""
    first: dict[str, int] = {}
    for call in calls:
        if call["taken"]:
            first.setdefault(call["text"], call["arrival_ns"])
    return sorted((arrival - int(text.split()[1])) / 1e6 for text, arrival in first.items())


def percentile(sorted_values: Sequence[float], share: float) -> float:
    return (
        sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))] if sorted_values else float("nan")
    )


def spread(sorted_values: Sequence[float]) -> str:
    return f"p50 {percentile(sorted_values, 0.5):.0f} ms, p99 {percentile(sorted_values, 0.99):.0f} ms"


async def delivery_failures(place: Arena, chats: Mapping[int, int], *, bot: int = 0) -> list[str]:
    """chats: chat → messages pushed. What the judge holds against their delivery."""
    number = int(TOKENS[bot].partition(":")[0])
    series = [{"bot": number, "chat": chat, "count": count} for chat, count in chats.items()]
    delivery = (await place.verdict(series=series))["delivery"]
    faults = ("lost", "duplicated", "out_of_order")
    failures = [f"{fault}: {delivery[fault]}" for fault in faults if delivery[fault]]
    dead = (await place.stats()).dead
    return [*failures, f"dead: {dead}"] if dead else failures


def window_failures(verdict: Mapping[str, Any]) -> list[str]:
    """Nothing, where the timestamps are too far off to tell."""
    if any("windows" in reason for reason in verdict["void"]):
        return []
    return [
        f"{window['exceeded']} windows of {window['rate']} per {window['scope']} exceeded"
        for window in verdict["windows"]
        if window["exceeded"]
    ]


def timestamps(verdict: Mapping[str, Any]) -> str:
    void = ", VOID" if any("windows" in reason for reason in verdict["void"]) else ""
    return f"timestamps ±{verdict['timestamp_error_ms']:.0f} ms{void}"
