"""What may be asked of the Bot API, and what may not."""

from collections.abc import Mapping
from typing import Any

import pytest

from bot.call import CallRefused, parse_call
from queueing.errors import MalformedMessage


def test_a_text_alone_is_a_send_message() -> None:
    call = parse_call({"text": "hi"}, "42")
    assert (call.method, call.parameters) == ("sendMessage", {"chat_id": 42, "text": "hi"})


def test_kwargs_are_the_parameters() -> None:
    markup = {"inline_keyboard": [[{"text": "file://", "callback_data": "x"}]]}
    body = {"method": "sendPhoto", "kwargs": {"photo": "https://x/y.png", "caption": "c", "reply_markup": markup}}
    call = parse_call(body, "@news")
    assert call.method == "sendPhoto"
    assert call.parameters == {"chat_id": "@news", **body["kwargs"]}  # type: ignore[dict-item]


@pytest.mark.parametrize("field", ["sendat", "foo", "parse_mode"])
def test_a_field_that_nobody_knows_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(CallRefused, match=field):
        parse_call({"text": "hi", field: "x"}, "42")


def test_what_it_is_given_stays_as_it_is() -> None:
    body: dict[str, Any] = {"text": "hi", "kwargs": {"chat_id": 42, "parse_mode": "HTML"}}
    parse_call(body, "42").parameters["chat_id"] = "43"
    assert body == {"text": "hi", "kwargs": {"chat_id": 42, "parse_mode": "HTML"}}


def test_the_messages_own_chat_is_the_one_that_counts() -> None:
    assert parse_call({"text": "hi", "kwargs": {"chat_id": 43}}, "42").parameters["chat_id"] == 42


@pytest.mark.parametrize("method", ["setWebhook", "DELETEWEBHOOK", "getupdates", "logOut", "Close"])
def test_methods_that_change_the_bot_are_refused(method: str) -> None:
    with pytest.raises(CallRefused, match="changes the bot itself") as caught:
        parse_call({"method": method}, "42")
    assert caught.value.reason == "forbidden_method"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"document": "file:///etc/passwd"},
        {"document": " FILE:///etc/passwd"},
        {"document": "attach://part"},
        {"media": [{"type": "photo", "media": "file:///etc/passwd"}]},
        {"media": '[{"type": "photo", "media": "file:///etc/passwd"}]'},
        {"media": ' [{"type": "photo", "media": "\\u0066ile:///etc/passwd"}]'},
        {"media": '{"thumbnail": "{\\"a\\": \\"file:///x\\"}"}'},
    ],
)
def test_parameters_that_name_a_local_file_are_refused(kwargs: Mapping[str, object]) -> None:
    with pytest.raises(CallRefused, match=r"kwargs\.\w+ names a local file") as caught:
        parse_call({"method": "sendMediaGroup", "kwargs": kwargs}, "42")
    assert caught.value.reason == "local_file"


REF = {"key": "0123456789abcdef" * 4, "name": "a b.txt", "type": "text/plain", "size": 5, "use": "0" * 32}


def test_what_is_attached_may_be_named_and_nothing_else() -> None:
    kwargs = {"media": [{"type": "photo", "media": "attach://one", "thumbnail": "attach://two"}]}
    call = parse_call({"method": "sendMediaGroup", "kwargs": kwargs, "files": {"one": REF, "two": REF}}, "42")
    assert (call.parameters["media"], call.files) == (kwargs["media"], {"one": REF, "two": REF})
    as_text = {"media": '[{"media": "attach://one"}]'}
    assert parse_call({"method": "sendMediaGroup", "kwargs": as_text, "files": {"one": REF}}, "42")
    for named in ("attach://two", "ATTACH://one", " attach://one", "attach://one/../two", "attach://", "file://one"):
        with pytest.raises(CallRefused) as caught:
            parse_call({"method": "sendDocument", "kwargs": {"document": named}, "files": {"one": REF}}, "42")
        assert caught.value.reason == "local_file"


@pytest.mark.parametrize(
    "files",
    [
        [],
        "0123",
        {"a": "/etc/passwd"},
        {"a/b": REF},
        {"": REF},
        {"chat_id": REF},
        {"caption": REF},
        {"a": {}},
        {"a": {**REF, "path": "/etc/passwd"}},
        {"a": {**REF, "key": "/etc/passwd"}},
        {"a": {**REF, "key": REF["key"] + "\n"}},
        {"a": {**REF, "key": "A" * 64}},
        {"a": {**REF, "name": ""}},
        {"a": {**REF, "name": "a\r\nb"}},
        {"a": {**REF, "name": "a" * 256}},
        {"a": {**REF, "type": "text"}},
        {"a": {**REF, "type": "text/plain\r\nX: y"}},
        {"a": {**REF, "size": 0}},
        {"a": {**REF, "size": True}},
        {"a": {**REF, "size": 50 * 1024 * 1024 + 1}},
        {"a": {**REF, "use": "x" * 32}},
        {f"a{number}": REF for number in range(33)},
    ],
)
def test_files_that_are_none_are_refused(files: object) -> None:
    body = {"method": "sendDocument", "kwargs": {"caption": "c"}, "files": files}
    with pytest.raises(CallRefused) as caught:
        parse_call(body, "42")
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        {"text": "file:///etc/passwd"},
        {"method": "sendPhoto", "kwargs": {"photo": "id", "caption": "file:// is a scheme"}},
    ],
)
def test_prose_may_say_anything(body: Mapping[str, object]) -> None:
    assert parse_call(body, "42")


def nested(depth: int) -> object:
    value: object = "end"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text is missing"),
        ({"text": None}, "text is missing"),
        ({"method": "SENDMESSAGE"}, "text is missing"),
        ({"text": 5}, "text must be a string"),
        ({"kwargs": {"text": ["a"]}}, "text must be a string"),
        ({"text": "a", "kwargs": {"text": "b"}}, "text is given twice"),
        ({"text": "a", "kwargs": ["b"]}, "kwargs must be an object"),
        ({"text": "a", "kwargs": "{}"}, "kwargs must be an object"),
        ({"text": "a", "kwargs": {"odd": nested(100)}}, r"kwargs\.odd is nested too deeply"),
        ({"method": "../getMe"}, "method must be"),
        ({"method": ""}, "method must be"),
        ({"method": "sendMessage\n"}, "method must be"),
        ({"method": "a" * 65}, "method must be"),
        ({"method": 7}, "method must be"),
    ],
)
def test_what_is_malformed_is_refused_and_the_field_named(body: Mapping[str, object], field: str) -> None:
    with pytest.raises(MalformedMessage, match=field) as caught:
        parse_call(body, "42")
    assert isinstance(caught.value, CallRefused)
    assert caught.value.reason == "malformed"


def test_a_message_needs_a_chat_and_other_methods_do_not() -> None:
    with pytest.raises(CallRefused, match="chat_id is missing"):
        parse_call({"text": "hi"}, "")
    assert parse_call({"method": "getMe"}, "").method == "getMe"


@pytest.mark.parametrize(
    "method", ["send Message", "sendMessage2", "send/Message", "../getMe", "send_it", "sendé", "", "getMe\n"]
)
def test_rule_10_a_method_is_letters_alone(method: str) -> None:
    with pytest.raises(CallRefused, match="method"):
        parse_call({"method": method, "text": "hi"}, "42")
