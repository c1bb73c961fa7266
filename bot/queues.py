"""The queues of a process, from the settings: the shared one, its own, or both, each with its part of what there is to
divide: chats, the bot's budget, and the worker coroutines."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bot.settings import Settings
from bot.turns import Turns
from queueing.contract import Front, Queue
from queueing.limits import Rate, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.shared_budget import SharedBudget, share
from queueing.split_queue import SplitQueue, divide, divide_rate

_UNSENT = Path(".telequeue/unsent")
"""Where, below the working directory, a queue within a process keeps what it did not send: a directory for each bot,
and in it one for each division of the chats between it and the shared queue."""


@dataclass(frozen=True, slots=True)
class Part:
    """A queue, and how many coroutines of the process serve it."""

    queue: Queue
    workers: int


@dataclass(frozen=True, slots=True)
class Queues:
    """front: what takes messages, and knows of all of them. own: the queue within this process, if there is one."""

    front: Front
    parts: Sequence[Part]
    own: Queue | None

    def backend_of(self, message: Message) -> str:
        """Of the queue that takes it."""
        return self.front.backend_of(message) if isinstance(self.front, SplitQueue) else self.front.backend


def make_queues(settings: Settings, bot_id: str, turns: Turns) -> Queues:
    percent = settings.shared_percent
    if percent == 100:
        shared = _redis_queue(settings, bot_id, settings.limits, turns)
        return Queues(shared, [Part(shared, settings.queue_workers)], own=None)
    if percent == 0:
        own = _memory_queue(settings, bot_id, settings.limits, settings.queue_workers)
        return Queues(own, [Part(own, settings.queue_workers)], own)
    shared_limits, own_limits = _divide_limits(settings.limits, percent)
    shared_workers, own_workers = divide(settings.queue_workers, percent)
    shared = _redis_queue(settings, bot_id, shared_limits, turns)
    own = _memory_queue(settings, bot_id, own_limits, own_workers)
    return Queues(SplitQueue(shared, own, percent), [Part(shared, shared_workers), Part(own, own_workers)], own)


def left_by_others(settings: Settings, bot_id: str) -> Iterable[Path]:
    """Where processes that divided the chats in another way left what was unsent."""
    mine = _unsent(settings, bot_id)
    base = _UNSENT / bot_id
    if not base.is_dir():  # as almost always; it is asked every second
        return []
    return [path for path in (base, *sorted(base.glob("percent-*"))) if path != mine]


def _unsent(settings: Settings, bot_id: str) -> Path | None:
    """Where this process leaves it."""
    percent, base = settings.shared_percent, _UNSENT / bot_id
    return None if percent == 100 else base if percent == 0 else base / f"percent-{percent}"


def _divide_limits(limits: RateLimits, percent: int) -> tuple[RateLimits, RateLimits]:
    (bot, own_bot), (paid, own_paid) = divide_rate(limits.bot, percent), divide_rate(limits.paid, percent)
    return replace(limits, bot=bot, paid=paid), replace(limits, bot=own_bot, paid=own_paid)


def _redis_queue(settings: Settings, bot_id: str, limits: RateLimits, turns: Turns) -> RedisQueue:
    """It tells of all workers of the process, since the process tells of nothing else."""
    return RedisQueue(
        settings.redis_dsn,
        workers=settings.queue_workers,
        lease_seconds=settings.lease_seconds,
        status_ttl=settings.status_ttl,
        queue_max=settings.queue_max,
        default_bot=bot_id,
        limits=limits,
        ttl=settings.message_ttl,
        uncertain=settings.uncertain_sends,
        timeout=settings.redis_timeout,
        looks=turns.messages.look,
        slots=turns.messages.slots,
    )


def _memory_queue(settings: Settings, bot_id: str, limits: RateLimits, workers: int) -> MemoryQueue:
    """Its share of the bot's budget, which all processes of this machine together do not exceed."""
    processes = settings.web_concurrency
    return MemoryQueue(
        workers=workers,
        status_ttl=settings.status_ttl,
        queue_max=settings.queue_max,
        ttl=settings.message_ttl,
        limits=replace(limits, bot=share(limits.bot, processes), paid=share(limits.paid, processes)),
        budget=_together("", limits.bot),
        paid_budget=_together("-paid", limits.paid),
        journal=_unsent(settings, bot_id),
    )


def _together(name: str, rate: Rate) -> SharedBudget | None:
    prefix = Path(tempfile.gettempdir()) / f"telequeue-{os.getuid()}{name}"
    return SharedBudget(prefix, rate) if rate.count else None
