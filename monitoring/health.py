"""Whether this process is alive, and whether it can work.

*Live* means that the event loop answers; whoever finds it wanting should restart the process.

*Ready* means that the process can take an update or a message and do something about it:

queue:   its server answers now, and is one that the queue can work with (ServerWatch).
bot:     it is known who the bot is (getMe answered once, to this process or to another that shares Redis).
workers: all coroutines run, the queue was asked for work within the lease time, and work is being taken: messages that
         could leave, none in any hand and none confirmed for ten seconds, is a queue that stands still.

A Telegram outage alone makes no process unready, once the bot is known: the queue goes on taking messages, and taking
all processes out of rotation would lose updates and help nobody.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from monitoring.server_watch import ServerWatch
from monitoring.snapshot import Snapshot
from queueing.contract import QueueStats
from queueing.turns import shared
from queueing.worker import Worker

OK = "ok"

_STANDSTILL = 10.0
"""Seconds without progress, with work due, after which the workers count as stuck."""

_PROCESSED, _MOVED, _LOOKED = range(3)
"""Of what moves: how many had been processed, when it moved last, and when somebody looked last."""


@dataclass(frozen=True, slots=True)
class Report:
    """checks: what was looked at → "ok", or what is wrong with it in words. warnings: what is weaker than it could be;
    None: nobody asked. backlog: of each queue, what is in it."""

    checks: Mapping[str, str]
    warnings: Sequence[str] | None = None
    backlog: Mapping[str, int] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        return all(finding == OK for finding in self.checks.values())

    def as_json(self) -> dict[str, object]:
        """{"status": "ok" | "failing", "checks": {name: "ok" | words}, "backlog"?: {queue: number of messages in it},
        "warnings"?: [words]}"""
        report: dict[str, object] = {"status": OK if self.healthy else "failing", "checks": dict(self.checks)}
        if self.backlog:
            report["backlog"] = dict(self.backlog)
        return report if self.warnings is None else report | {"warnings": list(self.warnings)}


class Moves:
    """Whether a queue moves. Made before a fork it is of all processes, and what one of them sees they all know."""

    def __init__(self) -> None:
        self._page = shared(3)
        self._page[_PROCESSED] = -1

    def look(self, stats: QueueStats) -> None:
        page, now = self._page, time.monotonic()
        # Nobody looked for a while: the server did not answer.
        is_unknown = now - page[_LOOKED] > _STANDSTILL
        if is_unknown or not _due(stats) or stats.inflight > 0 or stats.processed != page[_PROCESSED]:
            page[_MOVED] = now
        page[_PROCESSED], page[_LOOKED] = stats.processed, now

    @property
    def stands_still(self) -> bool:
        moved, looked = self._page[_MOVED], self._page[_LOOKED]
        return looked - moved > _STANDSTILL


class Health:
    """Answers for one process.

    workers: of each of its queues. bot_problem: why it is not known who the bot is, in words; None when it is.
    updates: of the queue of updates, if there is one.
    moves: of the queues that processes share, by name: "updates", or what the backend is called. Others have their own.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        workers: Sequence[Worker],
        server: ServerWatch,
        bot_problem: Callable[[], str | None],
        updates: Snapshot | None = None,
        moves: Mapping[str, Moves] | None = None,
    ) -> None:
        self._updates = updates
        self._server = server
        self._snapshot = snapshot
        self._workers = workers
        self._bot_problem = bot_problem
        self._moves = dict(moves or {})

    def live(self) -> Report:
        return Report({"event_loop": OK})

    async def ready(self) -> Report:
        stats = await self.watch()
        return Report(
            {
                "queue": self._queue_problem(stats) or OK,
                "bot": self._bot_problem() or OK,
                "workers": self._workers_problem() or OK,
            }
        )

    async def whole(self) -> Report:
        """Alive, ready, and what is to be put right some time."""
        checks = {**self.live().checks, **(await self.ready()).checks}
        return Report(checks, warnings=self._server.warnings, backlog=await self._backlog())

    async def _backlog(self) -> Mapping[str, int]:
        asked = {"messages": self._snapshot, "updates": self._updates}
        found = {name: await snapshot.read() for name, snapshot in asked.items() if snapshot}
        return {name: stats.depth for name, stats in found.items() if stats}

    async def watch(self) -> QueueStats | None:
        """Looks at whether the queues move; to be called every few seconds, so that a standstill is noticed, by one of
        the processes that share `moves`. None: the queue's server does not answer."""
        stats = await self._snapshot.read()
        if stats:
            for name, part in (stats.parts or {self._snapshot.backend: stats}).items():
                self._moves.setdefault(name, Moves()).look(part)
            if self._updates and (updates := await self._updates.read()):
                self._moves.setdefault("updates", Moves()).look(updates)
        return stats

    def _queue_problem(self, stats: QueueStats | None) -> str | None:
        if self._server.problem or (stats and all(worker.available for worker in self._workers)):
            return self._server.problem
        return "the queue's server (Redis) does not answer"

    def _workers_problem(self) -> str | None:
        if not all(worker.running for worker in self._workers):
            return "worker coroutines have ended"
        if min(worker.remaining for worker in self._workers) <= 0:
            return "the queue was not asked for work within the lease time"
        if any(moves.stands_still for moves in self._moves.values()):
            return f"work is due, but nothing was taken for {_STANDSTILL:.0f} s"
        return None


def _due(stats: QueueStats) -> bool:
    """Whether something surely could leave now. With many lanes waiting for a time, `ready` is only an estimate."""
    return stats.ready > 0 and stats.waiting == 0
