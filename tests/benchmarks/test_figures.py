"""The arithmetic of the benchmark: medians, ratios, quantiles, and what holds."""

import pytest

from tests.benchmarks.book import Book, percentile, quantile
from tests.benchmarks.entrants import ENTRANTS, PTB_AIOHTTP, RPUSH, TASKIQ_LIST, TELEQUEUE
from tests.benchmarks.page import markdown
from tests.benchmarks.verdict import Line, verdict


def book_of(measure: str, **values: list[float]) -> Book:
    book = Book()
    for entrant, noted in values.items():
        for value in noted:
            book.note(measure, entrant, value)
    return book


def test_the_median_counts_and_the_spread_is_told() -> None:
    book = book_of("drain.rate", one=[10.0, 30.0, 20.0])
    assert book.median("drain.rate", "one") == 20.0
    assert book.spread("drain.rate", "one") == 0.5
    assert book.median("drain.rate", "another") is None
    assert book.spread("drain.rate", "another") is None


def test_a_ratio_is_that_of_the_medians() -> None:
    book = book_of("drain.rate", one=[10.0, 30.0, 20.0], other=[4.0, 8.0], none=[0.0])
    assert book.ratio("drain.rate", "one", "other") == pytest.approx(20 / 6)
    assert book.ratio("drain.rate", "one", "absent") is None
    assert book.ratio("drain.rate", "one", "none") is None


def test_measures_and_entrants_come_in_the_order_of_their_first_note() -> None:
    book = book_of("b.x", two=[1.0], one=[1.0])
    book.note("a.x", "one", 1.0)
    book.note("b.x", "two", 1.0)
    assert book.measures() == ["b.x", "a.x"]
    assert book.entrants("b.x") == ["two", "one"]


def test_percentiles() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert percentile([7.0], 0.99) == 7.0


def test_a_quantile_of_a_histogram_lies_within_its_bucket() -> None:
    buckets = {0.001: 50.0, 0.002: 100.0, float("inf"): 100.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.001)
    assert quantile(buckets, 0.75) == pytest.approx(0.0015)
    assert quantile({0.001: 0.0, float("inf"): 10.0}, 0.5) == float("inf")


def line_of(book: Book, must: str) -> Line:
    (line,) = (line for line in verdict(book, ENTRANTS) if line.must == must)
    return line


def test_what_must_show_holds_at_the_bound_and_not_below() -> None:
    must = f"≥ 1 times {PTB_AIOHTTP.name}"
    for ours, said in ((100.0, "yes"), (99.0, "NO")):
        book = book_of("drain.rate", **{TELEQUEUE.name: [ours], PTB_AIOHTTP.name: [100.0]})
        assert line_of(book, must).said == said


def test_the_fastest_queue_is_found_among_the_other_queues() -> None:
    rates = {TELEQUEUE.name: [700.0], PTB_AIOHTTP.name: [900.0], RPUSH.name: [200.0], TASKIQ_LIST.name: [100.0]}
    line = line_of(book_of("drain.rate", **rates), f"≥ 6 times the fastest queue ({TASKIQ_LIST.name})")
    assert (line.measured, line.said) == ("7.00 times", "yes")


def test_what_was_not_measured_is_neither_held_nor_broken() -> None:
    assert {line.said for line in verdict(Book(), ENTRANTS)} == {"not measured"}


def test_a_table() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
