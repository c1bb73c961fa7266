"""HTTP/1.0 and 1.1 over a raw asyncio protocol: small enough to read, quick enough to judge others by.

A request is stamped at the moment its last byte was read, before anything else is done with it. Requests of one
connection are answered in order, one at a time; what a client pipelines waits, with its own stamp.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

_log = logging.getLogger(__name__)

MAX_BODY = 60 * 1024 * 1024  # Telegram takes uploads of 50 MB; the rest is room for the multipart around them
MAX_HEAD = 64 * 1024
MAX_PIPELINED = 64  # beyond it the connection is not read until some are answered

REASONS = {
    200: "OK", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 413: "Request Entity Too Large",
    422: "Unprocessable Entity", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
JSON = "application/json"


class Request:
    """One request. `arrival_ns` is CLOCK_MONOTONIC in nanoseconds; header names are lower case."""

    __slots__ = ("arrival_ns", "body", "connection", "gone", "headers", "keep_alive", "method", "on_gone", "target")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body: bytes | bytearray = b""
        self.arrival_ns = 0
        self.keep_alive = True
        self.gone = False
        self.on_gone: Callable[[], None] | None = None  # called once if the client leaves before the answer

    def answer(self, status: int, body: bytes, content_type: str = JSON, headers: str = "") -> None:
        """Send the whole answer. `headers` holds further lines, each ended by CRLF."""
        reason = REASONS.get(status, "Unknown")
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}"
        if not self.keep_alive:
            head += "Connection: close\r\n"
        self.connection.finish(self, head.encode() + b"\r\n" + body)

    def answer_ok(self, body: bytes) -> None:
        """The same for status 200 and JSON, without the formatting: the path every send takes."""
        if self.keep_alive:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self.connection.finish(self, head % len(body) + body)
        else:
            self.answer(200, body)

    def stream(self, content_type: str) -> asyncio.Transport | None:
        """Begin an answer without end (Server-Sent Events); None if the client is gone already."""
        return self.connection.begin_stream(self, content_type)

    def reset(self) -> None:
        """Drop the connection with a RST, as a failing network does."""
        self.connection.reset()


Handler = Callable[[Request], None]


class Connection(asyncio.Protocol):
    """One client. The handler must answer, stream or reset each request once, at once or later."""

    def __init__(self, handler: Handler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._incoming = Request(self)
        self._in_head = False
        self._head_size = 0
        self._now = 0
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self.peer_port = 0

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._connections.add(self)
        peer = transport.get_extra_info("peername")
        self.peer_port = peer[1] if isinstance(peer, tuple) else 0
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._queue.clear()
        current, self._current = self._current, None
        if current is not None:
            current.gone = True
            if current.on_gone is not None:
                current.on_gone()

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # an offer to change protocol (h2c, say) is declined by going on in this one
            self._parser = httptools.HttpRequestParser(self)
            rest = data[upgrade.args[0] :]
            if rest:
                self.data_received(rest)
        except httptools.HttpParserError:
            if not self._closing:
                self._refuse(400)
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD and not self._closing:
                self._refuse(431)
        if self._queue:
            self._pump()

    # --- httptools

    def on_message_begin(self) -> None:
        self._incoming = Request(self)
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._incoming.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_size = 0
        headers = self._incoming.headers
        self._incoming.method = self._parser.get_method()
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MAX_BODY:
            self._too_large()
        elif b"expect" in headers and self._transport is not None and not self._closing:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        incoming = self._incoming
        if not incoming.body:
            incoming.body = body
            return
        if not isinstance(incoming.body, bytearray):
            incoming.body = bytearray(incoming.body)
        incoming.body += body
        if len(incoming.body) > MAX_BODY:
            self._too_large()

    def on_message_complete(self) -> None:
        if self._closing:
            return
        request = self._incoming
        request.arrival_ns = self._now
        request.keep_alive = self._parser.should_keep_alive()
        self._queue.append(request)
        if len(self._queue) >= MAX_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    # --- answers

    def finish(self, request: Request, payload: bytes) -> None:
        """Write the answer to the current request; the next one of this connection may begin."""
        if self._transport is None or self._current is not request:
            return
        self._current = None
        self._transport.write(payload)
        if not request.keep_alive:
            self._closing = True
            self._transport.close()
        elif self._queue:
            asyncio.get_running_loop().call_soon(self._pump)

    def begin_stream(self, request: Request, content_type: str) -> asyncio.Transport | None:
        if self._transport is None or self._current is not request:
            return None
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode())
        return self._transport

    def reset(self) -> None:
        if self._transport is None:
            return
        raw = self._transport.get_extra_info("socket")
        # lingering for zero seconds makes close() send a RST instead of a FIN
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._closing = True
        self._current = None
        self._transport.abort()

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def _pump(self) -> None:
        while self._queue and self._current is None and not self._closing:
            request = self._queue.popleft()
            if len(self._queue) == MAX_PIPELINED - 1 and self._transport is not None:
                self._transport.resume_reading()
            self._current = request
            try:
                self._handler(request)
            except Exception:  # noqa: BLE001  a defect in one answer must not leave its client, or the next, waiting
                _log.exception("a request failed")
                request.answer(500, b'{"ok":false,"error_code":500,"description":"Internal Server Error"}')

    def _too_large(self) -> None:
        if not self._closing:
            self._refuse(413)

    def _refuse(self, status: int) -> None:
        """Answer what cannot be read to its end, and close."""
        self._closing = True
        if self._transport is None:
            return
        body = f'{{"ok":false,"error_code":{status},"description":"{REASONS[status]}"}}'.encode()
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
        self._transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self._transport.close()
