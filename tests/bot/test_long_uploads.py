"""Uploads that take long, end early, or may not begin: what is known of them, and what the limits make of them."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from telegram import InputFile

from bot import store
from bot.file_store import DiskFiles, RedisFiles
from bot.files import Files
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.contract import Lease, Queue
from queueing.errors import QueueUnavailable
from queueing.limits import Rate, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Outcome, Rejected, RetryLater, RetryPolicy, Scope, Sent, Unsent
from queueing.worker import Permit, Worker
from tests.bot.raw_server import listening

BOT = "110201543"
TOKEN = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
LARGE = 24 * 1024 * 1024  # more than the buffers of a connection hold
OK = b'{"ok":true,"result":{"message_id":7}}'
Eventually = Callable[..., Awaitable[None]]


class SlowServer:
    """Reads bodies in chunks of 1 MiB with a pause before each, and answers. most: bytes after which it does `then`."""

    def __init__(self, pause: float = 0.0, most: int | None = None, then: bytes = b"") -> None:
        self.pause = pause
        self.most = most
        self.then = then
        self.arrived: list[float] = []
        self.begun = 0
        self.bodies: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.begun += 1
            found = re.search(rb"Content-Length: (\d+)", head)
            left = length = int(found[1]) if found else 0
            while left:
                if self.most is not None and length - left >= self.most:
                    writer.write(self.then)
                    await writer.drain()
                    return
                await asyncio.sleep(self.pause if length > 1_000_000 else 0)
                left -= len(await reader.readexactly(min(left, self.most or 1024 * 1024)))
            self.arrived.append(time.monotonic())
            self.bodies.append(length)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(OK), OK))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(DiskFiles(tmp_path / "files"))


@pytest.fixture
async def request_() -> AsyncIterator[AiohttpRequest]:
    request = AiohttpRequest(5.0)
    yield request
    await request.shutdown()


def sender_to(port: int, request: AiohttpRequest, files: Files | None, timeout: float = 5.0) -> Sender:
    url = f"http://127.0.0.1:{port}"
    return Sender(MemoryQueue(), api_url=url, send_timeout=timeout, request=request, own_token=TOKEN, files=files)


async def a_document(files: Files, size: int = LARGE) -> Message:
    _, refs = await files.pack({"document": InputFile(os.urandom(size))})
    return Message(bot=BOT, chat="1001", body={"method": "sendDocument", "files": refs})


async def delivered(
    server: SlowServer, request: AiohttpRequest, files: Files, timeout: float = 5.0, size: int = LARGE
) -> Outcome:
    message = await a_document(files, size)
    async with listening(server.serve) as port:
        return await sender_to(port, request, files, timeout).deliver(message, lambda: True)


async def test_an_upload_may_take_longer_than_any_other_call(request_: AiohttpRequest, files: Files) -> None:
    assert await delivered(SlowServer(pause=0.02), request_, files, timeout=0.3) == Sent("7")


async def test_one_that_is_too_slow_was_not_sent(request_: AiohttpRequest, files: Files) -> None:
    outcome = await delivered(SlowServer(pause=0.5), request_, files, timeout=0.05)
    assert isinstance(outcome, RetryLater)
    assert outcome.error.startswith("not written within ")
    assert (outcome.reason, outcome.uncertain, outcome.scope) == ("network", False, Scope.RECEIVER)


async def test_a_connection_lost_in_the_middle_leaves_no_doubt(request_: AiohttpRequest, files: Files) -> None:
    outcome = await delivered(SlowServer(most=2_000_000), request_, files)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain, outcome.scope) == ("network", False, Scope.RECEIVER)


async def test_one_lost_after_the_last_byte_does(request_: AiohttpRequest, files: Files) -> None:
    outcome = await delivered(SlowServer(most=1000), request_, files, size=2000)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain) == ("no_answer", True)


async def test_an_answer_in_the_middle_counts(request_: AiohttpRequest, files: Files) -> None:
    refusal = b'{"ok":false,"error_code":413,"description":"Request Entity Too Large"}'
    answer = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(refusal), refusal)
    outcome = await delivered(SlowServer(most=2_000_000, then=answer), request_, files)
    assert isinstance(outcome, Rejected | RetryLater)
    assert outcome.reason in ("too_large", "network")  # the answer may be lost with the connection


class Failing(DiskFiles):
    """A store whose server goes away after the first piece."""

    async def read(self, key: str, size: int) -> AsyncIterator[bytes]:
        async for piece in super().read(key, size):
            yield piece
            raise QueueUnavailable


async def test_a_store_that_goes_away_in_the_middle_costs_no_attempt(request_: AiohttpRequest, tmp_path: Path) -> None:
    outcome = await delivered(SlowServer(), request_, Files(Failing(tmp_path / "files")))
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after, outcome.uncertain) == ("queue_unavailable", 1.0, False)


async def test_without_leave_nothing_is_written(request_: AiohttpRequest, files: Files) -> None:
    server, message = SlowServer(), await a_document(files, 5)
    async with listening(server.serve) as port:
        sender = sender_to(port, request_, files)
        assert await sender.deliver(message, lambda: False) == Unsent()
        answers = iter([True, False])  # leave to connect, and none to write
        assert await sender.deliver(message, lambda: next(answers)) == Unsent()
        assert server.begun == 0
        assert await sender.deliver(message, lambda: True) == Sent("7")


async def test_the_end_is_told_after_the_last_byte(request_: AiohttpRequest, files: Files) -> None:
    server, message, told = SlowServer(pause=0.01), await a_document(files), []
    async with listening(server.serve) as port:
        permit = Permit(lambda _: not told, lambda _: told.append(time.monotonic()), Lease("t", "1:42", message))
        began = time.monotonic()
        await sender_to(port, request_, files).deliver(message, permit)
    assert len(told) == 1
    assert told[0] - began > 0.1


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator["Redis"]:
    client = store.connect(redis_url, 5.0)
    yield client
    await client.aclose()


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_a_chats_limit_counts_an_upload_when_it_has_arrived(
    kind: str, client: "Redis", redis_url: str, tmp_path: Path, request_: AiohttpRequest, eventually: Eventually
) -> None:
    """It takes longer than the period: by the time of its first byte, the next message could follow at once."""
    limits = RateLimits(chat=Rate(1, 1.0))
    queue: Queue = RedisQueue(redis_url, limits=limits) if kind == "redis" else MemoryQueue(limits=limits)
    files = Files(RedisFiles(client) if kind == "redis" else DiskFiles(tmp_path / "files"))
    server = SlowServer(pause=0.05)
    await queue.start()
    document = await a_document(files)
    await queue.enqueue([document, Message(bot=BOT, chat="1001", body={"text": "after it"})])
    async with listening(server.serve) as port:
        sender = sender_to(port, request_, files)
        worker = Worker(queue, sender.deliver, workers=2, policy=RetryPolicy(), observe=lambda event: None)
        await worker.start()
        await eventually(lambda: len(server.arrived) == 2, "both")
        await worker.stop()
    await queue.close()
    first, second = server.arrived
    assert server.bodies[0] > LARGE
    assert second - first > 0.3  # of the second that it is, less what was still in the connection's buffers
