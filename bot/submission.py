"""What a client of the HTTP API posts: messages, checked field by field."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from queueing.message import Priority

MOST = 1000
"""Messages in one call."""

_TYPES: Mapping[str, tuple[type, str]] = {
    "text": (str, "must be a string"),
    "kwargs": (dict, "must be an object"),
    "method": (str, "must be a string"),
    "id": (str, "must be a string"),
    "bot": (str, "must be the number of a bot, as a string"),
    "bot_token": (str, "must be a string"),
    "track": (bool, "must be true or false"),
}
_ARGUMENTS = ("chat_id", "text", "method", "kwargs", "max_attempts", "ttl", "send_at", "dedup_key", "uncertain")
_FIELDS = frozenset({*_TYPES, *_ARGUMENTS, "priority"})
_TOKEN = re.compile(r"\d{1,20}:[\w-]{1,200}", re.ASCII)
_BOT = re.compile(r"\d{1,20}", re.ASCII)
_NAME = re.compile(r"\w+(\.\w+)*")


class Invalid(Exception):
    """Something of what was posted cannot be a message. `field`: where, such as `messages[3].chat_id`, if known."""

    def __init__(self, error: str, field: str | None) -> None:
        super().__init__(error)
        self.field = field


@dataclass(frozen=True, slots=True)
class Submission:
    """One message as it was posted.

    path:       how to name its fields: "" or "messages[3].".
    arguments:  for Outbox.compose.
    bot:        the number of another bot than the configured one; bot_token: its token.
    may_repeat: its id may have been given before.
    """

    path: str
    arguments: Mapping[str, Any]
    bot: str | None = None
    bot_token: str | None = None
    may_repeat: bool = False

    def invalid(self, error: str) -> Invalid:
        """The error of a check that names the field with its first word."""
        first = _NAME.match(error)
        known = first is not None and first[0].partition(".")[0] in _FIELDS
        return Invalid(error, f"{self.path}{first[0]}" if first and known else self.path.rstrip(".") or None)


def parse_submissions(content: object, *, id_prefix: str | None) -> Sequence[Submission]:
    """One object or an array of them. id_prefix: what the ids of messages that bring none are made of.

    Raises Invalid.
    """
    if not isinstance(content, list):
        return [_parse("", content, id_prefix)]
    if not 1 <= len(content) <= MOST:
        raise Invalid(f"an array must hold 1 to {MOST} messages, this one holds {len(content)}", "messages")
    parsed = [
        _parse(f"messages[{index}].", item, None if id_prefix is None else f"{id_prefix}.{index}")
        for index, item in enumerate(content)
    ]
    _check_ids_differ(parsed)
    return parsed


def _parse(path: str, item: object, id: str | None) -> Submission:
    if not isinstance(item, dict):
        raise Invalid("a message must be an object", path.rstrip(".") or None)
    fields = {name: value for name, value in item.items() if value is not None}
    for name, value in fields.items():
        _check(path, name, value)
    if "chat_id" not in fields:
        raise Invalid("chat_id is missing", f"{path}chat_id")
    given_id = fields.get("id", id)
    arguments = {name: fields[name] for name in _ARGUMENTS if name in fields}
    return Submission(
        path=path,
        arguments={**arguments, "id": given_id, "priority": _priority(path, fields.get("priority", "normal"))},
        bot=fields.get("bot"),
        bot_token=fields.get("bot_token"),
        may_repeat=given_id is not None,
    )


def _check(path: str, name: str, value: object) -> None:
    field = f"{path}{name}"
    if name not in _FIELDS:
        raise Invalid(f"{name} is not a field of a message", field)
    expected, complaint = _TYPES.get(name, (object, ""))
    if not isinstance(value, expected):
        raise Invalid(f"{name} {complaint}", field)
    if name == "bot_token" and not _TOKEN.fullmatch(str(value)):
        raise Invalid("bot_token must be digits, a colon, and letters, digits, _ or -", field)
    if name == "bot" and not _BOT.fullmatch(str(value)):
        raise Invalid("bot must be the number of a bot, as a string", field)


def _priority(path: str, value: object) -> Priority:
    try:
        return Priority(value)  # type: ignore[arg-type]  # whatever it is, the enum says whether it is one
    except ValueError:
        raise Invalid("priority must be interactive, normal or bulk", f"{path}priority") from None


def _check_ids_differ(submissions: Sequence[Submission]) -> None:
    counts = Counter(submission.arguments["id"] for submission in submissions)
    for submission in submissions:
        id = submission.arguments["id"]
        if id is not None and counts[id] > 1:
            raise Invalid("id is given to more than one message", f"{submission.path}id")
