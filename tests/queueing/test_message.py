"""The element in the list: what is written is what is read."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueing.errors import MalformedMessage
from queueing.message import Message, Priority, canonical_chat, check_id, decode, encode, new_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(
    text=TEXT,
    kwargs=st.dictionaries(TEXT, JSON, max_size=4),
    priority=st.sampled_from(Priority),
    track=st.booleans(),
    max_attempts=st.none() | st.integers(1, 1000),
)
def test_decode_reverses_encode(
    text: str, kwargs: dict[str, object], priority: Priority, track: bool, max_attempts: int | None
) -> None:
    message = Message(
        bot="1",
        chat="42",
        body={"text": text, "kwargs": kwargs},
        priority=priority,
        track=track,
        max_attempts=max_attempts,
        accepted=5.0,
    )
    assert decode(encode(message), bot="1", chat="42", id=message.id, accepted=5.0) == message


@pytest.mark.parametrize(
    "body",
    [
        {"text": object()},
        {"text": "\ud800"},
        {"text": math.nan},
        {"kwargs": {"a": [None, -math.inf]}},
        {"a": {1, 2}},
        {"a": datetime.now(UTC)},
        {"a": Message(bot="1", chat="42", body={})},
    ],
    ids=["object", "surrogate", "nan", "infinity", "set", "time", "struct"],
)
def test_encode_refuses_what_is_no_json(body: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage):
        encode(Message(bot="1", chat="42", body=body))


@pytest.mark.parametrize(
    "value",
    [None, "null", 2**64, -(2**70), 1e308, {"a": [None, True]}, [[]] * 3, Priority.BULK],
    ids=["null", "null as text", "large", "larger", "float", "nested", "empty", "name"],
)
def test_what_json_can_say_is_read_as_it_was_written(value: object) -> None:
    element = encode(Message(bot="1", chat="42", body={"text": "x", "kwargs": {"a": value}}))
    assert decode(element, bot="1", chat="42", id="x", accepted=5.0).body == {"text": "x", "kwargs": {"a": value}}


def test_what_is_deeper_than_any_other_writer_takes_is_written() -> None:
    body: dict[str, object] = {}
    for _ in range(300):
        body = {"in": body}
    element = encode(Message(bot="1", chat="42", body=body))
    assert decode(element, bot="1", chat="42", id="x", accepted=5.0).body == body


@pytest.mark.parametrize(("written", "is_"), [("1e400", math.inf), ('"\\ud800"', "\ud800"), ("1" * 30, int("1" * 30))])
def test_what_other_programs_write_is_read(written: str, is_: object) -> None:
    element = f'{{"chat_id": 42, "text": "x", "kwargs": {{"a": {written}}}}}'.encode()
    assert decode(element, bot="1", chat="42", id="x", accepted=5.0).body["kwargs"] == {"a": is_}


@pytest.mark.parametrize("element", [b"", b"nonsense", b"[]", b"1", b'{"a":', b"\xff", b"[" * 100_000], ids=range(7))
def test_decode_says_what_is_wrong(element: bytes) -> None:
    with pytest.raises(MalformedMessage, match="not"):
        decode(element, bot="1", chat="42", id="x", accepted=0.0)


def test_a_body_cannot_pose_as_an_envelope() -> None:
    message = Message(bot="1", chat="42", id="mine", body={"text": "x", "id": "other", "bot": "2", "chat_id": "7"})
    element = encode(message)
    assert b'"mine"' in element
    assert b"other" not in element


@pytest.mark.parametrize("again", [42, "42", " 042 "])
def test_the_same_chat_may_be_named_again_and_the_lanes_is_the_one_that_counts(again: object) -> None:
    element = json.dumps({"chat_id": 42, "text": "hi", "kwargs": {"chat_id": again, "a": 1}}).encode()
    message = decode(element, bot="1", chat="-1007", id="x", accepted=0.0)
    assert (message.chat, message.body) == ("-1007", {"text": "hi", "kwargs": {"a": 1}})


def test_a_chat_may_be_named_in_kwargs_alone() -> None:
    message = decode(b'{"text":"hi","kwargs":{"chat_id":42}}', bot="1", chat="-1007", id="x", accepted=0.0)
    assert (message.chat, message.body) == ("-1007", {"text": "hi", "kwargs": {}})


@pytest.mark.parametrize("again", [43, "@news", None, [42], True])
def test_another_chat_in_kwargs_is_refused(again: object) -> None:
    element = json.dumps({"chat_id": 42, "text": "hi", "kwargs": {"chat_id": again}}).encode()
    with pytest.raises(MalformedMessage, match=r"kwargs\.chat_id names another chat"):
        decode(element, bot="1", chat="42", id="x", accepted=0.0)


@pytest.mark.parametrize("value", [None, 1.5, "", "a b", "x" * 129, "ü", "a/b", "a\n"])
def test_check_id_refuses(value: object) -> None:
    with pytest.raises(MalformedMessage):
        check_id(value)


def test_check_id_takes_our_own_and_plain_ones() -> None:
    for value in (new_id(), "order-17", "a.b:c@d+e_f", "x" * 128):
        assert check_id(value) == value


@pytest.mark.parametrize("value", [None, True, 1.5, "x", "@ä", 2**53, "1" * 17, {"a": 1}])
def test_canonical_chat_refuses(value: object) -> None:
    with pytest.raises(MalformedMessage, match="chat_id must be"):
        canonical_chat(value)


def test_a_body_that_is_too_deep_is_malformed() -> None:
    body: dict[str, object] = {}
    for _ in range(100_000):
        body = {"in": body}
    with pytest.raises(MalformedMessage, match="recursion"):
        encode(Message(bot="1", chat="42", id="a", body=body))
