"""The scenarios in which entrants take turns: sending, counting, numbers of processes, single enqueues, memory."""

from tests.benchmarks.backlog import take_in
from tests.benchmarks.bench import Bench
from tests.benchmarks.drain import Drained, drain, sized
from tests.benchmarks.entrants import PTB_AIOHTTP, RPUSH, TASKIQ_LIST, TELEQUEUE, Entrant
from tests.benchmarks.latency import latency, spread
from tests.benchmarks.place import Crew, Filled

SLOW = 0.05
"""Seconds after which a real Bot API might answer."""
COROUTINES = 10
_IDLE = 50.0
"""Messages a second of whoever waits for the next one."""
_MEMORY = 20_000
_SINGLES = {True: 500, False: 2_000}
_COLUMNS = ("rate", "cpu", "server_cpu", "commands", "bytes")


def sending(bench: Bench) -> None:
    """Six processes, to a stand-in that answers at once, then after 50 ms; then singly, at idle and at half load."""

    def turn(entrant: Entrant) -> None:
        with bench.crew(entrant) as crew:
            drained = _round(bench, crew, "drain", send=True)
            if entrant.waits:
                _slow(bench, crew)
                _singly(bench, crew, drained.rate)

    bench.take_turns("sending", bench.entrants, turn)


def _round(bench: Bench, crew: Crew, scenario: str, *, send: bool) -> Drained:
    """One measured drain, after one to warm up; the first also finds its size."""
    entrant = crew.entrant
    known = bench.sizes.get((scenario, entrant.name))
    if known is None:
        drain(bench.place, crew, entrant.warm_up, send=send)
        known, drained = sized(bench.place, crew, entrant.warm_up, bench.seconds, send=send)
        bench.sizes[scenario, entrant.name] = known
    else:
        drain(bench.place, crew, min(known, entrant.warm_up), send=send)
        drained = drain(bench.place, crew, known, send=send)
    for column in _COLUMNS:
        bench.book.note(f"{scenario}.{column}", entrant.name, getattr(drained, column))
    if scenario == "drain" and drained.filled:
        _note(bench, "bulk", entrant, drained.filled)
    bench.say(
        f"{drained.rate:>8,.0f}/s, CPU {1e3 * drained.cpu:.3f} ms, server {1e3 * drained.server_cpu:.3f} ms a message"
    )
    return drained


def _note(bench: Bench, scenario: str, entrant: Entrant, filled: Filled) -> None:
    for column in ("rate", "cpu", "server_cpu"):
        bench.book.note(f"{scenario}.{column}", entrant.name, getattr(filled, column))


def _slow(bench: Bench, crew: Crew, processes: int = 6) -> None:
    """Until most have arrived: what the last few wait for is not what is asked."""
    waves = 20 if bench.quick else 30
    at_once = processes * COROUTINES
    drained = drain(bench.place, crew, waves * at_once, delay=SLOW, beyond=4 * at_once)
    possible = at_once / SLOW
    bench.book.note(f"slow{processes}.rate", crew.entrant.name, drained.rate)
    bench.book.note(f"slow{processes}.share", crew.entrant.name, drained.rate / possible)
    bench.say(f"{drained.rate:>8,.0f}/s at 50 ms, of {possible:,.0f}/s")


def _singly(bench: Bench, crew: Crew, most: float) -> None:
    if crew.entrant.direct:
        return
    rates = {"idle": _IDLE}
    if crew.entrant in (TELEQUEUE, RPUSH, TASKIQ_LIST) and not bench.quick:
        rates["half"] = most / 2
    for name, rate in rates.items():
        # At idle a second has few messages, and the 99th of a hundred is the last but one.
        seconds = 1.0 if bench.quick else 6.0 if name == "idle" else 2.0
        p50, p99 = spread(latency(bench.place, crew, rate, seconds))
        bench.book.note(f"{name}.p50", crew.entrant.name, p50)
        bench.book.note(f"{name}.p99", crew.entrant.name, p99)
        bench.book.note(f"{name}.rate", crew.entrant.name, rate)
        bench.say(f"enqueue → arrival at {rate:,.0f}/s: p50 {1e3 * p50:.2f} ms, p99 {1e3 * p99:.2f} ms")


def counting(bench: Bench) -> None:
    """Six processes whose handlers only count: the queue alone."""

    def turn(entrant: Entrant) -> None:
        with bench.crew(entrant, SEND="0") as crew:
            _round(bench, crew, "counting", send=False)

    bench.take_turns("counting", [entrant for entrant in bench.entrants if entrant.counts], turn)


def processes(bench: Bench) -> None:
    """One, two and four of them; six are in `sending`."""
    for many in (1, 2, 4):

        def turn(entrant: Entrant, many: int = many) -> None:
            with bench.crew(entrant, many) as crew:
                _round(bench, crew, f"drain{many}", send=True)
                if entrant is TELEQUEUE:
                    _slow(bench, crew, many)

        bench.take_turns(f"{many} processes", bench.chosen(TELEQUEUE.name, PTB_AIOHTTP.name), turn)


def single(bench: Bench) -> None:
    """One producer that awaits each call; nobody takes anything."""

    def turn(entrant: Entrant) -> None:
        filled = bench.place.fill(entrant, _SINGLES[bench.quick], 1_000, single=True)
        _note(bench, "single", entrant, filled)
        bench.say(f"{filled.rate:>8,.0f}/s one by one, CPU {1e3 * filled.cpu:.3f} ms a message")

    bench.take_turns("single", _queues(bench), turn)


def memory(bench: Bench) -> None:
    """What a waiting message of 100 characters takes in the server."""
    for entrant in _queues(bench):
        with bench.judged(f"memory, {entrant.name}"):
            before = _used(bench)
            bench.place.fill(entrant, _MEMORY, 1_000, PRIORITY="bulk")
            _take(bench, entrant.name, before)
    if TELEQUEUE in bench.entrants:
        with bench.judged("memory, telequeue"):
            before = _used(bench)
            bench.place.fill(TELEQUEUE, _MEMORY, 1_000)
            take_in(bench.place)
            _take(bench, f"{TELEQUEUE.name}, in its lane", before)


def _take(bench: Bench, name: str, before: int) -> None:
    taken = (_used(bench) - before) / _MEMORY
    bench.book.note("memory.bytes", name, taken)
    bench.say(f"{name}: {taken:,.0f} bytes a waiting message")


def _used(bench: Bench) -> int:
    return int(bench.place.server_info("memory")["used_memory"])


def _queues(bench: Bench) -> list[Entrant]:
    """Those that have a queue, each only once."""
    seen: dict[str, Entrant] = {}
    for entrant in bench.entrants:
        if not entrant.direct:
            seen.setdefault(entrant.module, entrant)
    return list(seen.values())
