"""Who takes part, and under which conditions. What each does is in contenders/."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entrant:
    """name:       as the tables have it.
    module:     in tests.benchmarks.contenders.
    conditions: in which form it runs, and why that is its best.
    package:    whose version is told beside it.
    needs:      the module of the library that it needs; where that is not installed, it is left out.
    environ:    what it is told besides what all are.
    together:   `work` starts all processes itself.
    direct:     it has no queue; its processes are told what to send.
    crash_safe: what a process holds when it dies is handled by another.
    counts:     it is also run without sending: not where it could not, nor where others are ten times as fast.
    waits:      it is also measured with a stand-in that takes 50 ms, and message by message.
    warm_up:    messages before anything is measured.
    most:       messages of a round at most.
    """

    name: str
    module: str
    conditions: str
    package: str = ""
    needs: str = "telegram"
    environ: Mapping[str, str] = field(default_factory=dict)
    together: bool = False
    direct: bool = False
    crash_safe: bool = False
    counts: bool = True
    waits: bool = False
    warm_up: int = 300
    most: int = 30_000

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", f"tests.benchmarks.contenders.{self.module}", *words]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


TELEQUEUE = Entrant(
    "telequeue",
    "telequeue",
    "gunicorn with its own configuration; limits so high that no window is full, every log written",
    together=True,
    crash_safe=True,
    waits=True,
)
PTB_AIOHTTP = Entrant(
    "PTB over aiohttp, no queue",
    "ptb",
    "a BaseRequest over aiohttp of the benchmark's own: one pool without a limit, JSON bodies, orjson; uvloop",
    environ={"TRANSPORT": "aiohttp"},
    direct=True,
    counts=False,
)
PTB_HTTPX = Entrant(
    "PTB over httpx, no queue",
    "ptb",
    "PTB's default transport, its Bot made once; sniffio installed; uvloop",
    direct=True,
    counts=False,
)
RPUSH = Entrant(
    "RPUSH/BLPOP, PTB over httpx",
    "rpush",
    "each coroutine has its own BLPOP; Bot cached by token; uvloop, hiredis, orjson",
    waits=True,
)
RPUSH_AIOHTTP = Entrant(
    "RPUSH/BLPOP, PTB over aiohttp",
    "rpush",
    "the same, over aiohttp",
    environ={"TRANSPORT": "aiohttp"},
    counts=False,
)
RPUSH_NEW_BOT = Entrant(
    "RPUSH/BLPOP, a new Bot each",
    "rpush",
    "the same over httpx, but the Bot is made anew for every message",
    environ={"NEW_BOT": "1"},
    counts=False,
    warm_up=20,
    most=60,
)

# More of what these are told, and why, and what becomes of a message whose process dies, stands in their modules.
TASKIQ_LIST = Entrant(
    "taskiq, list",
    "taskiq_list",
    "ListQueueBroker, no result backend, JSONFormatter, ten fetched ahead; its receiver on uvloop",
    package="taskiq",
    needs="taskiq_redis",
    waits=True,
)
TASKIQ_STREAMS = Entrant(
    "taskiq, streams",
    "taskiq_streams",
    "RedisStreamBroker, no result backend, JSONFormatter, XREADGROUP of 20; its receiver on uvloop",
    package="taskiq-redis",
    needs="taskiq_redis",
    crash_safe=True,
)
SAQ = Entrant(
    "saq",
    "saq",
    "its worker on uvloop; orjson, nothing kept of a job that is done, three tries",
    package="saq",
    needs="saq",
    crash_safe=True,
    waits=True,
)
STREAQ = Entrant(
    "streaq",
    "streaq",
    "its worker on uvloop; 40 fetched ahead, no results, no time limit",
    package="streaq",
    needs="streaq",
    crash_safe=True,
    waits=True,
)
CELERY = Entrant(
    "celery",
    "celery",
    "ten threads, each with a loop and a Bot; acks_late; no results, events, gossip, mingle, heartbeat, remote control",
    package="celery",
    needs="celery",
    crash_safe=True,
    waits=True,
    counts=False,
)
DRAMATIQ = Entrant(
    "dramatiq",
    "dramatiq",
    "ten threads, each with a loop and a Bot; 40 fetched ahead, orjson, a look every 10 ms",
    package="dramatiq",
    needs="dramatiq",
    crash_safe=True,
)
ARQ = Entrant(
    "arq",
    "arq",
    "its worker on uvloop; a poll every 10 ms, no results",
    package="arq",
    needs="arq",
    crash_safe=True,
    counts=False,
)
RQ = Entrant(
    "rq", "rq", "SimpleWorker (no fork), one message at a time; no results", package="rq", needs="rq", counts=False
)

ENTRANTS = (
    TELEQUEUE,
    PTB_AIOHTTP,
    PTB_HTTPX,
    RPUSH,
    RPUSH_AIOHTTP,
    RPUSH_NEW_BOT,
    TASKIQ_LIST,
    TASKIQ_STREAMS,
    SAQ,
    STREAQ,
    CELERY,
    DRAMATIQ,
    ARQ,
    RQ,
)
