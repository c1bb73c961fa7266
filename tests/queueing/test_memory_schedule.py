"""Names by time, against the plainest model there is."""

from hypothesis import given
from hypothesis import strategies as st

from queueing.schedule import Schedule

NAMES = st.sampled_from("abcdef")
DEEDS = st.one_of(
    st.tuples(st.just("put"), NAMES, st.integers(0, 5)),
    st.tuples(st.just("discard"), NAMES, st.just(0)),
    st.tuples(st.just("pop"), st.just(""), st.just(0)),
)


@given(st.lists(DEEDS, max_size=300))
def test_it_is_a_sorted_set(deeds: list[tuple[str, str, int]]) -> None:
    schedule, model = Schedule(), dict[str, tuple[int, int]]()
    for order, (deed, name, at) in enumerate(deeds):
        earliest = min(((at, order, name) for name, (at, order) in model.items()), default=None)
        expected = (earliest[0], earliest[2]) if earliest else None
        assert schedule.first() == expected
        if deed == "put":
            schedule.put(name, at)
            model[name] = (at, order)
        elif deed == "discard":
            schedule.discard(name)
            model.pop(name, None)
        else:
            assert schedule.pop() == expected
            if expected:
                del model[expected[1]]
        assert set(schedule) == set(model)
        assert len(schedule) == len(model)


def test_what_is_not_due_stays() -> None:
    schedule = Schedule()
    schedule.put("a", 2.0)
    assert schedule.pop_due(1.999) is None
    assert schedule.pop_due(2.0) == "a"
    assert schedule.pop_due(9.0) is None


def test_names_that_change_their_time_for_ever_take_no_more_memory() -> None:
    schedule = Schedule()
    schedule.put("never due", 1e9)
    for n in range(10_000):
        schedule.put("a", float(n))
    assert len(schedule._heap) < 200
