"""Which keys may stay for ever: those that the data model in queueing/keys.py says have no TTL."""

import re
from collections.abc import Iterable

import redis

from queueing import keys

FRONT = "telegram_messages"
_TAG = re.escape(f"{{{FRONT}}}:")


def documented(table: str) -> Iterable[tuple[re.Pattern[str], bool]]:
    """The rows of the data model: a pattern of the key, and whether it has a TTL."""
    for name, ttl in re.findall(r"^\| (\S+) +\|.*\| (no|yes)", table, re.MULTILINE):
        pattern = re.escape(name.replace("Q", FRONT))
        pattern = pattern.replace("CHAT", ".*")  # a message may be for no chat
        yield re.compile(re.sub("BOT|PROCESS|ID|NAME|SCOPE|(?<=:)P(?=:)", ".+", pattern)), ttl == "yes"


_QUEUES = rf"{_TAG}(?:updates:(?:\d+:)?)?"
"""That of messages, and those of updates, which are of the same kind."""

PERMANENT = [
    re.compile(pattern.pattern.replace(_TAG, _QUEUES))
    for pattern, has_ttl in documented(keys.__doc__ or "")
    if not has_ttl
] + [re.compile(rf"{_TAG}updates:\d+")]


def leaked(url: str) -> list[str]:
    """Keys of a server that would stay for ever and are not known to."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        found = list(client.scan_iter(count=1000))
        with client.pipeline(transaction=False) as pipeline:
            for key in found:
                pipeline.ttl(key)
            ttls = pipeline.execute()
    # -1: no TTL; -2: it expired between the two looks.
    return [
        key
        for key, ttl in zip(found, ttls, strict=True)
        if ttl == -1 and not any(pattern.fullmatch(key) for pattern in PERMANENT)
    ]
