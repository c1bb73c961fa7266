"""The scenarios that only telequeue takes part in: the HTTP API, the webhook, limits, rest, and the start."""

import asyncio
import re
import signal
import time
import urllib.request

import orjson

from bot.embedded import free_port
from tests.benchmarks.bench import PROCESSES, Bench
from tests.benchmarks.book import percentile, quantile
from tests.benchmarks.callers import call_all
from tests.benchmarks.contenders.telequeue import SECRET
from tests.benchmarks.entrants import TELEQUEUE
from tests.benchmarks.place import Crew, Void, cpu_seconds, until
from tests.chaos.poster import Poster, text_update

UPDATES = 500
"""Updates a second."""
LIMIT = 30
"""Messages a second that leave per bot by default."""
_BOT = "tests.chaos.counting_bot:setup"
_WINDOWS, _WINDOW = 5, 4.0
_OWN_TIME = re.compile(r'telequeue_webhook_seconds_bucket\{le="([^"]+)"\} (\S+)')


def _address() -> str:
    return f"127.0.0.1:{free_port(0)}"


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def api(bench: Bench) -> None:
    """POST /api/v1/messages, over 20 connections, while nothing may leave: one message a call, and arrays of 100."""

    def turn(_: object) -> None:
        address, before, total = _address(), bench.place.tally.arrived, 0
        with bench.crew(TELEQUEUE, BIND=address):
            asyncio.run(call_all(address, "/api/v1/pause", [b"{}"], connections=1))
            for name, calls, messages in (("one", 1_000, 1), ("array", 60, 100)):
                bodies = [_body(number, messages) for number in range(calls // (4 if bench.quick else 1))]
                seconds = asyncio.run(call_all(address, "/api/v1/messages", bodies, connections=20))
                total += len(bodies) * messages
                rate = len(bodies) * messages / seconds
                bench.book.note(f"api.{name}", TELEQUEUE.name, rate)
                bench.say(f"{rate:>8,.0f} messages/s, {messages} a call")
            asyncio.run(call_all(address, "/api/v1/resume", [b"{}"], connections=1))
            until(lambda: bench.place.tally.arrived - before >= total, "all arrived", 60)

    bench.take_turns("api", [TELEQUEUE], turn)


def _body(number: int, messages: int) -> bytes:
    made = [{"chat_id": 1 + (number + n) % 1_000, "text": f"{number:07} ".ljust(100, "x")} for n in range(messages)]
    return orjson.dumps(made[0] if messages == 1 else made)


def webhook(bench: Bench) -> None:
    """500 updates a second to the webhook, each answered by a handler; own time from the headers to the answer."""

    def turn(_: object) -> None:
        address, runs = _address(), bench.place.directory / "runs"
        runs.unlink(missing_ok=True)
        updates = int(UPDATES * (2 if bench.quick else 4))
        with bench.crew(TELEQUEUE, BIND=address, BOT_APP=_BOT, RUNS_OF_HANDLERS=str(runs)) as crew:
            _offer(bench, Poster(f"http://{address}", SECRET), 0, UPDATES)  # to warm up
            before, cpu = _own_times(address), cpu_seconds(crew.pids)
            poster = Poster(f"http://{address}", SECRET)
            took = _offer(bench, poster, UPDATES, updates)
            used = (cpu_seconds(crew.pids) - cpu) / updates
            after, handled = _own_times(address), len(runs.read_text().split())
        if handled != UPDATES + updates:
            raise Void(f"{handled} of {UPDATES + updates} updates were handled")
        buckets = {bound: many - before.get(bound, 0.0) for bound, many in after.items()}
        p50, p99 = quantile(buckets, 0.5), quantile(buckets, 0.99)
        figures = {"rate": updates / took, "p50": p50, "p99": p99, "cpu": used}
        figures |= {"answer50": percentile(poster.seconds, 0.5), "answer99": percentile(poster.seconds, 0.99)}
        for name, value in figures.items():
            bench.book.note(f"webhook.{name}", TELEQUEUE.name, value)
        bench.say(f"{updates / took:,.0f}/s, own time p50 {1e3 * p50:.2f} ms, p99 {1e3 * p99:.2f} ms")

    bench.take_turns("webhook", [TELEQUEUE], turn)


def _offer(bench: Bench, poster: Poster, first: int, updates: int) -> float:
    """→ seconds until all were taken. Returns when all are answered, too."""
    arrived = bench.place.tally.arrived
    made = (text_update(first + n + 1, 1 + n % 1_000, f"n{first + n}") for n in range(updates))
    took = asyncio.run(poster.offer(updates, UPDATES, lambda _: next(made)))
    until(lambda: bench.place.tally.arrived - arrived >= updates, "all are answered", 60)
    return took


def _own_times(address: str) -> dict[float, float]:
    """The buckets of the histogram: bounds in seconds, and how many are not above each."""
    found = _OWN_TIME.findall(_get(f"http://{address}/metrics").decode())
    return {float(bound): float(many) for bound, many in found}


def limits(bench: Bench) -> None:
    """A backlog at the default limits: what the waiting costs, and whether the bot's budget is used."""
    with bench.judged("limits"), bench.crew(TELEQUEUE, LIMITS="1") as crew:
        before = bench.place.tally.arrived
        bench.place.fill(TELEQUEUE, int(LIMIT * _WINDOW * (_WINDOWS + 2)), 1_000)
        until(lambda: bench.place.tally.arrived - before > LIMIT, "the first have left", 30)
        _watch(bench, crew, "limits")


def rest(bench: Bench) -> None:
    """Six processes and an empty queue, over 20 s: the share of one core that they and the server take."""
    with bench.judged("rest"), bench.crew(TELEQUEUE) as crew:
        time.sleep(2.0)
        _watch(bench, crew, "rest")


def _watch(bench: Bench, crew: Crew, scenario: str) -> None:
    """What leaves, and the share of a core that it takes."""
    pids = crew.pids
    for _ in range(2 if bench.quick else _WINDOWS):
        began, arrived = time.perf_counter(), bench.place.tally.arrived
        cpu, server = cpu_seconds(pids), bench.place.server_cpu
        time.sleep(_WINDOW)
        seconds = time.perf_counter() - began
        rate = (bench.place.tally.arrived - arrived) / seconds
        share = (cpu_seconds(pids) - cpu) / seconds
        server_share = (bench.place.server_cpu - server) / seconds
        for name, value in {"rate": rate, "cpu": share, "server_cpu": server_share}.items():
            bench.book.note(f"{scenario}.{name}", TELEQUEUE.name, value)
        bench.say(f"{rate:.1f}/s, {share:.2%} of a core, the server {server_share:.2%}")


def start(bench: Bench) -> None:
    """From `gunicorn` to the arrival of the first message, which was waiting."""

    def turn(_: object) -> None:
        place = bench.place
        place.redis.rpush("telegram_messages", b'{"chat_id":1,"text":"the first"}')
        before = place.tally.arrived
        process = place.spawn(TELEQUEUE.command("work"), place.environ(TELEQUEUE, PROCESSES=str(PROCESSES)))
        try:
            while process.line(60.0) != "starting":
                pass
            began = time.perf_counter()
            until(lambda: place.tally.arrived > before, "the first message arrives", 60, pause=0.005)
            seconds = time.perf_counter() - began
            while process.line(60.0) != "ready":
                pass
            ready = time.perf_counter() - began
        finally:
            process.signal(signal.SIGTERM)
            process.end()
        bench.book.note("start.first", TELEQUEUE.name, seconds)
        bench.book.note("start.all", TELEQUEUE.name, ready)
        bench.say(f"the first arrived after {seconds:.2f} s, all six were ready after {ready:.2f} s")

    bench.take_turns("start", [TELEQUEUE], turn)
