"""From enqueue to arrival: single messages, at a fixed rate, by the entrant's own producer in a process of its own."""

from tests.benchmarks.book import percentile
from tests.benchmarks.drain import CHATS
from tests.benchmarks.place import Crew, Place, Void, until


def latency(place: Place, crew: Crew, rate: float, seconds: float) -> list[float]:
    """→ seconds of each message, told by the stand-in from the time that is in its text."""
    count, before = int(rate * seconds), place.tally.arrived
    place.tally.take_latencies()
    producer = place.start_filling(crew.entrant, count, CHATS, single=True, RATE=f"{rate:g}")
    try:
        until(lambda: place.tally.arrived - before >= count, "all arrived", 30 + 5 * seconds)
    finally:
        producer.end()
    took = place.tally.take_latencies()
    if len(took) != count:
        raise Void(f"{len(took)} of {count} messages arrived")
    return took


def spread(took: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    return percentile(took, 0.5), percentile(took, 0.99)
