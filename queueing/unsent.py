"""What a queue within a process had not sent when it was stopped: on disk until the next one takes it up.

One directory. A queue that is closed leaves a file in it: a line of JSON for each message, in order. A file is whole or
not there, since it is renamed to its name once it is on the disk. Whoever takes a file up locks it, so that none is
taken twice, and removes it: one that is killed before that leaves it to the next.
"""

import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queueing.errors import MalformedMessage
from queueing.message import Message, check_id, decode, encode

_VERSION = 3
"""In files of version 1, `paused` had no reasons, and there was nothing else; in those of version 2, no `ended`."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message with what was tried with it. until: Unix seconds before which it is not tried again; 0: at any time."""

    message: Message
    attempts: int = 0
    until: float = 0.0
    history: Sequence[Mapping[str, object]] = ()


@dataclass(slots=True)
class Left:
    """What a process left. Times: Unix seconds.

    paused:   until when, and why, nothing may be sent for a bot or a lane. by_hand: since when, and why, a person
              wants it so: for "*", too.
    aliases:  lanes, with those that they are a part of.
    dedup:    bot, key, the id of the message that came with it, until when it counts.
    ended:    ids of provisional messages, what came of each ("=" and its result, "!" and its state), until when it is
              kept.
    """

    messages: Iterable[Unsent] = ()
    paused: dict[str, tuple[float, str]] = field(default_factory=dict)
    by_hand: dict[str, tuple[float, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    dedup: list[tuple[str, str, str, float]] = field(default_factory=list)
    ended: list[tuple[str, str, float]] = field(default_factory=list)


class Journal:
    """The files of one directory, which is made when the first is written. Methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, left: Left) -> Path:
        """All of it, in its order, on the disk when it returns. → the file."""
        fields = {name: getattr(left, name) for name in ("paused", "by_hand", "aliases", "dedup", "ended")}
        head = json.dumps({"version": _VERSION, **fields}).encode()
        name = f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        return self._write(name, [head], map(_line, left.messages))

    def take(self) -> Iterator[Left]:
        """What was left and nobody else takes, the oldest file first. What is yielded is on the disk no more."""
        for path in sorted(self.directory.glob("*.jsonl")):
            try:
                yield from self._take_one(path)
            except FileNotFoundError:
                continue  # another process was quicker

    def _take_one(self, path: Path) -> Iterator[Left]:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not os.fstat(file.fileno()).st_nlink:
                return  # taken between the look and the lock
            left, broken = _read(file)
            if broken:
                aside = self._write(f"{path.stem}.broken", [], broken)
                _logger.error("%d lines of %s cannot be read and are kept in %s", len(broken), path, aside)
            path.unlink()
            yield left

    def _write(self, name: str, first: Sequence[bytes], lines: Iterable[bytes]) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, partial = self.directory / name, self.directory / f"{name}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(line + b"\n" for part in (first, lines) for line in part)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name, too
        finally:
            os.close(directory)
        return path


def _line(unsent: Unsent) -> bytes:
    fields = {
        "element": json.loads(encode(unsent.message)),
        "accepted": unsent.message.accepted,
        "attempts": unsent.attempts,
        "until": unsent.until,
        "history": list(unsent.history),
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _read(file: Iterable[bytes]) -> tuple[Left, list[bytes]]:
    """→ what a file holds, and the lines that cannot be read."""
    left, messages, broken = Left(), [], []
    for number, line in enumerate(file):
        try:
            if number:
                messages.append(_unsent(line))
            else:
                left = _head(line)
        except (ValueError, TypeError, KeyError, AttributeError, MalformedMessage):
            broken.append(line.rstrip(b"\n"))
    left.messages = messages
    return left, broken


def _head(line: bytes) -> Left:
    head = json.loads(line)
    if head["version"] == 1:
        return Left(paused={str(scope): (float(until), "flood") for scope, until in head["paused"].items()})
    if head["version"] not in (2, _VERSION):
        raise ValueError(f"version {head['version']}")
    return Left(
        paused=_pauses(head["paused"]),
        by_hand=_pauses(head["by_hand"]),
        aliases={str(name): str(other) for name, other in head["aliases"].items()},
        dedup=[(str(bot), str(key), str(id), float(until)) for bot, key, id, until in head["dedup"]],
        ended=[(str(id), str(what), float(until)) for id, what, until in head.get("ended", ())],
    )


def _pauses(kept: Mapping[str, Sequence[Any]]) -> dict[str, tuple[float, str]]:
    return {str(scope): (float(at), str(reason)) for scope, (at, reason) in kept.items()}


def _unsent(line: bytes) -> Unsent:
    fields = json.loads(line)
    element = fields["element"]
    chat = element["chat_id"] if "chat_id" in element else element["lane"]
    if not isinstance(element["bot"], str) or not isinstance(chat, str):
        raise MalformedMessage("no bot or no chat")
    message = decode(
        json.dumps(element).encode(),
        bot=element["bot"],
        chat=chat,
        id=check_id(element["id"]),
        accepted=float(fields["accepted"]),
    )
    history = [dict(line) for line in fields["history"]]
    return Unsent(message, int(fields["attempts"]), float(fields["until"]), history)
