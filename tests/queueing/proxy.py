"""A TCP proxy that loses a reply, holds it back, or delivers a request late: after others that were sent later."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from redis.asyncio import Redis

from queueing.scripts import Function, Script


async def make_known(redis: "Redis", verb: str) -> None:
    """To the server, so that a call of it is one request."""
    await redis.script_load(Script(verb).source)
    if verb in ("claim", "enqueue"):
        await redis.function_load(Function(verb).library, replace=True)


class LossyProxy:
    """Stands between a client and a server; each of these is about the next request with the marker.

    lose:      it is carried out; instead of the answer the connection breaks.
    keep_back: it is carried out; the answer never comes, and the connection stays.
    delay:     it goes no further until `deliver`, whatever the client does meanwhile.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._marker: bytes | None = None
        self._how = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter] | None = None
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

        if self._late:
            self._late[2].close()
            with contextlib.suppress(OSError):
                await self._late[2].wait_closed()

    def lose(self, marker: str) -> None:
        self._marker, self._how = marker.encode(), "lose"

    def keep_back(self, marker: str) -> None:
        self._marker, self._how = marker.encode(), "keep back"

    def delay(self, marker: str) -> None:
        self._marker, self._how = marker.encode(), "delay"

    async def deliver(self) -> bytes:
        """What was delayed arrives. → what the server answers, to nobody."""
        assert self._late, "nothing was delayed"
        request, reader, writer = self._late
        writer.write(request)
        return await reader.read(1 << 20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
        fate: list[str] = []
        back = asyncio.create_task(self._answers(upstream_reader, writer, fate))
        try:
            with contextlib.suppress(OSError):
                while chunk := await reader.read(1 << 20):
                    if self._marker and self._marker in chunk:
                        self._marker = None
                        fate.append(self._how)
                    if "delay" in fate:
                        self._late = (chunk, upstream_reader, upstream_writer)
                    else:
                        upstream_writer.write(chunk)
        finally:
            back.cancel()
            if "delay" not in fate:
                upstream_writer.close()
            writer.close()
            self._tasks.discard(task)
        await asyncio.gather(back, return_exceptions=True)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: list[str]) -> None:
        while chunk := await reader.read(1 << 20):
            if not fate:
                writer.write(chunk)
                continue
            self.lost += 1
            if fate == ["lose"]:
                writer.transport.abort()
                return
