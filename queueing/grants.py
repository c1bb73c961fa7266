"""Grants: leases on their way from the worker's puller to its coroutines."""

import asyncio
from collections import deque

from queueing.contract import Lease


class Grants:
    """In the order in which they came, to the coroutines in the order in which they asked. asyncio.Queue does the same,
    and more, in three times the time; one passes for each message."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop  # to ask which one runs is a system call
        self._leases: deque[Lease] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()

    def put(self, lease: Lease) -> None:
        self._leases.append(lease)
        while self._idle:
            if not (idle := self._idle.popleft()).done():  # it is, where a coroutine was ended
                idle.set_result(None)
                return

    async def get(self) -> Lease:
        while not self._leases:
            idle = self._loop.create_future()
            self._idle.append(idle)
            await idle
        return self._leases.popleft()
