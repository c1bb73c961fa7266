"""What a job is, when it runs next, and how both are named."""

import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

WITH_NAME: Final = re.compile(r"[js][\w-]{16}\.([\w-]{12})", re.ASCII)
"""Ids that we made: a job is removed without a question for its name."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a job is. grace: seconds that it may be late; None: any. coalesce: of several missed ones, one is run."""

    callback: str
    name: str
    chat_id: int | None
    user_id: int | None
    trigger: Any
    grace: int | None
    coalesce: bool


@dataclass(frozen=True, slots=True)
class Due:
    """The next occurrence. token: its name; a message with another one is void. at: None: paused."""

    token: str
    at: datetime | None
    data: object


Record = tuple[Spec | None, Due | None]


def new_token() -> str:
    return secrets.token_urlsafe(12)


def new_id(name: str) -> str:
    return f"j{secrets.token_urlsafe(12)}.{digest_of(name.encode())}"


def start_id(name: str, parts: Iterable[bytes]) -> str:
    """The id of a job that is made at start: the same in every process and at every start."""
    return f"s{digest_of(*parts, size=12)}.{digest_of(name.encode())}"


def start_print(parts: Iterable[bytes]) -> str:
    """What tells whether the code still makes it in the same way."""
    return digest_of(*parts, size=12)


def may_be_of_start(id: str) -> bool:
    """Whether it can be that of a job made at start: it is no id of `new_id`."""
    return not (id.startswith("j") and WITH_NAME.fullmatch(id))


def as_dict(record: Spec | Due) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def digest_of(*parts: bytes, size: int = 9) -> str:
    """12 letters, digits, - or _; 16 with a size of 12."""
    digest = blake2b(digest_size=size)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return urlsafe_b64encode(digest.digest()).decode()
