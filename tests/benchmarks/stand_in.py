"""The Bot API of the benchmark: one uvloop process that costs little, since it shares the cores with what it serves.

    python -m tests.benchmarks.stand_in TALLY

Takes every token and every method. It prints its port, and speaks with the harness through the file TALLY, which both
map: an int64 that counts the sendMessage calls that arrived, a float64 with the seconds after which to answer, an int64
that counts latencies, and then the last of those as float64: from the time in a text ("sent-1700000000.123456-") to its
arrival here. What it knows nothing of, the playground does (bot/playground), at several times the cost: it judges.
"""

import asyncio
import mmap
import re
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

LATENCIES = 100_000
SIZE = 24 + 8 * LATENCIES
"""Bytes of a tally."""

_STAMP = re.compile(rb"sent-([0-9.]+)-")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MESSAGE = (
    b'{"ok":true,"result":{"message_id":123456,"from":{"id":110201543,"is_bot":true,"first_name":"A bot",'
    b'"username":"a_test_bot"},"chat":{"id":1000,"first_name":"Ada","last_name":"Lovelace","username":"ada","type":"private"},'
    b'"date":1700000000,"text":"' + b"x" * 100 + b'"}}'
)
_ME = (
    b'{"ok":true,"result":{"id":110201543,"is_bot":true,"first_name":"A bot","username":"a_test_bot",'
    b'"can_join_groups":true,"can_read_all_group_messages":false,"supports_inline_queries":false}}'
)
_TRUE = b'{"ok":true,"result":true}'


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


_SENT, _OTHERS = _answer(_MESSAGE), {b"getMe": _answer(_ME)}
_DONE = _answer(_TRUE)


class Tally:
    """The file, as either side sees it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    @property
    def arrived(self) -> int:
        return int(struct.unpack_from("q", self._map, 0)[0])

    @arrived.setter
    def arrived(self, count: int) -> None:
        struct.pack_into("q", self._map, 0, count)

    @property
    def delay(self) -> float:
        return float(struct.unpack_from("d", self._map, 8)[0])

    @delay.setter
    def delay(self, seconds: float) -> None:
        struct.pack_into("d", self._map, 8, seconds)

    def note(self, latency: float) -> None:
        (count,) = struct.unpack_from("q", self._map, 16)
        struct.pack_into("d", self._map, 24 + count % LATENCIES * 8, latency)
        struct.pack_into("q", self._map, 16, count + 1)

    def take_latencies(self) -> list[float]:
        """Those since the last call."""
        (count,) = struct.unpack_from("q", self._map, 16)
        struct.pack_into("q", self._map, 16, 0)
        return list(struct.unpack_from(f"{min(count, LATENCIES)}d", self._map, 24))


class _Connection(asyncio.Protocol):
    def __init__(self, tally: Tally, later: "_Later") -> None:
        self._tally = tally
        self._later = later
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's
        self._write: Callable[[bytes], None] = self._transport.write

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        while data:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                break
            length = _LENGTH.search(data, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            request, data = (data, b"") if len(data) == end else (data[:end], data[end:])
            self._serve(request)
        self._received = data

    def _serve(self, request: bytes) -> None:
        tally = self._tally
        method = request[: request.index(b"\r")].split(b" ")[1].rpartition(b"/")[2]
        if method != b"sendMessage":
            self._write(_OTHERS.get(method, _DONE))
            return
        tally.arrived += 1
        if found := _STAMP.search(request):
            tally.note(time.time() - float(found[1]))
        if delay := tally.delay:
            self._later.call(delay, self._write)
        else:
            self._write(_SENT)


class _Later:
    """Answers after a time that is right on average: uvloop's timers go off up to a millisecond late, of 50."""

    def __init__(self) -> None:
        self._late = 0.0

    def call(self, delay: float, write: Callable[[bytes], None]) -> None:
        seconds = max(0.0, delay - self._late)
        asyncio.get_running_loop().call_later(seconds, self._answer, time.monotonic() + seconds, write)

    def _answer(self, due: float, write: Callable[[bytes], None]) -> None:
        write(_SENT)
        # Of the timer, not of the answer: as many as wait at once would all correct what each of them has corrected.
        self._late += (time.monotonic() - due - self._late) / 20


async def _serve(tally: Tally) -> None:
    make = partial(_Connection, tally, _Later())
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(Tally(Path(sys.argv[1]))))
