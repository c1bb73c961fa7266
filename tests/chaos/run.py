"""One run: pushes what the plan says, breaks what it says, waits for an empty queue, and asks what became of it."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from queueing.errors import QueueUnavailable
from tests.chaos.arena import Arena, arena
from tests.chaos.audit import Hit, Report, Span, audit
from tests.chaos.plan import BOTS, Kind, Load, Plan, Trouble, draw
from tests.conftest import wait_until

MAX_ATTEMPTS = 100
"""Enough that no message dies of the faults alone: what is dead then is a finding."""

_FAULTS: dict[Kind, dict[str, object]] = {
    "error": {"kind": "error", "probability": 0.3},
    "outage": {"kind": "error"},
    "hang": {"kind": "hang", "probability": 0.05},
    "reset_before": {"kind": "reset_before", "probability": 0.2},
    "reset_after": {"kind": "reset_after", "probability": 0.1},
    "flood_chat": {"kind": "flood", "probability": 0.05, "retry_after": 2},
    "flood_bot": {"kind": "flood", "scope": "bot", "count": 1, "retry_after": 3},
}
_EMPTY_WITHIN = 120.0


class Run:
    """The state of a run: who was hit and when, by CLOCK_MONOTONIC."""

    def __init__(self, place: Arena, plan: Plan) -> None:
        self._place = place
        self._plan = plan
        self._pids: dict[int, str] = {}
        self._victims: set[int] = set()
        # A producer does not push while the server dies: it could not know whether its push was taken.
        self._server_is_up = asyncio.Lock()
        self._away: list[Span] = []
        self._hits: list[Hit] = []
        self._takeovers: list[Span] = []
        self._started = 0.0

    async def go(self) -> Report:
        watch = asyncio.create_task(self._watch())
        self._started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._push())
            for trouble in self._plan.troubles:
                group.create_task(self._strike(trouble))
        await self._place.ask("DELETE", "faults")
        # What is not sent by then is lost, and the report says so.
        with contextlib.suppress(AssertionError):
            await self._place.empty(_EMPTY_WITHIN)
        watch.cancel()
        return await audit(self._place, self._plan, self._hits, self._away, self._takeovers)

    async def _watch(self) -> None:
        """Keeps the list of processes, so that one can be hit while the server is away."""
        while True:
            with contextlib.suppress(QueueUnavailable):
                stats = await self._place.stats()
                self._pids = {process.pid: process.incarnation for process in stats.processes}
            await asyncio.sleep(0.1)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self._started + at - time.monotonic()))

    async def _push(self) -> None:
        for push in self._plan.pushes:
            await self._until(push.at)
            async with self._server_is_up:
                await self._place.push(push.elements)

    async def _strike(self, trouble: Trouble) -> None:
        await self._until(trouble.at)
        match trouble.kind:
            case "kill":
                async with self._victim(trouble, signal.SIGKILL):
                    pass
            case "stop":
                async with self._victim(trouble, signal.SIGSTOP) as pid:
                    await asyncio.sleep(trouble.seconds / 2)
                    os.kill(pid, signal.SIGCONT)
                    self._hits[-1].until_ns = time.monotonic_ns()
            case "redis":
                await self._kill_server(trouble.seconds)
            case _:
                await self._fault(trouble)

    async def _fault(self, trouble: Trouble) -> None:
        rule = _FAULTS[trouble.kind] | {"seed": trouble.seed}
        if trouble.kind == "flood_bot":
            rule["bot"] = BOTS[int(trouble.chance * len(BOTS))]
        number = await self._place.add_fault(**rule)
        await asyncio.sleep(trouble.seconds)
        await self._place.remove_fault(number)

    async def _kill_server(self, seconds: float) -> None:
        async with self._server_is_up:
            begin = time.monotonic_ns()
            await self._place.kill_server(seconds)
            self._away.append((begin, time.monotonic_ns()))

    @asynccontextmanager
    async def _victim(self, trouble: Trouble, number: signal.Signals) -> AsyncIterator[int]:
        """Hits one process; its block begins when the others have taken over what it held."""
        pids: list[int] = []

        def some_are_there() -> bool:
            pids[:] = sorted(self._pids.keys() - self._victims)
            return len(pids) >= 2

        await wait_until(some_are_there, "processes to choose from", timeout=60)
        pid = pids[int(trouble.chance * len(pids))]
        self._victims.add(pid)
        name = self._pids[pid]
        os.kill(pid, number)
        began = time.monotonic_ns()
        self._hits.append(Hit(trouble.kind, began))
        hit = self._hits[-1]
        await wait_until(lambda: name not in self._pids.values(), f"{name} is taken over", timeout=60)
        self._takeovers.append((began, time.monotonic_ns()))
        hit.until_ns = hit.until_ns or time.monotonic_ns()
        yield pid
        self._victims.discard(pid)


async def chaos(seconds: float, seed: int, load: Load) -> Report:
    """A whole run. LEASE_SECONDS is short, so that many take-overs fit into it."""
    async with arena(
        load.rates(seconds), enforced=True, MAX_ATTEMPTS=str(MAX_ATTEMPTS), RETRY_BASE="200ms", RETRY_MAX="2s"
    ) as place:
        return await Run(place, draw(seed, seconds, load)).go()
