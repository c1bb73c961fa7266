"""The metrics of CONTRACT.md, from the queue's events, for Prometheus.

Under gunicorn each process writes its numbers into files below PROMETHEUS_MULTIPROC_DIR, and whichever process is
scraped adds up all of them: counters and histograms of processes that ended stay in the sum, so that no counter ever
goes back; gauges are of the live ones (`livesum`; gunicorn's `child_exit` removes the others). Without that variable
the numbers are this process's. How deep the queue is, is asked of the queue itself at each scrape.

What is counted for each message is written a little later (monitoring/gathering.py).

Labels come from fixed sets; a value outside its set, which some program may have put into a message, counts as "other".
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from monitoring.gathering import GatheredCounter, GatheredHistogram, Gathering
from monitoring.snapshot import Snapshot
from queueing.contract import QueueStats
from queueing.events import Acked, Buried, Claimed, Enqueued, Event, Limited, Reaped, Released
from queueing.message import Priority

WEBHOOK_RESULTS = (
    "accepted",
    "handled",
    "duplicate",
    "busy",
    "failed",
    "unauthorized",
    "malformed",
    "too_large",
    "full",
    "unavailable",
)
"""What can become of an update: the values of `webhook_updates_total{result}`, polled updates included."""

RUN_RESULTS = ("done", "retried", "dead")
"""What can come of handling an update, a job or a failed send: the values of `updates_handled_total{result}`."""

LIMIT_SCOPES = ("chat", "group", "bot", "flood")
"""What can make a message wait: the values of `rate_limited_total{scope}`. `flood`: a 429."""

OTHER = "other"

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_ANSWERS = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One a process. `count` is told of the queues' events, the other methods of the rest.

    backends: of the queues, `redis`, `memory` or both.
    reasons: the classes of failures that are shown as such.
    methods: the Bot API's methods, in their usual spelling; Telegram takes them in any case.
    """

    def __init__(self, backends: Collection[str], reasons: Collection[str], methods: Collection[str]) -> None:
        self.registry = CollectorRegistry()
        self._reasons = frozenset(reasons)
        self._methods = {method.lower(): method for method in methods}
        by_priority = ("backend", "priority")
        self._enqueued = self._counter("messages_enqueued", "Messages that this stack put into the queue.", by_priority)
        self._sent = self._counter("messages_sent", "Messages that Telegram confirmed.", by_priority)
        self._retried = self._counter("messages_retried", "Attempts that will be repeated.", ("reason",))
        self._dead = self._counter("messages_dead", "Messages that went to the dead letters.", ("reason",))
        self._uncertain = self._counter("messages_uncertain", "Attempts of which nobody knows whether they arrived.")
        self._limited = self._counter("rate_limited", "Waits for a limit or a 429, by what it holds for.", ("scope",))
        self._recovered = self._counter("lease_recoveries", "Messages taken over from dead processes.")
        self._updates = self._counter("webhook_updates", "Updates from Telegram, by what became of them.", ("result",))
        self._delivery = self._histogram("delivery_seconds", "From acceptance to confirmation.", _WAITS, ("priority",))
        self._pickup = self._histogram("pickup_seconds", "From acceptance to a worker's hands.", _WAITS)
        self._send = self._histogram("send_seconds", "One attempt that was confirmed.", _CALLS, ("method",))
        self._update = self._histogram("webhook_seconds", "One update, from its headers to the answer.", _ANSWERS)
        self._handled = self._counter("updates_handled", "Runs of handlers, by what came of them.", ("result",))
        self._handling = self._histogram("update_seconds", "An update, from acceptance to its end.", _WAITS)
        self._workers = self._gauge("workers", "Worker coroutines.")
        self._busy = self._gauge("workers_busy", "Worker coroutines with a message in hand.")
        self._processes = self._gauge("processes", "Processes.")
        self._show_zeros(backends)
        self._gathering = Gathering()
        self._gathered_pickup = self._gathering.histogram(self._pickup)
        self._gathered_sent: dict[tuple[str, Priority], tuple[GatheredCounter, GatheredHistogram]] = {}
        self._gathered_sends: dict[str, GatheredHistogram] = {}
        self._kinds: dict[type[Any], Callable[[Any, str], None]] = {
            Enqueued: self._count_enqueued,
            Claimed: self._count_claimed,
            Acked: self._count_sent,
            Released: self._count_released,
            Buried: self._count_buried,
            Reaped: self._count_reaped,
            Limited: self._count_limited,
        }

    def _counter(self, name: str, help: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(f"telequeue_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: Iterable[float], labels: Iterable[str] = ()) -> Histogram:
        return Histogram(f"telequeue_{name}", help, labels, registry=self.registry, buckets=tuple(buckets))

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"telequeue_{name}", help, registry=self.registry, multiprocess_mode="livesum")

    def _show_zeros(self, backends: Collection[str]) -> None:
        """A series that appears with its first increment hides that increment from `rate()`."""
        for backend, priority in itertools.product(backends, Priority):
            self._enqueued.labels(backend, priority.value)
            self._sent.labels(backend, priority.value)
        for priority in Priority:
            self._delivery.labels(priority.value)
        for reason in sorted(self._reasons | {OTHER}):
            self._retried.labels(reason)
            self._dead.labels(reason)
        self._send.labels("sendMessage")  # not of all methods: each is 14 series
        for scope in LIMIT_SCOPES:
            self._limited.labels(scope)
        for result in WEBHOOK_RESULTS:
            self._updates.labels(result)
        for result in RUN_RESULTS:
            self._handled.labels(result)

    def count(self, event: Event, backend: str) -> None:
        """It happened in this one of the queues."""
        if count := self._kinds.get(type(event)):
            count(event, backend)

    def _count_enqueued(self, event: Enqueued, backend: str) -> None:
        self._enqueued.labels(backend, event.message.priority.value).inc()

    def _count_claimed(self, event: Claimed, _backend: str) -> None:
        self._gathered_pickup.observe(event.waited)
        self._gathering.note()

    def _count_sent(self, event: Acked, backend: str) -> None:
        message = event.message
        sent, delivery = self._gathered_sent.get((backend, message.priority)) or self._of_sent(
            backend, message.priority
        )
        sent.inc()
        delivery.observe(event.since_accepted)
        method = self._methods.get(str(message.body.get("method", "sendMessage")).lower(), OTHER)
        (self._gathered_sends.get(method) or self._of_sends(method)).observe(event.took)
        self._gathering.note()

    def _of_sent(self, backend: str, priority: Priority) -> tuple[GatheredCounter, GatheredHistogram]:
        sent = self._gathering.counter(self._sent.labels(backend, priority.value))
        series = sent, self._gathering.histogram(self._delivery.labels(priority.value))
        self._gathered_sent[backend, priority] = series
        return series

    def _of_sends(self, method: str) -> GatheredHistogram:
        self._gathered_sends[method] = series = self._gathering.histogram(self._send.labels(method))
        return series

    def _count_released(self, event: Released, _backend: str) -> None:
        reason = event.reason
        self._uncertain.inc(event.uncertain)
        if reason is not None:
            self._retried.labels(self._reason(reason)).inc()
        if reason == "flood":
            self._limited.labels(reason).inc()

    def _count_buried(self, event: Buried, _backend: str) -> None:
        self._uncertain.inc(event.uncertain)
        self._dead.labels(self._reason(event.reason)).inc()

    def _count_reaped(self, event: Reaped, _backend: str) -> None:
        self._uncertain.inc(event.recovered)
        self._recovered.inc(event.recovered)
        self._dead.labels(self._reason("uncertain")).inc(event.held)

    def _count_limited(self, event: Limited, _backend: str) -> None:
        if event.scope in LIMIT_SCOPES:
            self._limited.labels(event.scope).inc(event.times)

    def _reason(self, reason: str) -> str:
        return reason if reason in self._reasons else OTHER

    def count_run(self, event: Event, /) -> None:
        """It happened in the queue of updates."""
        match event:
            case Acked(_, _, since_accepted):
                self._handled.labels("done").inc()
                self._handling.observe(since_accepted)
            case Released(_, reason) if reason is not None:
                self._handled.labels("retried").inc()
            case Buried():
                self._handled.labels("dead").inc()

    def count_update(self, result: str, seconds: float) -> None:
        """An update, or what was posted in its place, was answered. `result`: one of WEBHOOK_RESULTS."""
        self._updates.labels(result).inc()
        self._update.observe(seconds)

    def show_workers(self, workers: int, busy: int) -> None:
        """How many coroutines this process has, and how many of them have a message in hand."""
        self._processes.set(1)
        self._workers.set(workers)
        self._busy.set(busy)

    def write(self) -> None:
        """Writes what is gathered: the last thing to do for a process that ends."""
        self._gathering.write()

    async def page(self, snapshot: Snapshot, updates: Snapshot | None = None) -> bytes:
        """The text for one scrape: what the processes counted, and what the queues say of themselves. updates: of the
        queue of updates, if there is one."""
        stats = await snapshot.read()
        self.write()
        shown = CollectorRegistry()
        shown.register(QueueGauges(snapshot.backend, stats))
        if updates and (waiting := await updates.read()):
            shown.register(UpdateGauges(waiting))
        shown.register(_AllProcesses() if _several_processes() else _Forwarded(self.registry))
        return await asyncio.to_thread(generate_latest, shown)


def _several_processes() -> bool:
    return bool(os.environ.get(_DIRECTORY))


class _AllProcesses(Collector):
    """What all processes have counted. An empty file is that of a process which starts just now, or died as it did:
    prometheus_client makes it, and then its size; in between it cannot be read."""

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in Path(os.environ[_DIRECTORY]).glob("*.db") if _has_content(file)]
        return MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call, no-any-return]


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # that of a process which ended just now
        return False


class _Forwarded(Collector):
    """All of another registry's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class UpdateGauges(Collector):
    """What the queue of updates says of itself."""

    def __init__(self, stats: QueueStats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats
        updates = GaugeMetricFamily("telequeue_updates", "Updates, and jobs, by state.", labels=["state"])
        for state in ("ready", "waiting", "scheduled", "inflight", "dead"):
            updates.add_metric([state], getattr(stats, state))
        yield updates
        age = stats.oldest_age or 0.0
        yield GaugeMetricFamily("telequeue_oldest_update_age_seconds", "Age of the oldest update waiting.", age)


class QueueGauges(Collector):
    """What the queue says of itself. stats: None while its server does not answer; then only `redis_up` is shown."""

    def __init__(self, backend: str, stats: QueueStats | None) -> None:
        self._backend = backend
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        if self._backend != "memory":
            up = float(self._stats is not None)
            yield GaugeMetricFamily("telequeue_redis_up", "Whether Redis answers (1) or not (0).", up)
        if self._stats is not None:
            yield self._depth(self._stats)
            age = self._stats.oldest_age or 0.0
            yield GaugeMetricFamily("telequeue_oldest_message_age_seconds", "Age of the oldest message waiting.", age)

    def _depth(self, stats: QueueStats) -> Metric:
        depth = GaugeMetricFamily("telequeue_queue_depth", "Messages in the queue, by state.", labels=["state"])
        for state in ("ready", "waiting", "scheduled", "inflight", "dead"):
            depth.add_metric([state], getattr(stats, state))
        return depth
