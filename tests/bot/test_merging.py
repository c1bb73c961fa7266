"""Three-way merges: what two change at the same time is there afterwards, as if one had come after the other."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.merging import LARGEST_STEP, MISSING, merge

steps = st.integers(-1000, 1000)
numbers = st.integers(-(10**12), 10**12)
sets = st.sets(st.integers(0, 20))
lists = st.lists(st.integers(0, 20))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_who_changed_nothing_gets_what_the_others_wrote(base: Any, theirs: Any) -> None:
    assert merge(base, base, theirs) == theirs


@given(values, values)
def test_where_nobody_else_wrote_mine_is_stored(base: Any, mine: Any) -> None:
    assert merge(base, mine, base) == mine


@given(values, values)
def test_two_who_made_the_same_of_it_agree(base: Any, mine: Any) -> None:
    if isinstance(mine, dict | bool | str | None) and not _counts(mine):
        assert merge(base, mine, mine) == mine


def _counts(value: Any) -> bool:
    """Whether there are numbers or lists in it, of which both changes are kept."""
    if isinstance(value, dict):
        return any(map(_counts, value.values()))
    return isinstance(value, list | int) and not isinstance(value, bool)


@given(numbers, steps, steps)
def test_numbers_are_counted_by_their_difference(base: int, mine: int, theirs: int) -> None:
    assert merge(base, base + mine, base + theirs) == base + mine + theirs


@given(st.lists(steps, min_size=1))
def test_counting_loses_nothing_whatever_the_order(changes: list[int]) -> None:
    stored: Any = MISSING
    for change in changes:  # all read before any had written
        stored = merge(MISSING, change, stored) if change else stored
    total = 0 if stored is MISSING else stored
    assert total == sum(changes)


@pytest.mark.parametrize("id", [LARGEST_STEP + 7, 123_456_789, 1_790_000_000.5])
def test_ids_and_times_are_not_counted(id: float) -> None:
    assert merge(MISSING, id, id + 5) == id
    assert merge(7, id, id + 5) == id
    assert merge(id * 3, id, id + 5) == id


def test_truth_is_not_counted() -> None:
    assert merge(False, True, True) is True


@given(sets, sets, sets)
def test_sets_by_what_was_added_and_removed(base: set[int], mine: set[int], theirs: set[int]) -> None:
    merged = merge(base, mine, theirs)
    for item in base | mine | theirs:
        changed = (item in mine) != (item in base)
        assert (item in merged) == (item in (mine if changed else theirs))


@given(lists, lists, lists)
def test_lists_by_what_was_appended(base: list[int], mine: list[int], theirs: list[int]) -> None:
    if mine and theirs:
        assert merge(base, base + mine, base + theirs) == base + theirs + mine


def test_a_list_that_was_changed_otherwise_keeps_what_others_appended() -> None:
    assert merge([1, 2], [2], [1, 2, 3]) == [2, 3]
    assert merge([1, 2], [2], [1]) == [2]


@given(st.dictionaries(st.sampled_from("abc"), steps), st.dictionaries(st.sampled_from("abc"), steps))
def test_dicts_by_key(mine: dict[str, int], theirs: dict[str, int]) -> None:
    """Each changes some keys of what both have read."""
    base = dict.fromkeys("abc", 0)
    merged = merge(base, base | mine, base | theirs)
    assert merged == {key: mine.get(key, 0) + theirs.get(key, 0) for key in "abc"}


def test_a_key_that_one_deleted_is_gone_unless_the_other_changed_it() -> None:
    assert merge({"a": 1, "b": 2}, {"b": 2}, {"a": 1, "b": 3}) == {"b": 3}
    assert merge({"a": 1}, {"a": 2}, {}) == {"a": 2}
    assert merge({"a": 1}, {}, {"a": 2}) == {}


@pytest.mark.parametrize("make", [Counter, lambda given: defaultdict(int, given), OrderedDict])
def test_kinds_of_dicts_stay_what_they_are(make: Any) -> None:
    merged = merge(make({"a": 1}), make({"a": 2, "b": 1}), make({"a": 5}))
    assert type(merged) is type(make({}))
    assert merged == {"a": 6, "b": 1}
    assert getattr(merged, "default_factory", int) in (int, None)


class Stats:
    def __init__(self, **counts: Any) -> None:
        self.__dict__.update(counts)


@dataclass(frozen=True)
class Point:
    x: int
    y: int


def test_objects_by_attribute_unless_they_are_not_to_be_changed() -> None:
    merged = merge(Stats(a=1, b=set()), Stats(a=2, b={1}), Stats(a=3, b={2}, c=1))
    assert vars(merged) == {"a": 4, "b": {1, 2}, "c": 1}
    assert merge(Point(0, 0), Point(1, 0), Point(0, 1)) == Point(1, 0)


@pytest.mark.parametrize("mine", ["text", None, (1,), b"x", [1], {1}, {"a": 1}, 5])
def test_what_cannot_be_put_together_is_the_later_one(mine: Any) -> None:
    assert merge("base", mine, object()) == mine
    assert merge("base", mine, 2.5 if not isinstance(mine, int) else "x") == mine


class Silent:
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


def test_values_that_do_not_compare_are_taken_for_changed() -> None:
    mine = Silent()
    assert merge(Silent(), mine, Silent()) is mine


@given(values, values, values)
def test_nothing_that_is_given_is_changed(base: Any, mine: Any, theirs: Any) -> None:
    before = repr((base, mine, theirs))
    merge(base, mine, theirs)
    assert repr((base, mine, theirs)) == before
