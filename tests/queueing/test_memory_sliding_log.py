"""The sliding log and the pace at their boundaries: pure, with the time given."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueing.limits import Rate
from queueing.sliding_log import CATCH_UP, Pace, SlidingLog

# Halves and quarters, so that sums are exact and a boundary is met to the bit.
STEPS = st.integers(0, 16).map(lambda quarters: quarters / 4)
RATES = st.builds(Rate, st.integers(1, 5), st.integers(1, 12).map(lambda quarters: quarters / 4))


def leaving(log: SlidingLog, asked: list[float]) -> list[float]:
    """Those of the times asked for at which one left."""
    left = []
    for now in asked:
        if log.free_at <= now:
            log.add(now)
            left.append(now)
    return left


@given(rate=RATES, steps=st.lists(STEPS, max_size=60))
def test_never_more_than_n_in_any_window_and_as_many_as_possible(rate: Rate, steps: list[float]) -> None:
    asked = [sum(steps[: n + 1]) for n in range(len(steps))]
    left = leaving(SlidingLog(rate), asked)
    for start in left:
        assert sum(start <= at < start + rate.period for at in left) <= rate.count
    # What was refused would have been one too many: the best that any limiter could do, asked in this order.
    remaining = list(left)
    for now in asked:
        if remaining and remaining[0] == now:
            remaining.pop(0)
        else:
            assert sum(now - rate.period < at <= now for at in left) >= rate.count


@given(rate=RATES, steps=st.lists(STEPS, max_size=40), given_back=st.sets(st.integers(0, 39)))
def test_what_is_taken_back_makes_room_and_no_more(rate: Rate, steps: list[float], given_back: set[int]) -> None:
    log, left, now = SlidingLog(rate), [], 0.0
    for number, step in enumerate(steps):
        now += step
        if log.free_at > now:
            assert sum(now - rate.period < at for at in left) >= rate.count
            continue
        log.add(now)
        if number in given_back:
            log.take_back(now)
        else:
            left.append(now)
    for start in left:
        assert sum(start <= at < start + rate.period for at in left) <= rate.count


def test_the_boundary_of_a_window() -> None:
    log = SlidingLog(Rate(2, 1.0))
    log.add(10.0)
    assert log.free_at == -math.inf
    log.add(10.5)
    assert log.free_at == 11.0
    log.add(11.0)
    assert (log.free_at, log.over_at) == (11.5, 12.0)


def test_taking_back_what_never_was_changes_nothing() -> None:
    log = SlidingLog(Rate(1, 1.0))
    log.add(10.0)
    log.take_back(9.0)
    assert log.free_at == 11.0
    log.take_back(10.0)
    assert (log.free_at, log.over_at) == (-math.inf, -math.inf)


def test_a_pace_spreads_what_a_log_lets_through() -> None:
    pace, log, left, now = Pace(Rate(30, 1.0)), SlidingLog(Rate(30, 1.0)), [], 0.0
    while len(left) < 90:
        now = max(now, pace.free_at, log.free_at)
        pace.add(now)
        log.add(now)
        left.append(now)
    assert max(after - before for before, after in pairwise(left)) <= CATCH_UP + 2 / 30
    assert left[-1] <= 89 / 30 + 1e-9, "and nothing is lost"


@pytest.mark.parametrize(("count", "at_once"), [(64, 4), (8, 2), (1, 2)])
def test_rule_7_a_pace_catches_up_50_ms_or_one_slot(count: int, at_once: int) -> None:
    pace = Pace(Rate(count, 1.0))
    taken = 0
    while pace.free_at <= 100.0:
        pace.add(100.0)
        taken += 1
    assert taken == at_once


def test_a_slot_taken_back_is_free() -> None:
    pace = Pace(Rate(2, 1.0))
    pace.add(10.0)
    pace.add(10.0)
    assert pace.free_at == 10.5
    pace.take_back()
    assert pace.free_at == 10.0
