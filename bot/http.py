"""Http: uvicorn's side of a connection, which notes when a request came, and answers it with one write."""

import asyncio
import time
from email.utils import formatdate
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bot.body import ARRIVED


class Http(HttpToolsProtocol):
    """As uvicorn's. The header Date is made for the first request of a second, and not every second."""

    _second: ClassVar[int] = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if (now := int(time.time())) != Http._second:
            Http._second = now
            date = (b"date", formatdate(now, usegmt=True).encode())
            self.server_state.default_headers = [date, *self.config.encoded_headers]
        # Until its task is run it waits behind all else that the process does.
        self.scope["state"][ARRIVED] = time.monotonic()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if cycle.scope["method"] != "HEAD":  # whose answer has no body
            cycle.transport = _Answer(cycle.transport)
        super()._start_asgi_task(cycle, app)


class _Answer:
    """What one answer is written to. uvicorn writes its head and its body each with a system call, and each wakes who
    reads: here the head waits for what follows it, which is written in the same step of the same task."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None and not data.startswith(b"HTTP/1.1 100 "):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
