"""`python -m bot.playground.bench`: how many sendMessage calls a second the stand-in carries on one core.

Server and load generator each get a core of their own. The generator keeps one call on each connection under way, form
encoded as python-telegram-bot sends them, to as many chats as there are connections.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import quote_plus, urlsplit

import uvloop

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"  # noqa: S105  (of no bot: the form is what counts)


class Client(asyncio.Protocol):
    """One connection: writes a call, waits for the whole answer, writes the next."""

    def __init__(self, chat: int, deadline: float) -> None:
        self.answered = 0
        self._chat = chat
        self._deadline = deadline
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._call()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"}}"):
            return
        self._received = b""
        self.answered += 1
        if time.monotonic() < self._deadline:
            self._call()
        else:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _call(self) -> None:
        text = quote_plus(f"m-{self._chat}-{self.answered} a message of the usual length, more or less")
        body = f"chat_id={self._chat}&text={text}".encode()
        self._transport.write(
            b"POST /bot%s/sendMessage HTTP/1.1\r\nHost: x\r\nUser-Agent: bench\r\nAccept: */*\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s"
            % (TOKEN.encode(), len(body), body)
        )


async def load(url: str, connections: int, seconds: float) -> int:
    """Calls answered within so many seconds."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    deadline = time.monotonic() + seconds
    clients = []
    for chat in range(1, connections + 1):
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda chat=chat: Client(chat, deadline), host, port)  # type: ignore[misc]
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return sum(client.answered for client in clients)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print one line: calls a second, and the server's CPU time per call."""
    parser = argparse.ArgumentParser(prog="python -m bot.playground.bench", description=__doc__)
    parser.add_argument("--connections", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    command = [sys.executable, "-m", "bot.playground", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  (ourselves)
        try:
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(server.pid, {cores[0]})
            os.sched_setaffinity(0, {cores[-1]})
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            before, began = cpu_seconds(server.pid), time.monotonic()
            calls = uvloop.run(asyncio.wait_for(load(url, options.connections, options.seconds), options.seconds + 10))
            took, used = time.monotonic() - began, cpu_seconds(server.pid) - before
        finally:
            server.terminate()
    rate, cost = calls / took, used / max(calls, 1) * 1e6
    sys.stdout.write(f"{rate:,.0f} calls/s, {cost:.1f} µs of server CPU each, server {used / took:.0%} of one core\n")


if __name__ == "__main__":
    main()
