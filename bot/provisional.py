"""Provisional ids: what a handler gets for a message that Telegram has not seen yet.

A message that is known as `p123` in the queue has `message_id` -123 for its handler. Telegram's own ids are positive.
A call that names such an id is queued `after` that message, and gets the real id when its turn comes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_ID = re.compile(r"p([0-9]{1,16})")
_NAMES = ("message_id", "reply_to_message_id")
_LISTS = ("message_ids",)
_OBJECTS = ("reply_parameters",)


def queue_id(number: int) -> str:
    """The id in the queue of the message that handlers know as -number."""
    return f"p{number}"


def message_id(id: str) -> int:
    """What a handler gets as `message_id` for the message with this id in the queue."""
    found = _ID.fullmatch(id)
    if found is None:
        raise ValueError(f"{id} is not the id of a provisional message")
    return -int(found[1])


def parents_of(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids in the queue of all provisional messages that a call's parameters name, each once, in order."""
    return tuple(dict.fromkeys(queue_id(-value) for value in _named(parameters) if value < 0))


def resolve(parameters: Mapping[str, Any], results: Mapping[str, str]) -> dict[str, Any]:
    """The parameters with the real id in the place of each provisional one. results: by the ids in the queue, the
    message's id as JSON. What is not in it stays as it is: Telegram refuses it."""

    def real(value: int) -> int:
        result = results.get(queue_id(-value)) if value < 0 else None
        return json.loads(result) if result is not None else value

    return {name: _mapped(name, value, real) for name, value in parameters.items()}


def _named(parameters: Mapping[str, Any]) -> Iterator[int]:
    found: list[int] = []

    def note(value: int) -> int:
        found.append(value)
        return value

    for name, value in parameters.items():
        _mapped(name, value, note)
    yield from found


def _mapped(name: str, value: Any, change: Callable[[int], int]) -> Any:
    """`value`, the parameter `name`, with `change` applied to every message id in it."""
    if name in _NAMES:
        return change(value) if type(value) is int else value
    if name in _LISTS and isinstance(value, list):
        return [change(item) if type(item) is int else item for item in value]
    if name in _OBJECTS and isinstance(value, dict):
        return {inner: _mapped(inner, item, change) for inner, item in value.items()}
    return value
