"""The benchmark's Bot API, over a plain connection."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.benchmarks.stand_in import Tally

BODY = b'{"chat_id":1000,"text":"hello"}'


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


@pytest.fixture
def connection(tally: Tally, tmp_path: Path) -> Iterator[socket.socket]:
    command = [sys.executable, "-m", "tests.benchmarks.stand_in", str(tmp_path / "tally")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        try:
            with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), timeout=10) as opened:
                yield opened
        finally:
            process.terminate()


def request(body: bytes, method: str = "sendMessage") -> bytes:
    return b"POST /bot1:A/%s HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n\r\n%s" % (method.encode(), len(body), body)


def answers(connection: socket.socket, count: int) -> list[object]:
    """The results of so many."""
    received, results = b"", list[object]()
    while len(results) < count:
        received += connection.recv(65536)
        while (found := received.partition(b"\r\n\r\n"))[1]:
            length = int(found[0].rpartition(b"Length: ")[2])
            if len(found[2]) < length:
                break
            results.append(orjson.loads(found[2][:length])["result"])
            received = found[2][length:]
    return results


def test_a_message_is_counted_and_answered_as_telegram_would(connection: socket.socket, tally: Tally) -> None:
    connection.sendall(request(BODY))
    (message,) = answers(connection, 1)
    assert isinstance(message, dict)
    assert {"message_id", "date", "chat", "from", "text"} <= message.keys()
    assert tally.arrived == 1


def test_requests_may_come_in_pieces_and_together(connection: socket.socket, tally: Tally) -> None:
    whole = request(BODY)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut in (3, len(whole) - len(BODY), len(whole) - 1):
        connection.sendall(whole[:cut])
        assert tally.arrived <= 2
        connection.sendall(whole[cut:])
        assert len(answers(connection, 1)) == 1
    connection.sendall(whole * 4 + whole[:20])
    assert len(answers(connection, 4)) == 4
    assert tally.arrived == 7


def test_other_methods_are_answered_and_not_counted(connection: socket.socket, tally: Tally) -> None:
    connection.sendall(request(b"{}", "getMe") + request(b"{}", "setWebhook"))
    me, done = answers(connection, 2)
    assert isinstance(me, dict)
    assert me["is_bot"]
    assert done is True
    assert tally.arrived == 0


def test_it_tells_how_long_a_message_was_on_its_way(connection: socket.socket, tally: Tally) -> None:
    connection.sendall(request(b"chat_id=1&text=sent-%.6f-xxx" % (time.time() - 5)))
    answers(connection, 1)
    (seconds,) = tally.take_latencies()
    assert seconds >= 5
    assert tally.take_latencies() == []


def test_it_answers_as_late_as_it_is_told(connection: socket.socket, tally: Tally) -> None:
    tally.delay = 0.2
    began = time.monotonic()
    connection.sendall(request(BODY) * 3)
    answers(connection, 3)
    assert time.monotonic() - began >= 0.2


def test_many_at_once_are_each_answered_late(connection: socket.socket, tally: Tally) -> None:
    tally.delay = 0.2
    for _ in range(8):
        began = time.monotonic()
        connection.sendall(request(BODY) * 60)
        connection.recv(1, socket.MSG_PEEK)
        assert time.monotonic() - began >= 0.1
        answers(connection, 60)
