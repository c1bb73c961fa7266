"""What is known of messages besides where they are, within one process: statuses and dead letters."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from queueing.contract import DeadLetter, MessageStatus
from queueing.message import Message, MessageState, encode

KEPT = 10_000
"""Dead letters, and statuses of messages that ended, kept at most: memory is all there is. The oldest go first."""


class Statuses:
    """Of tracked messages. Those that ended are kept for `ttl` seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._open: dict[str, MessageStatus] = {}
        self._ended: OrderedDict[str, tuple[float, MessageStatus]] = OrderedDict()

    def get(self, id: str) -> MessageStatus | None:
        expires, ended = self._ended.get(id, (0.0, None))
        return self._open.get(id) or (ended if expires > time.monotonic() else None)

    def begin(self, message: Message, accepted: float) -> None:
        if message.track:
            self._open[message.id] = MessageStatus(
                message.id, MessageState.PENDING, message.bot, message.chat, created_at=accepted
            )

    def mark(self, message: Message, state: MessageState) -> None:
        if message.id in self._open:
            self._open[message.id] = replace(self._open[message.id], state=state)

    def note_try(self, message: Message, attempts: int, error: str | None) -> None:
        if message.id in self._open:
            self._open[message.id] = replace(
                self._open[message.id], state=MessageState.RETRYING, attempts=attempts, error=error
            )

    def sent(self, message: Message, result: str | None) -> None:
        if message.id in self._open:
            status = self._open.pop(message.id)
            self._end(replace(status, state=MessageState.SENT, sent_at=time.time(), result=result))

    def died(self, message: Message, error: str) -> None:
        if message.id in self._open:
            self._end(replace(self._open.pop(message.id), state=MessageState.DEAD, error=error))

    def _end(self, status: MessageStatus) -> None:
        now = time.monotonic()
        self._ended[status.id] = (now + self._ttl, status)
        while self._ended and (len(self._ended) > KEPT or next(iter(self._ended.values()))[0] < now):
            self._ended.popitem(last=False)


class DeadLetters:
    """The newest KEPT of them."""

    def __init__(self) -> None:
        self._letters: OrderedDict[str, DeadLetter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, message: Message, reason: str, error: str, history: Sequence[Mapping[str, object]]) -> None:
        now = time.time()
        self._letters[message.id] = DeadLetter(
            id=message.id,
            reason=reason,
            error=error,
            died_at=now,
            element=encode(message).decode(),
            bot=message.bot,
            chat=message.chat,
            history=[*history, {"at": now, "reason": reason, "error": error}],
        )
        while len(self._letters) > KEPT:
            self._letters.popitem(last=False)

    def newest(self, limit: int) -> Sequence[DeadLetter]:
        return list(itertools.islice(reversed(self._letters.values()), limit))
