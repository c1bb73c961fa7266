"""A TCP proxy that loses a reply: the request gets through and is carried out, the answer never arrives."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class LossyProxy:
    """Stands between a client and a server; `lose(marker)` cuts the connection of the next request with that marker,
    once the server has answered it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._marker: bytes | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lose(self, marker: str) -> None:
        self._marker = marker.encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        losing = asyncio.Event()
        back = asyncio.create_task(self._answers(upstream_reader, writer, losing))
        try:
            with contextlib.suppress(OSError):
                while chunk := await reader.read(1 << 20):
                    if self._marker and self._marker in chunk:
                        self._marker = None
                        losing.set()
                    upstream_writer.write(chunk)
        finally:
            back.cancel()
            for closing in (upstream_writer, writer):
                closing.close()
            self._tasks.discard(task)
        await asyncio.gather(back, return_exceptions=True)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        while chunk := await reader.read(1 << 20):
            if losing.is_set():
                self.lost += 1
                writer.transport.abort()
                return
            writer.write(chunk)
