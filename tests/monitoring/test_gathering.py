"""What is gathered becomes the numbers that prometheus_client would have counted one by one."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from monitoring.gathering import Gathering
from tests.conftest import wait_until

BUCKETS = (0.1, 0.5, 1.0)
AMOUNTS = (0.0, 0.05, 0.1, 0.100001, 0.5, 0.7, 1.0, 1.5, 1e9)


def numbers(registry: CollectorRegistry) -> dict[tuple[str, str | None], float]:
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    return {(sample.name, sample.labels.get("le")): sample.value for sample in samples if "created" not in sample.name}


def test_a_histogram_is_the_same_as_one_that_observes_at_once() -> None:
    ours, theirs, gathering = CollectorRegistry(), CollectorRegistry(), Gathering()
    gathered = gathering.histogram(Histogram("h", "", registry=ours, buckets=BUCKETS))
    direct = Histogram("h", "", registry=theirs, buckets=BUCKETS)
    for _ in range(2):
        for amount in AMOUNTS:
            gathered.observe(amount)
            direct.observe(amount)
        gathering.write()
        assert numbers(ours) == pytest.approx(numbers(theirs))


def test_nothing_is_counted_twice() -> None:
    registry, gathering = CollectorRegistry(), Gathering()
    gathered = gathering.counter(Counter("c", "", registry=registry))
    gathered.inc()
    gathered.inc()
    gathering.write()
    gathering.write()
    assert registry.get_sample_value("c_total") == 2


async def test_it_is_written_by_itself_again_and_again() -> None:
    registry, gathering = CollectorRegistry(), Gathering()
    gathered = gathering.counter(Counter("c", "", registry=registry))
    counted = registry.get_sample_value
    for times in range(2):
        gathered.inc()
        gathering.note()
        assert counted("c_total") == times
        await wait_until(lambda: counted("c_total") != times, "the number to be written")  # noqa: B023  awaited here
        assert counted("c_total") == times + 1


def test_where_no_loop_runs_it_is_written_at_once() -> None:
    registry, gathering = CollectorRegistry(), Gathering()
    gathered = gathering.counter(Counter("c", "", registry=registry))
    gathered.inc()
    gathering.note()
    assert registry.get_sample_value("c_total") == 1
