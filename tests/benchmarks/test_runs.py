"""A tiny run of the benchmark, with real processes."""

from collections.abc import Iterator

import pytest

from tests.benchmarks import drain as drains
from tests.benchmarks.drain import drain
from tests.benchmarks.entrants import PTB_AIOHTTP, RPUSH, TELEQUEUE, Entrant
from tests.benchmarks.latency import latency
from tests.benchmarks.place import Crew, Filled, Place, Void, place

COUNT = 120


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    with place() as made:
        yield made


def test_telequeue_sends_all_of_them_and_is_measured(where: Place) -> None:
    with Crew(where, TELEQUEUE, 2) as crew:
        drained = drain(where, crew, COUNT)
        took = latency(where, crew, 100.0, 0.2)
    assert (drained.messages, len(took)) == (COUNT, 20)
    assert min(drained.rate, drained.cpu, drained.server_cpu, drained.commands, drained.bytes) > 0
    assert drained.filled
    assert min(drained.filled.rate, drained.filled.cpu) > 0
    assert all(0 < seconds < 10 for seconds in took)


def test_telequeue_counts_without_sending(where: Place) -> None:
    arrived = where.tally.arrived
    with Crew(where, TELEQUEUE, 2, SEND="0") as crew:
        assert drain(where, crew, COUNT, send=False).rate > 0
    assert where.tally.arrived == arrived


def test_ptb_without_a_queue_sends_all_of_them(where: Place) -> None:
    with Crew(where, PTB_AIOHTTP, 2) as crew:
        drained = drain(where, crew, COUNT, delay=0.01)
    assert drained.rate <= 2 * 10 / 0.01  # no faster than the stand-in answers
    assert drained.cpu > 0


def test_a_round_that_loses_a_message_is_void(monkeypatch: pytest.MonkeyPatch, where: Place) -> None:
    monkeypatch.setattr(drains, "STALLED", 1.0)
    fill = where.fill

    def lossy(entrant: Entrant, count: int, chats: int) -> Filled:
        filled = fill(entrant, count, chats)
        where.redis.rpop("rpush")
        return filled

    monkeypatch.setattr(where, "fill", lossy)
    with Crew(where, RPUSH, 1, SEND="0") as crew, pytest.raises(Void, match="1 messages did not arrive"):
        drain(where, crew, COUNT, send=False)


def test_an_entrant_that_does_not_start_is_void(where: Place) -> None:
    with pytest.raises(Void, match="No module named"):
        Crew(where, Entrant("none", "there_is_none_of_this_name", ""), 1)
