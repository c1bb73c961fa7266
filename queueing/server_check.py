"""What a server must have for the queue to keep its promises, and what it means where it has not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from queueing.contract import Finding

_OLDEST = (7, 0)
_UNKNOWN = "could not be checked, since the server does not tell"
_EVERYSEC = "a power failure, or a crash of the machine, loses up to 2 s of messages"
_FSYNC = {
    "everysec": f"appendfsync is everysec: {_EVERYSEC}; the end of the server alone, kill -9 too, loses none",
    "no": "appendfsync is no: a power failure, or a crash of the machine, loses what was not written to disk yet, "
    "typically 30 s of messages. Set everysec or always",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself, in its words; None: it does not say.

    mode:          `standalone`, `cluster` or `sentinel`.
    role:          `master` or `slave`.
    policy:        maxmemory-policy.
    aof:           whether each write goes to a file (appendonly).
    fsync:         when that file is forced to disk (appendfsync).
    cluster_state: `ok` or `fail`.
    """

    version: str | None = None
    mode: str | None = None
    role: str | None = None
    policy: str | None = None
    aof: bool | None = None
    fsync: str | None = None
    cluster_state: str | None = None


def judge(facts: Facts, *, as_cluster: bool = False) -> Sequence[Finding]:
    """What is to be said of a server, the worst first. as_cluster: the URL names it as a node of a cluster."""
    if facts.mode == "sentinel":
        return [_fatal("this is a Sentinel, no server: REDIS_URL=redis+sentinel://host,host/service finds the server")]
    found = [_version(facts), _role(facts), _cluster(facts, as_cluster=as_cluster), _policy(facts), _file(facts)]
    return sorted((finding for finding in found if finding), key=lambda finding: not finding.fatal)


async def ask(redis: "Redis") -> Facts:
    """Asks the server that the client leads to, as far as it may be asked. Raises redis's errors when it is away."""
    info: Mapping[str, Any] = await _allowed(redis.info()) or {}
    aof = _flag(info, "aof_enabled")
    config: Mapping[str, str] = (await _allowed(redis.config_get("appendfsync")) if aof else None) or {}
    cluster = await _allowed(_cluster_info(redis)) if _flag(info, "cluster_enabled") else None
    return Facts(
        version=_word(info, "redis_version"),
        mode=_word(info, "redis_mode") or _word(info, "server_mode"),  # Valkey 8 has its own word
        role=_word(info, "role"),
        policy=_word(info, "maxmemory_policy"),
        aof=aof,
        fsync=_word(config, "appendfsync"),
        cluster_state=cluster,
    )


async def _allowed(question: Any) -> Any:
    """The answer; None where the server forbids the question, or does not know it, as managed ones do."""
    try:
        return await question
    except ResponseError as error:
        if isinstance(error, NoPermissionError) or "unknown" in str(error):
            return None
        raise


async def _cluster_info(redis: "Redis") -> str | None:
    answer: bytes = await redis.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    found = re.search(rb"cluster_state:(\w+)", answer)
    return found[1].decode() if found else None


def _word(answer: Mapping[str, Any], name: str) -> str | None:
    # redis-py makes numbers of what looks like one, and bytes of names it was not told to decode
    value = answer.get(name)
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


def _flag(info: Mapping[str, Any], name: str) -> bool | None:
    return info[name] in (1, "1") if name in info else None


def _fatal(words: str) -> Finding:
    return Finding(words, fatal=True)


def _version(facts: Facts) -> Finding | None:
    numbers = re.findall(r"\d+", facts.version or "")
    if not numbers:
        return Finding(f"the server's version {_UNKNOWN}: older than 7.0, it knows none of the scripts")
    if tuple(map(int, (*numbers, "0")[:2])) >= _OLDEST:
        return None
    return _fatal(
        f"the server is {facts.version}, and older than 7.0: it does not run the scripts, nothing can be sent"
    )


def _role(facts: Facts) -> Finding | None:
    if facts.role == "slave":
        return _fatal(
            "the server is a replica and refuses every write: nothing can be taken or sent. Name its primary in "
            "REDIS_URL, or the Sentinels or the cluster that know it"
        )
    return None


def _cluster(facts: Facts, *, as_cluster: bool) -> Finding | None:
    if facts.cluster_state == "fail":
        return _fatal("the cluster is down (cluster_state:fail): it answers nothing until its slots are served again")
    if facts.mode == "cluster" and not as_cluster:
        return Finding(
            "the server is a node of a cluster, and REDIS_URL does not say so: after a failover, or when the queue's "
            "slot moves, nothing is sent. Write redis+cluster://"
        )
    return None


def _policy(facts: Facts) -> Finding | None:
    if facts.policy == "noeviction":
        return None
    if facts.policy is None:
        return Finding(f"maxmemory-policy {_UNKNOWN}: any but noeviction drops messages when memory is short")
    return Finding(
        f"maxmemory-policy is {facts.policy}: THE SERVER DROPS MESSAGES, silently, when its memory is short. Set "
        "maxmemory-policy noeviction, and new ones are refused instead"
    )


def _file(facts: Facts) -> Finding | None:
    if facts.aof is None:
        return Finding(f"appendonly {_UNKNOWN}: without it, a restart of the server loses messages")
    if not facts.aof:
        return Finding(
            "appendonly is no: a restart of the server loses what came since its last snapshot, or everything if it "
            "makes none. Set appendonly yes"
        )
    if facts.fsync == "always":
        return None
    return Finding(_FSYNC.get(facts.fsync or "", f"appendfsync {_UNKNOWN}: {_EVERYSEC} with everysec, more with no"))
