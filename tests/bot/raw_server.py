"""An HTTP server on a bare socket, whose every move a test gives: for what no decent server does."""

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from multidict import CIMultiDict

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Move = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A port whose connections the handler serves; each is closed after it, and at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


class RawServer:
    """Answers the n-th request with the n-th of its moves, and with the last one from then on."""

    def __init__(self, *moves: Move) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.url = ""
        self._moves = deque(moves)

    async def __aenter__(self) -> Self:
        self._listening = listening(self._serve)
        self.url = f"http://127.0.0.1:{await self._listening.__aenter__()}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.__aexit__(None, None, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while not writer.is_closing():
                self.requests.append(await _read(reader))
                move = self._moves.popleft() if len(self._moves) > 1 else self._moves[0]
                await move(writer)
        finally:
            self.open -= 1


class Request:
    def __init__(self, line: str, headers: CIMultiDict[str], body: bytes) -> None:
        self.method, self.target, _ = line.split(" ")
        self.headers = headers
        self.body = body

    @property
    def json(self) -> object:
        return json.loads(self.body)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = CIMultiDict(re.split(r":\s*", line, maxsplit=1) for line in head[1:-2])
    return Request(head[0], headers, await reader.readexactly(int(headers.get("Content-Length", "0"))))


def answer(status: int = 200, body: bytes | str | dict[str, object] = b"") -> Move:
    """An answer; a dict becomes JSON."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(content)}\r\n\r\n".encode()

    async def move(writer: asyncio.StreamWriter) -> None:
        writer.write(head + content)
        await writer.drain()

    return move


def ok(result: object = True) -> Move:
    return answer(200, {"ok": True, "result": result})


def refuse(status: int, description: str, **parameters: object) -> Move:
    """A refusal as the Bot API words it."""
    body: dict[str, object] = {"ok": False, "error_code": status, "description": description}
    return answer(status, body | ({"parameters": parameters} if parameters else {}))


async def hang(writer: asyncio.StreamWriter) -> None:
    """No answer, ever."""
    await asyncio.Event().wait()


async def disconnect(writer: asyncio.StreamWriter) -> None:
    """The connection is closed instead of an answer."""
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of an answer."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def cut(writer: asyncio.StreamWriter) -> None:
    """Half an answer, then the end."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"ok":true')
    await writer.drain()
    writer.close()
