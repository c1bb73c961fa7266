"""RedisInbox: the queue of a bot's updates, see queueing.inbox. A RedisQueue without limits, and what is its own."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from queueing.inbox import ANYTHING, Commit, Conflict, Standing, Write
from queueing.message import Message, Priority, encode, new_id
from queueing.redis_desk import text_of
from queueing.redis_queue import RedisQueue, door_args, lines_of, marked_args
from queueing.scripts import Function, Script, mapped_errors
from queueing.slots import Slots
from queueing.turns import Turn

_REMEMBERED = 25 * 3600
"""Seconds for which the number of an update is known. Telegram repeats an update for 24 hours."""

_BLOCK = 4096
"""Telegram numbers a bot's updates one after the other, so a bitmap of 512 bytes holds a block of them."""


@dataclass(frozen=True, slots=True)
class Taker:
    """Who takes messages of a queue in this process. has_room: whether it would take one now. notify: has it look."""

    has_room: Callable[[], bool]
    notify: Callable[[], None]


NOBODY = Taker(lambda: False, lambda: None)


class RedisInbox(RedisQueue):
    """bot: whose updates they are; each bot has a queue of its own, since its processes alone can handle them.
    messages: the front door of the queue that takes what is sent. updates_max: updates that may wait before `accept`
    refuses. The rest is as in RedisQueue.
    """

    # 35 µs each, and while a claim runs nothing is accepted: 100 would keep the webhook waiting for 3.5 ms (measured).
    _drain_most = 25

    def __init__(
        self,
        redis_url: str,
        bot: str,
        *,
        workers: int = 64,
        lease_seconds: float = 15.0,
        updates_max: int = 100_000,
        timeout: float = 5.0,
        messages: str = "telegram_messages",
        looks: Turn | None = None,
        slots: Slots | None = None,
    ) -> None:
        super().__init__(
            redis_url,
            workers=workers,
            lease_seconds=lease_seconds,
            default_bot=bot,
            timeout=timeout,
            name=f"{{{messages}}}:updates:{bot}",
            looks=looks,
            slots=slots,
        )
        self._messages = messages
        self._updates_max = updates_max
        self._operations = 0
        self._updates_taker = self._messages_taker = NOBODY
        self._accept, self._commit, self._write = Function("accept"), Function("commit"), Script("write")

    def hand_over(self, updates: Taker, messages: Taker) -> None:
        """What comes into the queues through this inbox is taken by these, as long as they have room, and no bell rings
        for it: the process is awake, and another would have to wake up."""
        self._updates_taker, self._messages_taker = updates, messages

    async def accept(self, update: Message, number: int) -> Standing:
        """See queueing.inbox.Inbox."""
        block, bit = divmod(number, _BLOCK)
        here = "1" if self._updates_taker.has_room() else ""
        self._operations += 1
        operation = f"{self.incarnation}:{self._operations}"
        args: list[str | bytes | int] = [operation, self._updates_max, encode(update), update.id]
        found = await self._accept.run(
            self._patient, self._keys.front, [*args, f"{update.bot}:{block}", bit, _REMEMBERED, here]
        )
        if found == _HANDED_OVER:
            self._updates_taker.notify()
        return _STANDINGS[found]

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """See the contract. What is not an update, such as a job, comes this way."""
        args: list[str | bytes | int] = [new_id(), self._updates_max, 0, len(messages)]
        await self._enqueue.run(self._patient, self._keys.front, args + _open_door_args(messages))

    async def commit(self, update: Message, commit: Commit) -> Sequence[Conflict] | None:
        """See queueing.inbox.Inbox. May run twice: what is committed stays so."""
        jobs = _open_door_args(commit.updates)
        lane = f"{update.bot}:{update.chat}"
        args: list[str | bytes | int] = [self._messages, self.incarnation, lane, update.id]
        args += ["" if commit.failed is None else f"{commit.failed[0]}\n{lines_of(commit.failed[1])}"]
        here = "1" if self._messages_taker.has_room() and not any(map(_is_bulk, commit.sends)) else ""
        args += [len(commit.writes), len(jobs), here, *self._write_args(commit.writes), *jobs]
        args += [argument for message in commit.sends for argument in door_args(message)]
        standing, *found = await self._commit.run(self._patient, self._keys.front, args)
        if standing == _HANDED_OVER:
            self._messages_taker.notify()
        if standing == _NOT_OURS:
            return None
        return _conflicts(commit.writes, found)

    async def write(self, writes: Sequence[Write]) -> Sequence[Conflict]:
        """See queueing.inbox.Inbox. It may run twice: then it may find what it wrote itself."""
        found = await self._write.run(self._patient, self._keys.front, self._write_args(writes))
        return _conflicts(writes, found)

    def _write_args(self, writes: Sequence[Write]) -> list[str | bytes | int]:
        """See lua/writes.lua."""
        args: list[str | bytes | int] = []
        for write in writes:
            args += [self._key(write.key), write.field, b"" if write.value is None else b"=" + write.value]
            args += [_seen(write), "" if write.ttl is None else write.ttl]
        return args

    async def read(self, fields: Sequence[tuple[str, str]]) -> Sequence[bytes | None]:
        """See queueing.inbox.Inbox. One round trip, and one command for each hash: redis-py takes longer for a command
        than the server."""
        if not fields:
            return []
        by_key: dict[str, list[str]] = {}
        for key, field in fields:
            by_key.setdefault(key, []).append(field)
        if len(by_key) == 1:  # nearly always: the bot's state
            ((key, names),) = by_key.items()
            with mapped_errors():
                return [_bytes(value) for value in await self._patient.hmget(self._key(key), names)]
        with mapped_errors():
            async with self._patient.pipeline(transaction=False) as pipeline:
                for key, names in by_key.items():
                    pipeline.hmget(self._key(key), names)
                answers = await pipeline.execute()
        held = {key: iter(values) for key, values in zip(by_key, answers, strict=True)}
        return [_bytes(next(held[key])) for key, _ in fields]

    async def read_all(self, key: str) -> dict[str, bytes]:
        """See queueing.inbox.Inbox."""
        with mapped_errors():
            found = await self._patient.hgetall(self._key(key))
        return {text_of(field): value for field, value in found.items() if isinstance(value, bytes)}

    def _key(self, name: str) -> str:
        return f"{{{self._messages}}}:{name}"


_NOT_OURS, _HANDED_OVER = 2, 3
_STANDINGS = (Standing.NEW, Standing.HANDLING, Standing.DONE, Standing.NEW)
"""In the order of what lua/accept.lua returns."""


def _is_bulk(message: Message) -> bool:
    """It has a door of its own, and no list that a process could look at first."""
    return message.priority is Priority.BULK


def _open_door_args(messages: Sequence[Message]) -> list[str | bytes | int]:
    """See lua/door.lua. All are open, so that they can be committed."""
    args: list[str | bytes | int] = []
    for message in messages:
        args += [b'"open":true,' + encode(message)[1:], *marked_args(message, "o")]
    return args


def _conflicts(writes: Sequence[Write], found: Sequence[Any]) -> Sequence[Conflict]:
    return [Conflict(writes[number - 1], _bytes(is_)) for number, is_ in zip(found[::2], found[1::2], strict=True)]


def _seen(write: Write) -> str:
    if write.seen is ANYTHING:
        return "*"
    return "-" if write.seen is None else hashlib.sha1(write.seen, usedforsecurity=False).hexdigest()


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None
