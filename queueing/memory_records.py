"""What is known of messages besides where they are, within one process: statuses, dead letters, dedup keys."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from queueing.contract import DEAD_DAYS, DEAD_MOST, DeadLetter, DeadPage, MessageStatus
from queueing.message import Message, MessageState, encode

KEPT = 10_000
"""Statuses of messages that ended, kept at most: memory is all there is. The oldest go first."""

DEDUP_SECONDS = 86_400.0

_TRIM_MOST = 1000
"""Dead letters that one call of `trim` removes."""


class Statuses:
    """Of tracked messages. Those that ended are kept for `ttl` seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._open: dict[str, MessageStatus] = {}
        self._ended: OrderedDict[str, tuple[float, MessageStatus]] = OrderedDict()
        self._send_at: dict[str, float] = {}

    def get(self, id: str) -> MessageStatus | None:
        expires, ended = self._ended.get(id, (0.0, None))
        return self._open.get(id) or (ended if expires > time.monotonic() else None)

    def send_at(self, id: str) -> float | None:
        """Unix seconds, of one that is scheduled or was."""
        return self._send_at.get(id)

    def begin(self, message: Message, accepted: float) -> None:
        if message.track:
            self._ended.pop(message.id, None)
            self._open[message.id] = MessageStatus(
                message.id, MessageState.PENDING, message.bot, message.chat, created_at=accepted
            )
            if message.send_at is not None:
                self._send_at[message.id] = message.send_at

    def begin_again(self, message: Message, now: float) -> None:
        """It was dead, and is to be sent after all."""
        known = self.get(message.id)
        self.begin(message, known.created_at if known else now)

    def mark(self, message: Message, state: MessageState) -> None:
        if message.id in self._open:
            self._open[message.id] = replace(self._open[message.id], state=state)

    def cancel(self, id: str) -> None:
        """It is still where it was; it leaves when it comes to the head of its lane."""
        self._open[id] = replace(self._open[id], state=MessageState.CANCELLED)

    def is_cancelled(self, message: Message) -> bool:
        status = self._open.get(message.id) if message.track else None
        return status is not None and status.state is MessageState.CANCELLED

    def note_try(self, message: Message, attempts: int, error: str | None) -> None:
        if message.id in self._open:
            self._open[message.id] = replace(
                self._open[message.id], state=MessageState.RETRYING, attempts=attempts, error=error
            )

    def sent(self, message: Message, result: str | None, now: float) -> None:
        if message.id in self._open:
            self._end(replace(self._open[message.id], state=MessageState.SENT, sent_at=now, result=result))

    def held(self, message: Message, error: str) -> None:
        """Nobody knows whether it was delivered. That is kept until a person decided."""
        if message.id in self._open:
            self._open[message.id] = replace(
                self._open[message.id], state=MessageState.UNCERTAIN, error=error, reason="uncertain"
            )

    def forgotten(self, message: Message) -> None:
        """Its dead letter is gone."""
        status = self._open.get(message.id)
        if status and status.state is MessageState.UNCERTAIN:
            self._end(status)

    def ended(self, message: Message, state: MessageState, error: str | None = None, reason: str | None = None) -> None:
        if message.id in self._open:
            status = self._open[message.id]
            self._end(replace(status, state=state, error=status.error if error is None else error, reason=reason))

    def _end(self, status: MessageStatus) -> None:
        del self._open[status.id]
        self._send_at.pop(status.id, None)
        now = time.monotonic()
        self._ended[status.id] = (now + self._ttl, status)
        while self._ended and (len(self._ended) > KEPT or next(iter(self._ended.values()))[0] < now):
            self._ended.popitem(last=False)


class DeadLetters:
    """In the order in which they died."""

    def __init__(self) -> None:
        self._letters: OrderedDict[str, tuple[DeadLetter, Message]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._letters)

    def add(
        self, message: Message, reason: str, error: str, history: Sequence[Mapping[str, object]], now: float
    ) -> None:
        # Two messages may have been given the same id: the second letter gets another, that no producer can choose.
        names = itertools.chain([message.id], (f"{message.id}~{number}" for number in itertools.count(2)))
        id = next(name for name in names if name not in self._letters)
        letter = DeadLetter(
            id=id,
            reason=reason,
            error=error,
            died_at=now,
            element=encode(message).decode(),
            bot=message.bot,
            chat=message.chat,
            history=[*history, {"at": now, "reason": reason, "error": error}],
        )
        self._letters[id] = (letter, message)

    def get(self, id: str) -> DeadLetter | None:
        return self._letters[id][0] if id in self._letters else None

    def take(self, id: str) -> Message | None:
        """The message, which is not dead any more; with the id of its letter."""
        _, message = self._letters.pop(id, (None, None))
        return message and message.changed(id=id)

    def page(self, limit: int, before: str | None) -> DeadPage:
        """See Desk.dead_page."""
        newest = [letter for letter, _ in reversed(self._letters.values())]
        start = 0 if before is None else self._place_after(before, newest)
        page = newest[start : start + limit]
        return DeadPage(page, _name(page[-1]) if len(newest) > start + limit else None)

    def _place_after(self, before: str, newest: Sequence[DeadLetter]) -> int:
        died_at, _, id = before.partition(":")
        if not died_at.isdecimal() or not died_at.isascii() or not id:
            raise ValueError("before must be `next` of an earlier page")
        if letter := self.get(id):
            return newest.index(letter) + 1
        # It is gone. Some that died in the same millisecond may be shown again; none is left out.
        return sum(_ms(letter) > int(died_at) for letter in newest)

    def trim(self, now: float) -> list[Message]:
        """Drops those that are too many or too old, a bounded number. → the messages."""
        trimmed: list[Message] = []
        while self._letters and len(trimmed) < _TRIM_MOST:
            oldest, message = next(iter(self._letters.values()))
            if len(self._letters) <= DEAD_MOST and oldest.died_at >= now - DEAD_DAYS * 86_400:
                break
            self._letters.popitem(last=False)
            trimmed.append(message)
        return trimmed


def _ms(letter: DeadLetter) -> int:
    return round(letter.died_at * 1000)


def _name(letter: DeadLetter) -> str:
    """What names the page after the one that ends with this letter: as RedisDesk names it."""
    return f"{_ms(letter)}:{letter.id}"


class DedupKeys:
    """Of messages of a bot with the same key, the first of 24 hours is taken. Times: Unix seconds."""

    def __init__(self) -> None:
        self._first: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def claim(self, bot: str, key: str, id: str, now: float) -> bool:
        """Whether the message is the first."""
        while self._first and next(iter(self._first.values()))[1] <= now:
            self._first.popitem(last=False)
        if self.first(bot, key, now) is not None:
            return False
        self.keep(bot, key, id, now + DEDUP_SECONDS)
        return True

    def first(self, bot: str, key: str, now: float) -> str | None:
        id, until = self._first.get((bot, key), ("", 0.0))
        return id if until > now else None

    def keep(self, bot: str, key: str, id: str, until: float) -> None:
        self._first[bot, key] = (id, until)
        self._first.move_to_end((bot, key))

    def all(self, now: float) -> Iterator[tuple[str, str, str, float]]:
        """Bot, key, id and until when it counts."""
        return ((bot, key, id, until) for (bot, key), (id, until) in self._first.items() if until > now)
