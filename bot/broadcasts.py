"""Broadcasts: one text to many chats, or to all subscribers, at bulk priority, to each of them once.

What is to do is a set in Redis (lua/broadcast.lua). Step by step its chats come into the queue, moved by whichever
process looks next (lua/spread.lua, bot/spreading.py): one that dies loses and doubles nothing. From there on they are
messages as any other, which the queue counts together (Front.group).
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from redis.asyncio import Redis

from bot.call import SEND_MESSAGE
from bot.outbox import Outbox
from bot.store import QUEUE
from bot.subscribers import UNREACHABLE
from queueing.contract import Front
from queueing.errors import MalformedMessage
from queueing.keys import Keys
from queueing.message import Message, Priority, encode, new_id
from queueing.scripts import Script, mapped_errors

KEPT_SECONDS = 30 * 86_400
"""For how long a broadcast is known after its start, or after its last step."""

_AT_ONCE = 250
"""Chats of one call of a script: about a millisecond of the server's time, of a million too (measured)."""

_HANDED_IN = 1000
"""Chats that are handed in at once."""

_AT_THE_DOOR = 20_000
"""Messages at the bot's bulk door beyond which none are added. More would only take memory, a text each, and could be
neither called back at once nor spared those who unsubscribe; at 30 a second these take eleven minutes."""

_SHARE = 0.9
"""Of QUEUE_MAX: broadcasts leave the rest to others, who would be refused."""

_LONGEST = 4096  # characters of a text, after parsing: Telegram's limit


class Status(StrEnum):
    """Where a broadcast is. SPREADING: some chats are not in the queue yet, though others may have been sent to."""

    SPREADING = "spreading"
    SENDING = "sending"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Progress:
    """How a broadcast goes on. `total` is the sum of the six counts after it. Times: Unix seconds.

    total: to subscribers it may change while they are collected. waiting: not ended, those in flight included.
    blocked: the chat cannot be reached (any more). failed: dead for another reason. cancelled: by `cancel`, or since
    the chat unsubscribed meanwhile. text: what is sent, as far as it is one.
    """

    id: str
    status: Status
    total: int
    waiting: int
    sent: int
    blocked: int
    failed: int
    cancelled: int
    expired: int
    created_at: float
    started_at: float
    finished_at: float | None
    text: str

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more, but by a replay of dead letters."""
        return not self.waiting and self.status in (Status.DONE, Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a broadcast's progress is shown: a chat, a message of ours in it, and what that says now."""

    chat: str
    message: int
    text: str | None = None


class Broadcasts:
    """Those of one bot, for all processes. queue_max: as the queue has it.

    Every method that asks the server raises QueueUnavailable.
    """

    def __init__(self, redis: "Redis", queue: Front, outbox: Outbox, bot: str, *, queue_max: int) -> None:
        self._redis = redis
        self._queue = queue
        self._outbox = outbox
        self._bot = bot
        self._queue_max = queue_max
        self._keys = Keys(QUEUE)
        self._changed = asyncio.Event()
        self._broadcast, self._spread, self._recall = Script("broadcast"), Script("spread"), Script("recall")

    def compose(self, text: object, *, method: object = None, kwargs: object = None) -> Message:
        """What is to be sent, to nobody yet. Raises MalformedMessage, whose text names the field."""
        message = self._outbox.compose("1", text, method=method, kwargs=kwargs, priority=Priority.BULK)
        body = message.body
        parsed = isinstance(kwargs, dict) and kwargs.get("parse_mode")
        if body.get("method", SEND_MESSAGE) == SEND_MESSAGE and not parsed and len(str(body.get("text"))) > _LONGEST:
            raise MalformedMessage(f"text is longer than the {_LONGEST} characters that Telegram takes")
        return message

    async def start(self, what: Message, chats: Sequence[str] | None = None, *, id: str | None = None) -> Progress:
        """Starts a broadcast to chats (canonical names; each gets it once) or, without any, to all subscribers.

        With an id that was given before, nothing is started: it is the progress of that one. Raises QueueFull, and has
        started nothing then.
        """
        id = new_id() if id is None else id
        element = _element(what, id)
        if chats is None:
            await self._step(id, "all", element)
        else:
            for begin in range(0, len(chats), _HANDED_IN):
                end = begin + _HANDED_IN
                await self._step(id, "chats" if end < len(chats) else "last", element, chats=chats[begin:end])
        return await self._surely(id)

    async def draft(self, what: Message, id: str) -> None:
        """Keeps a broadcast for an hour. A second time, under the same id, it changes what is not started."""
        await self._step(id, "draft", _element(what, id))

    async def start_draft(self, id: str, shown: Shown) -> Progress | None:
        """Starts what was kept, to all subscribers, unless it was before. None: it is not known. Raises QueueFull."""
        about = json.dumps({"chat": shown.chat, "message": shown.message})
        return await self._surely(id) if await self._step(id, "all", shown=about) else None

    async def cancel(self, id: str) -> Progress | None:
        """Stops a broadcast: what is not in flight is not sent; also drops a draft. None: there is none, or no more.

        Of one that is done nothing changes.
        """
        before = await self.progress(id)
        if before and before.status is Status.DONE:
            return before
        await self._run(self._recall, [id])
        self._changed.set()
        return await self.progress(id)

    async def progress(self, id: str) -> Progress | None:
        """How it goes on; None if it is not known."""
        with mapped_errors():
            fields = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(self._keys.broadcast(id)))
        if not fields or fields.get(b"status") == b"draft":
            return None
        progress = _progress(id, fields, await self._queue.group(id))
        if progress.waiting or progress.status is Status.SPREADING or progress.finished_at:
            return progress
        return await self._note_end(progress)

    async def latest(self, limit: int) -> Sequence[Progress]:
        """Those started last, the newest first."""
        with mapped_errors():
            ids = cast(list[bytes], await self._redis.zrevrange(self._keys.broadcasts(self._bot), 0, limit - 1))
        found = [await self.progress(id.decode()) for id in ids]
        return [progress for progress in found if progress]

    async def spread(self) -> int:
        """One step of what is not in the queue yet: how many chats it concerned; 0: nothing is left to do; -1: there is
        no room now. Any process may call it, all at once, too. Raises QueueFull."""
        args: list[str | bytes | int] = [self._bot, _AT_ONCE, _AT_THE_DOOR, int(_SHARE * self._queue_max)]
        return cast(int, await self._run(self._spread, args))

    async def is_any_left(self) -> bool:
        """Whether `spread` has anything to do: as good as never, and asked for a tenth of what that costs."""
        with mapped_errors():
            return bool(await self._redis.exists(self._keys.spreading(self._bot)))

    async def wait(self, timeout: float) -> bool:
        """Returns once this process has started or cancelled one, or after `timeout` seconds; whether it has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    async def running(self) -> Sequence[str]:
        """Ids of those that `forget_running` was not called for."""
        key = self._keys.running(self._bot)
        with mapped_errors():
            if not await self._redis.exists(key):  # as good as always, and redis-py takes its time for all else
                return []
            ids = await cast(Awaitable[set[bytes]], self._redis.smembers(key))
        return sorted(id.decode() for id in ids)

    async def forget_running(self, id: str) -> None:
        """There is nothing more to be done about it."""
        with mapped_errors():
            await self._redis.srem(self._keys.running(self._bot), id)

    async def shown(self, id: str) -> Shown | None:
        """Where its progress is shown; None: nowhere."""
        with mapped_errors():
            kept = self._redis.hmget(self._keys.broadcast(id), ["shown", "shown_text"])
            where, text = await cast(Awaitable[list[bytes | None]], kept)
        if not where:
            return None
        about = json.loads(where)
        return Shown(about["chat"], about["message"], text.decode() if text else None)

    async def note_shown(self, id: str, text: str) -> None:
        """What it says there now."""
        await self._keep(id, "shown_text", text)

    async def _note_end(self, progress: Progress) -> Progress:
        await self._keep(progress.id, "finished_at", str(round(time.time() * 1000)), once=True)
        with mapped_errors():
            found = self._redis.hget(self._keys.broadcast(progress.id), "finished_at")
            at = await cast(Awaitable[bytes | None], found)
        return replace(progress, finished_at=int(at or 0) / 1000)

    async def _keep(self, id: str, field: str, value: str, *, once: bool = False) -> None:
        with mapped_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                (pipeline.hsetnx if once else pipeline.hset)(self._keys.broadcast(id), field, value)
                pipeline.expire(self._keys.broadcast(id), KEPT_SECONDS)
                await pipeline.execute()

    async def _surely(self, id: str) -> Progress:
        self._changed.set()
        progress = await self.progress(id)
        assert progress, "it was started a moment ago, and is kept for 30 days"
        return progress

    async def _step(
        self, id: str, step: str, element: bytes = b"", shown: str = "", chats: Sequence[str] = ()
    ) -> bytes:
        status = await self._run(self._broadcast, [id, self._bot, element, shown, step, self._queue_max, *chats])
        return cast(bytes, status)

    async def _run(self, script: Script, args: Sequence[str | bytes | int]) -> Any:
        return await script.run(self._redis, QUEUE, args)


def _element(what: Message, id: str) -> bytes:
    """What stands in the list for each chat, from behind the brace on and without its id and chat."""
    fields = json.loads(encode(what.changed(group=id)))
    del fields["id"], fields["chat_id"]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[1:]


def _progress(id: str, fields: Mapping[bytes, bytes], group: Mapping[str, int]) -> Progress:
    total, kept = int(fields[b"total"]), fields[b"status"].decode()
    dead = {name.removeprefix("dead:"): count for name, count in group.items() if name.startswith("dead:")}
    blocked = sum(count for reason, count in dead.items() if reason in UNREACHABLE)
    sent, expired = group.get("sent", 0), group.get("expired", 0)
    failed = sum(dead.values()) - blocked
    cancelled = group.get("cancelled", 0) + int(fields.get(b"recalled", 0))
    # A dead letter that is replayed ends a second time.
    waiting = max(0, total - sent - blocked - failed - cancelled - expired)
    status = Status.SPREADING if kept == "gathering" else Status(kept)
    if status is Status.SENDING and not waiting:
        status = Status.DONE
    return Progress(
        id=id,
        status=status,
        total=total,
        waiting=waiting,
        sent=sent,
        blocked=blocked,
        failed=failed,
        cancelled=cancelled,
        expired=expired,
        created_at=int(fields[b"created_at"]) / 1000,
        started_at=int(fields[b"started_at"]) / 1000,
        finished_at=int(fields[b"finished_at"]) / 1000 if b"finished_at" in fields else None,
        text=_text(fields[b"element"]),
    )


def _text(element: bytes) -> str:
    content = json.loads(b"{" + element)
    text = content.get("text") or (content.get("kwargs") or {}).get("caption") or ""
    return str(text)
