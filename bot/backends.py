"""Where a process keeps what others have to know: in Redis or, without it, within itself. The choice is made here."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from bot.file_store import DiskFiles, RedisFiles
from bot.files import Files
from bot.idempotency import FirstBodies, MemoryFirstBodies, RedisFirstBodies
from bot.identity import own_get_me, shared_get_me
from bot.leadership import FileSeat, RedisSeat, Seat
from bot.line import Line, MemoryLine, RedisLine
from bot.queued_bot import GetMeCache
from bot.runner import AT_ONCE
from bot.settings import Settings
from bot.store import connect, leader_key
from bot.subscribers import Subscribers
from bot.turns import Turns
from queueing.redis_inbox import RedisInbox

_FILES = Path(".telequeue/files")
"""Where, below the working directory, processes without Redis keep the files that are to be sent."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What there is with the shared queue only. redis: the client of all that bot/store.py names."""

    redis: Redis
    subscribers: Subscribers
    inbox: RedisInbox


@dataclass(frozen=True, slots=True)
class Backends:
    """shared: None without the shared queue. The rest is there either way."""

    files: Files
    first_bodies: FirstBodies
    get_me: GetMeCache
    line: Line
    seat: Seat
    shared: Shared | None = None


def make_backends(settings: Settings, bot_id: str, turns: Turns) -> Backends:
    return _shared(settings, bot_id, turns) if settings.use_redis_queue else _own(settings, bot_id)


def _shared(settings: Settings, bot_id: str, turns: Turns) -> Backends:
    redis = connect(settings.redis_dsn, settings.redis_timeout)
    inbox = RedisInbox(
        settings.redis_dsn,
        bot_id,
        workers=AT_ONCE,
        lease_seconds=settings.lease_seconds,
        updates_max=settings.updates_max,
        timeout=settings.redis_timeout,
        looks=turns.updates.look,
        slots=turns.updates.slots,
    )
    return Backends(
        Files(RedisFiles(redis)),
        RedisFirstBodies(redis, settings.status_ttl),
        shared_get_me(redis, bot_id),
        RedisLine(redis, bot_id),
        RedisSeat(redis, leader_key(bot_id)),
        Shared(redis, Subscribers(redis, bot_id), inbox),
    )


def _own(settings: Settings, bot_id: str) -> Backends:
    return Backends(
        Files(DiskFiles(_FILES)),
        MemoryFirstBodies(settings.status_ttl),
        own_get_me(),
        MemoryLine(),
        FileSeat(Path(tempfile.gettempdir()) / f"telequeue-{os.getuid()}-{bot_id}.lock"),
    )
