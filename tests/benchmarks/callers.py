"""A client of the HTTP API that costs little: it shares the cores with what it calls."""

import asyncio
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import cast

from tests.benchmarks.place import Void


class Caller(asyncio.Protocol):
    """One connection: writes a call, waits for the whole answer, writes the next, as long as there are any."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0):
            return
        self._received = b""
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            self._fail(head.partition(b"\r\n")[0].decode())
        else:
            self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail("the connection was closed")

    def _next(self) -> None:
        if request := next(self._requests, None):
            self._transport.write(request)
        else:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(Void(f"a call of the API: {why}"))


async def call_all(address: str, path: str, bodies: Sequence[bytes], *, connections: int) -> float:
    """POSTs them all. → seconds until the last was answered. Raises Void if one is answered with an error."""
    host, _, port = address.partition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = iter([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    loop = asyncio.get_running_loop()
    began = perf_counter()
    made = [(await loop.create_connection(lambda: Caller(requests), host, int(port)))[1] for _ in range(connections)]
    await asyncio.gather(*(caller.done for caller in made))
    return perf_counter() - began
