"""Posting: JSON to the Bot API over keep-alive connections, and nothing that a message does not need.

A request is one write, its answer is parsed by httptools, which uvicorn brings along. aiohttp makes about ten objects
for the same, and took a third of what a send cost (decision 26); it still does what is rare: files.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import cast

import aiohappyeyeballs
import httptools
from yarl import URL

KEEPALIVE = 30.0
"""Seconds that an idle connection is kept; Telegram's own servers keep it open for longer."""

_NEXT_ADDRESS = 0.25  # seconds after which the host's next address is tried as well (RFC 8305, section 8)
_KNOWN_URLS = 4_096  # bots times methods
_INFORMATIONAL = range(100, 200)  # answers before the answer
_SIZES = (b"content-length", b"transfer-encoding")  # without any of them, an answer ends with its connection
_PACKED = (b"gzip", b"x-gzip", b"deflate")
_ANY_FORMAT = zlib.MAX_WBITS | 32  # zlib finds out which of them it is


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads. head: of the request, up to the value of Content-Length."""

    host: str
    port: int
    tls: bool
    head: bytes

    @property
    def origin(self) -> tuple[str, int, bool]:
        return self.host, self.port, self.tls


class Posts:
    """The connections of one process, made on the running loop as they are needed; there is no limit to them."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int, bool], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(self, url: str, body: bytes, enter: Callable[[], None], seconds: float) -> tuple[int, bytes]:
        """Status and body of the answer, whatever it is, within `seconds`, connecting included.

        enter: called when there is a connection, immediately before the request is written, without an await between;
        if it raises, nothing is written, and the connection is kept for the next.

        Raises OSError if there is no connection or it ends before the answer does, and TimeoutError.
        """
        target = _target(url)
        connection = self._take(target)
        if connection is None:
            loop = asyncio.get_running_loop()
            ends = loop.time() + seconds
            async with asyncio.timeout(seconds):
                connection = await self._connect(target)
            seconds = max(ends - loop.time(), 0.0)
        try:
            enter()
        except BaseException:
            self.keep(connection)
            raise
        return await connection.exchange(b"%b%d\r\n\r\n%b" % (target.head, len(body), body), seconds)

    async def close(self) -> None:
        """Ends all connections, with what is under way on them."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)  # the loop tells them that they are closed

    def keep(self, connection: "_Connection") -> None:
        """It is free."""
        connection.free_since = connection.loop.time()
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(KEEPALIVE, self._sweep)

    def forget(self, connection: "_Connection") -> None:
        """It is closed."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)

    def _take(self, target: _Target) -> "_Connection | None":
        """The one that was used last: if there are more than are needed, the others grow old. What is too old may have
        been closed by the other side just now, or while this process was stopped."""
        idle = self._idle.get(target.origin)
        while idle:
            connection = idle.pop()
            if connection.loop.time() - connection.free_since >= KEEPALIVE:
                connection.abort()
            elif not connection.is_closing():
                return connection
        return None

    async def _connect(self, target: _Target) -> "_Connection":
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS, interleave=1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = _Connection(self, target.origin, loop)
        await loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=_tls() if target.tls else None,
            server_hostname=target.host if target.tls else None,
        )
        self._open.add(connection)
        return connection

    def _sweep(self) -> None:
        """Closes those that nobody used for long."""
        self._sweeping = None
        for idle in self._idle.values():
            for connection in list(idle):
                if connection.loop.time() - connection.free_since >= KEEPALIVE:
                    idle.remove(connection)
                    connection.abort()
                elif self._sweeping is None:
                    self._sweeping = connection.loop.call_later(KEEPALIVE, self._sweep)


class _Connection(asyncio.Protocol):
    """One connection: at most one request at a time is on it. Methods named on_* are httptools's."""

    def __init__(self, pool: Posts, origin: tuple[str, int, bool], loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.loop = loop
        self.free_since = 0.0
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._sized = False
        self._packed = False
        self._until_close = False

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _is_free(self) -> bool:
        """Whether all was written that was to be: who answers before that may never read the rest."""
        return not self.is_closing() and self._transport is not None and not self._transport.get_write_buffer_size()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: bytes, seconds: float) -> tuple[int, bytes]:
        """Writes at once, and awaits the answer."""
        assert self._transport is not None
        self._answer = answer = self.loop.create_future()
        self._transport.write(request)
        self._until = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self._until:
            self._watch()
        try:
            return await answer  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if self._answer is answer:  # else it is there already, and the connection may be another's
                self._answer = None
                self.abort()
            raise

    def _watch(self) -> None:
        """The timer stays for the requests that follow: to make one takes longer than what it is for."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(self._until, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._until <= self.loop.time():
            self._fail(TimeoutError())
            self.abort()
        else:
            self._watch()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # said without being asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionError(f"what came is no answer of HTTP/1.1 ({type(error).__name__})"))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._pool.forget(self)
        if self._until_close and exc is None:
            self._succeed()
        self._fail(exc or ConnectionResetError("the connection was closed before the answer was complete"))

    def on_message_begin(self) -> None:
        if self._answer is None:  # a second one behind the answer: its end would pass for the next one's answer
            self.abort()
        self._body = []
        self._sized = self._packed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _SIZES:
            self._sized = True
        elif name == b"content-encoding":
            self._packed = value.lower() in _PACKED

    def on_headers_complete(self) -> None:
        self._until_close = not self._sized

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._until_close = False
        if self._parser.get_status_code() in _INFORMATIONAL and self._answer is not None:
            return
        is_kept = self._answer is not None and self._parser.should_keep_alive() and self._is_free()
        self._succeed()
        if is_kept:
            self._pool.keep(self)
        else:
            self.abort()

    def _succeed(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            body = b"".join(self._body)
            answer.set_result((self._parser.get_status_code(), _unpacked(body) if self._packed else body))

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


def _unpacked(body: bytes) -> bytes:
    """A proxy may pack what nobody asked it to pack. What cannot be unpacked is left to whoever reads it."""
    try:
        return zlib.decompress(body, _ANY_FORMAT)
    except zlib.error:
        return body


@lru_cache(_KNOWN_URLS)
def _target(url: str) -> _Target:
    parsed = URL(url)
    if parsed.host is None or parsed.port is None:
        raise OSError("the address names no host")
    lines = [
        f"POST {parsed.raw_path_qs} HTTP/1.1",
        f"Host: {parsed.host_port_subcomponent}",
        "User-Agent: telequeue",
        "Content-Type: application/json",
        "Content-Length: ",
    ]
    return _Target(parsed.raw_host or "", parsed.port, parsed.scheme == "https", "\r\n".join(lines).encode())


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
