"""Drains: how soon the processes of an entrant have handled what waits, and what a message costs."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.place import Crew, Filled, Place, Void, cpu_seconds

CHATS = 1_000
_AFTER = 0.2
"""Seconds after the last arrival that count for the CPU time: what is confirmed later was not for nothing."""
STALLED = 30.0
"""Seconds in which none arrives, after which a round is void."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Of one round.

    rate:       messages a second.
    cpu:        seconds a message, of the entrant's processes.
    server_cpu: likewise, of the queue's server.
    commands:   that the server carried out for a message, those in scripts included.
    bytes:      that went to and from the server for one.
    filled:     how they were queued; None where there is no queue.
    """

    messages: int
    seconds: float
    rate: float
    cpu: float
    server_cpu: float
    commands: float
    bytes: float
    filled: Filled | None


def drain(
    place: Place, crew: Crew, messages: int, *, send: bool = True, delay: float = 0.0, beyond: int = 0
) -> Drained:
    """Queues the messages while the processes are stopped, lets these go on, and measures from there to the last
    arrival; but with so many more `beyond`, to that of the last of `messages`.

    delay: seconds after which the stand-in answers. Raises Void if a message is lost, or arrives twice.
    """
    place.tally.delay = delay
    arrived = _arrivals(place, crew, send=send)
    before, total = arrived(), messages + beyond
    crew.stop()
    filled = _fill(place, crew, total)
    pids = crew.pids
    stats, server, cpu = place.server_info("stats"), place.server_cpu, cpu_seconds(pids)
    began = time.perf_counter()
    crew.go_on()
    _await(arrived, before + messages)
    seconds = time.perf_counter() - began
    _await(arrived, before + total)
    time.sleep(_AFTER)
    used, server_used, after = cpu_seconds(pids) - cpu, place.server_cpu - server, place.server_info("stats")
    place.tally.delay = 0.0
    if (came := arrived() - before) != total:
        raise Void(f"{came} of {total} messages arrived")
    grown = {name: float(after[name]) - float(stats[name]) for name in _COUNTED}
    return Drained(
        messages,
        seconds,
        messages / seconds,
        used / total,
        server_used / total,
        grown["total_commands_processed"] / total,
        (grown["total_net_input_bytes"] + grown["total_net_output_bytes"]) / total,
        filled,
    )


def sized(place: Place, crew: Crew, first: int, seconds: float, *, send: bool = True) -> tuple[int, Drained]:
    """How many messages make a round of about so many seconds, found with rounds of more and more; and the last."""
    messages = first
    for _ in range(4):
        drained = drain(place, crew, messages, send=send)
        wanted = min(crew.entrant.most, max(first, int(drained.rate * seconds)))
        if wanted <= 1.3 * messages:
            break
        messages = wanted
    return messages, drained


def _fill(place: Place, crew: Crew, messages: int) -> Filled | None:
    if not crew.entrant.direct:
        return place.fill(crew.entrant, messages, CHATS)
    crew.tell(messages, CHATS)
    return None


_COUNTED = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")


def _arrivals(place: Place, crew: Crew, *, send: bool) -> Callable[[], int]:
    return (lambda: place.tally.arrived) if send else crew.handled


def _await(arrived: Callable[[], int], target: int) -> None:
    """As long as they come."""
    last, since = arrived(), time.monotonic()
    while (now := arrived()) < target:
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > STALLED:
            raise Void(f"{target - now} messages did not arrive")
        time.sleep(0.002)
