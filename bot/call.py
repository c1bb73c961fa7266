"""What is asked of the Bot API: a method and its parameters, from a message's body. The one place that checks them.

Body: {"method": "sendMessage" (the default), "text": "…", "kwargs": {…}}; fields that belong to the queue are not in
it, and any other is a mistake. Both who queues a message (outbox) and who sends it (sender) ask here, since any program
may push elements.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from queueing.errors import MalformedMessage

SEND_MESSAGE = "sendMessage"

_METHOD = re.compile("[A-Za-z]{1,64}")
_FORBIDDEN = frozenset({"setwebhook", "deletewebhook", "getupdates", "logout", "close"})
_FILE_URI = re.compile(r"\s*(file|attach)://", re.IGNORECASE)
_PROSE = frozenset({"text", "caption"})
_FIELDS = frozenset({"method", "text", "kwargs"})
_MAX_DEPTH = 64


class CallRefused(MalformedMessage):
    """This is no call that may be made. `reason` is its class, a label of `messages_dead_total`."""

    def __init__(self, error: str, reason: str = "malformed") -> None:
        super().__init__(error)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the Bot API and its parameters, of JSON's types; `chat_id` among them."""

    method: str
    parameters: dict[str, Any]


def parse_call(body: Mapping[str, Any], chat: str) -> Call:
    """The call that a message's body asks for, to the canonical chat `chat`, whatever its parameters say.

    Raises CallRefused with the reason `forbidden_method`, `local_file` or `malformed`; its text names the field.
    """
    method = _method(body.get("method"))
    for name in body.keys() - _FIELDS:
        raise CallRefused(f"{name} is not a field of a message")
    kwargs = body.get("kwargs")
    if kwargs is None:
        kwargs = {}
    if not isinstance(kwargs, dict):
        raise CallRefused("kwargs must be an object")
    parameters: dict[str, Any] = {}
    if (text := body.get("text")) is not None:
        parameters["text"] = text
    for name, value in kwargs.items():
        if name == "text" and "text" in parameters:
            raise CallRefused("text is given twice: beside kwargs and in it")
        _check_value(name, value)
        parameters[name] = value
    # Order and limits are those of the message's own chat: a call to another one would escape both.
    parameters["chat_id"] = chat
    _check_message(method, parameters)
    return Call(method, parameters)


def _method(value: object) -> str:
    if value is None or value == SEND_MESSAGE:
        return SEND_MESSAGE
    if not isinstance(value, str) or not _METHOD.fullmatch(value):
        raise CallRefused("method must be the name of a Bot API method: letters only")
    if value.lower() in _FORBIDDEN:
        raise CallRefused(f"method {value} changes the bot itself and may not be queued", "forbidden_method")
    return value


def _check_message(method: str, parameters: Mapping[str, Any]) -> None:
    text, is_message = parameters.get("text"), method.lower() == SEND_MESSAGE.lower()
    if text is None and is_message:
        raise CallRefused("text is missing")
    if is_message and not parameters["chat_id"]:
        raise CallRefused("chat_id is missing")
    if text is not None and not isinstance(text, str):
        raise CallRefused("text must be a string")


def _check_value(name: str, value: object, depth: int = 0) -> None:
    """A Bot API server in local mode reads the file that a `file://` names: nobody may choose it from outside."""
    if depth > _MAX_DEPTH:
        raise CallRefused(f"kwargs.{name} is nested too deeply")
    if isinstance(value, str):
        if name not in _PROSE:
            _check_string(name, value, depth)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check_value(key, inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_value(name, inner, depth + 1)


def _check_string(name: str, value: str, depth: int) -> None:
    if _FILE_URI.match(value):
        raise CallRefused(f"kwargs.{name} names a local file", "local_file")
    if value.lstrip()[:1] in ("[", "{"):  # Telegram takes objects and arrays written as text, too
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            return
        _check_value(name, inner, depth + 1)
