"""SplitQueue: two queues as one, each chat in one of them, for a gradual change from the one to the other.

Which one says a hash of bot and chat alone, so all processes agree, and a larger share only ever moves chats into the
shared queue. Each queue has its own part of a bot's budget (`divide`), and holds it by itself.
"""

import asyncio
import contextlib
import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from queueing.contract import (
    DeadLetter,
    DeadPage,
    Finding,
    Front,
    MessageStatus,
    Pause,
    ProcessStats,
    QueueStats,
    Waiting,
)
from queueing.errors import QueueUnavailable
from queueing.limits import Rate
from queueing.message import Message, MessageState

_BESIDES = 0.005
"""Seconds for which the shared queue may say whether it knows other tokens than `own`: what `own` grants has to be
written within limits.WRITE_AT_ONCE, whether or not the shared queue's server answers."""


def is_in_share(bot: str, chat: str, percent: int) -> bool:
    """Whether a chat, by its canonical name, is one of `percent` % of them."""
    digest = hashlib.blake2b(f"{bot}:{chat}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100 < percent


def divide(count: int, percent: int) -> tuple[int, int]:
    """Two parts of a number, about `percent` % and the rest, of at least one each. Raises ValueError below 2."""
    if count < 2:
        raise ValueError(f"{count} cannot be divided")
    part = min(max(1, round(count * percent / 100)), count - 1)
    return part, count - part


def divide_rate(rate: Rate, percent: int) -> tuple[Rate, Rate]:
    """The same of what may leave. The period stays: whenever the two windows begin, both together hold the whole."""
    if not rate.count:
        return rate, rate
    part, rest = divide(rate.count, percent)
    return replace(rate, count=part), replace(rate, count=rest)


class SplitQueue:
    """See queueing.contract.Front. shared: for `percent` % of the chats of each bot; own: for the others.

    A verb asks both, `own` first, which is at hand. What is known of one message (dedup key, status, dead letter) is
    known where it is, and stays there when the share is changed. So a message whose parent the other queue takes, which
    is of another chat, dies: its parent is not known.
    """

    backend = "split"

    def __init__(self, shared: Front, own: Front, percent: int) -> None:
        self._shared = shared
        self._own = own
        self._both = (own, shared)
        self._percent = percent

    def backend_of(self, message: Message) -> str:
        """Which of them takes it."""
        return self._of(message).backend

    def _of(self, message: Message) -> Front:
        return self._shared if is_in_share(message.bot, message.chat, self._percent) else self._own

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """As the contract says, but for one case: if `own` is full, `shared` has taken its part already."""
        parts: dict[Front, list[Message]] = {self._shared: [], self._own: []}
        for message in messages:
            parts[self._of(message)].append(message)
        # The one that may be away comes first: if it is, nothing is taken.
        for queue, other in ((self._shared, self._own), (self._own, self._shared)):
            part = [message for message in parts[queue] if not await _is_second(message, other)]
            if part:
                await queue.enqueue(part)

    async def register(self, bot: str, credential: str) -> None:
        for queue in self._both:
            await queue.register(bot, credential)

    async def offer(self, bot: str, credential: str) -> None:
        for queue in self._both:
            await queue.offer(bot, credential)

    async def proven(self, bot: str) -> bool:
        return await self._own.proven(bot) or await self._shared.proven(bot)

    async def credentials(self, bot: str) -> Sequence[str]:
        own = await self._own.credentials(bot)
        if not own:
            return await self._shared.credentials(bot)
        shared: Sequence[str] = ()
        with contextlib.suppress(QueueUnavailable, TimeoutError):
            async with asyncio.timeout(_BESIDES):
                shared = await self._shared.credentials(bot)
        return list(dict.fromkeys([*own, *shared]))

    async def status(self, id: str) -> MessageStatus | None:
        return await self._own.status(id) or await self._shared.status(id)

    def hear_ends(self, told: Callable[[str], None]) -> None:
        for queue in self._both:
            queue.hear_ends(told)

    async def group(self, name: str) -> Mapping[str, int]:
        counts = Counter(await self._own.group(name))
        counts.update(await self._shared.group(name))
        return counts

    async def cancel_group(self, name: str) -> None:
        for queue in self._both:
            await queue.cancel_group(name)

    async def stats(self) -> QueueStats:
        own, shared = await self._own.stats(), await self._shared.stats()
        ages = [age for age in (own.oldest_age, shared.oldest_age) if age is not None]
        return QueueStats(
            ready=own.ready + shared.ready,
            waiting=own.waiting + shared.waiting,
            scheduled=own.scheduled + shared.scheduled,
            inflight=own.inflight + shared.inflight,
            dead=own.dead + shared.dead,
            oldest_age=max(ages, default=None),
            processed=own.processed + shared.processed,
            processes=_merged(shared.processes, own.processes),
            parts={self._shared.backend: shared, self._own.backend: own},
        )

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return (await self.dead_page(limit)).letters

    async def check(self) -> Sequence[Finding]:
        return await self._shared.check()

    async def dead_page(self, limit: int, before: str | None = None) -> DeadPage:
        """`next` names the last letter of each, with a comma between."""
        last = _names(before)
        pages = [await queue.dead_page(limit, name) for queue, name in zip(self._both, last, strict=True)]
        tagged = ([(letter, number) for letter in page.letters] for number, page in enumerate(pages))
        newest = list(heapq.merge(*tagged, key=lambda one: -one[0].died_at))
        for letter, number in newest[:limit]:
            last[number] = f"{letter.died_at * 1000:.0f}:{letter.id}"
        more = len(newest) > limit or any(page.next for page in pages)
        return DeadPage(
            [letter for letter, _ in newest[:limit]], ",".join(name or "" for name in last) if more else None
        )

    async def dead_letter(self, id: str) -> DeadLetter | None:
        return await self._own.dead_letter(id) or await self._shared.dead_letter(id)

    async def redrive(self, ids: Sequence[str], *, head: bool = False) -> int:
        return sum([await queue.redrive(ids, head=head) for queue in self._both])

    async def redrive_all(self, *, head: bool = False) -> int:
        return sum([await queue.redrive_all(head=head) for queue in self._both])

    async def drop(self, ids: Sequence[str]) -> int:
        return sum([await queue.drop(ids) for queue in self._both])

    async def drop_all(self) -> int:
        return sum([await queue.drop_all() for queue in self._both])

    async def trim(self) -> int:
        return sum([await queue.trim() for queue in self._both])

    async def pause(self, bot: str | None = None, chat: str | None = None, reason: str = "") -> None:
        for queue in self._both:
            await queue.pause(bot, chat, reason)

    async def resume(self, bot: str | None = None, chat: str | None = None) -> None:
        for queue in self._both:
            await queue.resume(bot, chat)

    async def paused(self, limit: int = 1000) -> Sequence[Pause]:
        """What a person paused is paused in both, and told once."""
        found: dict[tuple[str | None, str | None, bool], Pause] = {}
        for queue in self._both:
            for pause in await queue.paused(limit):
                found[pause.bot, pause.chat, pause.since is not None] = pause
        return list(found.values())[:limit]

    async def cancel(self, id: str) -> MessageState | None:
        return await self._own.cancel(id) or await self._shared.cancel(id)

    async def why(self, id: str) -> Waiting | None:
        # One that waits no more in `own` is not asked for elsewhere: the shared queue's server may be away.
        return await (self._own if await self._own.status(id) else self._shared).why(id)

    async def first_with(self, bot: str, dedup_key: str) -> str | None:
        return await self._own.first_with(bot, dedup_key) or await self._shared.first_with(bot, dedup_key)


def _names(before: str | None) -> list[str | None]:
    """Of a page's `next`: the names of the last letters, in the order of the queues."""
    if before is None:
        return [None, None]
    own, comma, shared = before.partition(",")
    if not comma:
        raise ValueError("before must be `next` of an earlier page")
    return [own or None, shared or None]


async def _is_second(message: Message, other: Front) -> bool:
    """Whether the queue that does not take it has taken another with its dedup key."""
    return message.dedup_key is not None and await other.first_with(message.bot, message.dedup_key) is not None


def _merged(shared: Iterable[ProcessStats], own: Iterable[ProcessStats]) -> list[ProcessStats]:
    """The processes that the shared queue knows; what one does for its own is told by that one alone."""
    here = {process.pid: process for process in own}
    return [
        replace(process, inflight=process.inflight + other.inflight, sent=process.sent + other.sent)
        if (other := here.get(process.pid))
        else process
        for process in shared
    ]
