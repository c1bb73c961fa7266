"""The judge as a table: it must see what is wrong, and only that."""

import pytest

from bot.playground.judge import Expectation, Question, Series, WindowRule, is_send, judge
from bot.playground.ledger import Call
from bot.playground.report import as_text

MS = 1_000_000


def calls(*texts: str, chat: int = 1, apart_ms: float = 2000, **more: object) -> list[Call]:
    return [
        Call(seq=at, arrival_ns=int(at * apart_ms * MS), bot=7, method="sendMessage", chat=chat, text=text, **more)
        for at, text in enumerate(texts)
    ]


def expect(*texts: str, chat: int = 1) -> Question:
    return Question(expect=[Expectation(7, chat, text) for text in texts], windows=[])


@pytest.mark.parametrize(
    ("expected", "arrived", "lost", "duplicated", "disorder", "unexpected"),
    [
        ("abc", "abc", 0, 0, 0, 0),
        ("abc", "ab", 1, 0, 0, 0),
        ("abc", "", 3, 0, 0, 0),
        ("abc", "abbc", 0, 1, 0, 0),
        ("abc", "abca", 0, 1, 0, 0),  # a late duplicate is no disorder
        ("abc", "acb", 0, 0, 1, 0),
        ("abc", "cab", 0, 0, 2, 0),
        ("abc", "abcx", 0, 0, 0, 1),
        ("aab", "aab", 0, 0, 0, 0),  # the same text accepted twice may arrive twice
        ("aab", "aaab", 0, 1, 0, 0),
        ("aab", "ab", 1, 0, 0, 0),
    ],
)
def test_delivery(expected, arrived, lost, duplicated, disorder, unexpected):
    verdict = judge(calls(*arrived), expect(*expected))
    found = verdict.delivery
    assert (found.lost, found.duplicated, found.out_of_order, found.unexpected) == (
        lost,
        duplicated,
        disorder,
        unexpected,
    )
    assert verdict.ok == (not (lost or duplicated or disorder or unexpected))


def test_only_what_was_taken_has_arrived():
    assert judge(calls("a", taken=False, status=502), expect("a")).delivery.lost == 1
    assert judge(calls("a", taken=True, status=0, fault="reset_after"), expect("a")).delivery.lost == 0


def test_order_is_per_priority():
    question = Question(expect=[Expectation(7, 1, "a", priority="bulk"), Expectation(7, 1, "b", priority="bulk"),
                                Expectation(7, 1, "c", priority="normal")], windows=[])  # fmt: skip
    assert judge(calls("c", "a", "b"), question).ok
    assert judge(calls("c", "b", "a"), question).delivery.out_of_order == 1


def test_keys_are_found_within_texts():
    question = Question(series=[Series(7, 1, 3)], windows=[])
    assert judge(calls("m-1-0 hello", "say m-1-1", "m-1-2"), question).ok
    assert judge(calls("m-1-0", "m-1-2"), question).delivery.lost_examples[0].key == "m-1-1"


def test_without_expectations_the_numbers_count():
    verdict = judge(calls("m-1-4", "m-1-6", "m-1-5", "m-1-5", "m-1-9"), Question(windows=[]))
    assert (verdict.delivery.lost, verdict.delivery.duplicated, verdict.delivery.out_of_order) == (2, 1, 1)


def test_a_duplicate_names_its_processes():
    twice = [*calls("a", process="p1"), Call(seq=1, arrival_ns=5 * MS, bot=7, method="sendMessage", chat=1, text="a",
                                             process="p2")]  # fmt: skip
    finding = judge(twice, expect("a")).delivery.duplicate_examples[0]
    assert (finding.seqs, finding.processes, finding.apart_ms) == ([0, 1], ["p1", "p2"], 5.0)


@pytest.mark.parametrize(("span_ms", "exceeded"), [(989, 1), (990, 1), (990.001, 0), (1000, 0)])
def test_the_boundary_of_a_window(span_ms, exceeded):
    """Three arrivals under 2/1s: exceeded means within the period less 10 ms."""
    verdict = judge(
        calls("a", "b", "c", apart_ms=span_ms / 2), Question(windows=[WindowRule("chat", "2/1s")], expect=[])
    )
    assert verdict.windows[0].exceeded == exceeded
    assert verdict.windows[0].worst == 2 + exceeded


def test_windows_have_their_keys():
    mixed = calls("a", "b", chat=1, apart_ms=1) + calls("c", "d", chat=-5, apart_ms=1)
    rules = [WindowRule("bot", "3/1s"), WindowRule("chat", "1/1s"), WindowRule("group", "2/1s")]
    bot, chat, group = judge(mixed, Question(windows=rules)).windows
    assert (bot.worst, bot.exceeded) == (4, 1)
    assert (chat.worst, chat.exceeded, chat.worst_keys[0].chat) == (2, 1, 1)
    assert (group.worst, group.exceeded) == (2, 0)


def test_an_album_weighs_what_it_holds():
    album = [Call(seq=0, arrival_ns=0, bot=7, method="sendMediaGroup", chat=1, weight=5)]
    assert judge(album, Question(windows=[WindowRule("chat", "4/1s")])).windows[0].exceeded == 1


def test_refused_calls_count_in_windows_unless_only_taken_ones_shall():
    refused = calls("a", "b", apart_ms=1, taken=False, status=429)
    rules = [WindowRule("chat", "1/1s")]
    assert judge(refused, Question(windows=rules)).windows[0].exceeded == 1
    assert judge(refused, Question(windows=rules, count="taken")).windows[0].exceeded == 0


def test_utilisation_and_gap():
    window = judge(calls(*"abcde", apart_ms=1000), Question(windows=[WindowRule("chat", "1/1s")])).windows[0]
    assert (window.lowest_utilisation, window.longest_gap_ms) == (1.0, 1000.0)
    bounded = Question(windows=[WindowRule("chat", "1/1s")], from_ns=0, until_ns=10_000 * MS)
    assert judge(calls(*"abcde", apart_ms=1000), bounded).windows[0].lowest_utilisation == 0.5


def test_void():
    assert judge(calls("a"), expect("a"), timestamp_error_ms=10.0).ok
    late = judge(calls("a"), expect("a"), timestamp_error_ms=10.1)
    assert not late.ok
    assert "10.1 ms" in late.void[0]
    assert "3 calls" in judge(calls("a"), expect("a"), dropped=3).void[0]


def test_only_sends_are_judged():
    assert [is_send(name) for name in ("sendPhoto", "copyMessages", "sendChatAction", "editMessageText")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert judge([Call(seq=0, arrival_ns=0, bot=7, method="editMessageText", chat=1, text="x")], expect()).ok


def test_the_table_names_what_is_wrong():
    text = as_text(judge(calls("a", "a", "c", apart_ms=1), Question(expect=expect("a", "b").expect)))
    assert text.startswith("FAIL")
    for line in ("lost: bot 7 chat 1 'b'", "duplicated: bot 7 chat 1 'a' seq 0, 1, 1.0 ms apart", "unexpected:"):
        assert line in text
    assert as_text(judge(calls("a"), expect("a"))).startswith("PASS")
