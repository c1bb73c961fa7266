"""Files all the way: packed, queued, taken by a worker, streamed to the stand-in, and compared byte by byte."""

import asyncio
import hashlib
import io
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import InputFile, InputMediaDocument, InputMediaPhoto, InputMediaVideo

from bot import store
from bot.file_store import PIECE, DiskFiles, RedisFiles
from bot.files import Files
from bot.outbox import MAX_ELEMENT
from bot.playground import Playground, start_playground
from bot.playground.faults import Fault
from bot.playground.ledger import Call
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.contract import Queue
from queueing.events import Buried, Event
from queueing.limits import Rate, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, encode, new_id
from queueing.redis_queue import RedisQueue
from queueing.retry import RetryPolicy
from queueing.worker import Worker

BOT = "110201543"
TOKEN = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
Eventually = Callable[..., Awaitable[None]]


class House:
    """A queue with a worker, a store of files, and the stand-in."""

    def __init__(self, queue: Queue, files: Files, playground: Playground, timeout: float = 5.0) -> None:
        self.queue = queue
        self.files = files
        self.playground = playground
        self.events: list[Event] = []
        self.request = AiohttpRequest(timeout)
        sender = Sender(
            queue, api_url=playground.url, send_timeout=timeout, request=self.request, own_token=TOKEN, files=files
        )
        policy = RetryPolicy(base=0.01, cap=0.01)
        self.worker = Worker(queue, sender.deliver, workers=4, policy=policy, observe=self.events.append)

    async def __aenter__(self) -> "House":
        await self.queue.start()
        await self.worker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.stop()
        await self.queue.close()
        await self.request.shutdown()

    async def send(self, method: str, data: Mapping[str, Any], chat: int = 1001) -> Message:
        message = await packed(self.files, method, data, chat)
        await self.queue.enqueue([message])
        return message

    @property
    def calls(self) -> list[Call]:
        ledger = self.playground.world.ledger
        return [ledger[seq] for seq in range(len(ledger))]

    @property
    def sent(self) -> list[Call]:
        return [call for call in self.calls if call.taken and call.status == 200]

    @property
    def dead(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Buried)]

    def uploads(self) -> list[bytes]:
        return [upload.content for upload in self.playground.world.files.values()]

    def shown(self, chat: int = 1001) -> dict[str, Any]:
        """The last message in the chat."""
        call = self.sent[-1]
        found = self.playground.world.bots[int(BOT)].message(chat, call.message_id)
        assert found
        return found


async def packed(files: Files, method: str, data: Mapping[str, Any], chat: int = 1001) -> Message:
    parameters, refs = await files.pack(data)
    return Message(bot=BOT, chat=str(chat), body={"method": method, "kwargs": parameters, "files": refs}, id=new_id())


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    playground = await start_playground()
    yield playground
    await playground.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator["Redis"]:
    client = store.connect(redis_url, 5.0)
    yield client
    await client.aclose()


LIMITS = RateLimits(bot=Rate(30), chat=Rate(10))


@pytest.fixture(params=["redis", "memory"])
async def house(
    request: pytest.FixtureRequest, playground: Playground, client: "Redis", redis_url: str, tmp_path: Path
) -> AsyncIterator[House]:
    """With either kind of queue, and limits, which give a message half a second or 20 ms until it has to be written."""
    if request.param == "redis":
        queue: Queue = RedisQueue(redis_url, limits=LIMITS)
        files = Files(RedisFiles(client))
    else:
        queue, files = MemoryQueue(limits=LIMITS), Files(DiskFiles(tmp_path / "files"))
    async with House(queue, files, playground) as house:
        yield house


@pytest.fixture
async def with_redis(playground: Playground, client: "Redis", redis_url: str) -> AsyncIterator[House]:
    async with House(RedisQueue(redis_url, lease_seconds=5.0), Files(RedisFiles(client)), playground) as house:
        yield house


# --- what is sent


async def test_a_photo_and_a_document_arrive_as_they_were(
    house: House, eventually: Eventually, tmp_path: Path
) -> None:
    path = tmp_path / 'a "report" für Ödön.txt'
    path.write_bytes(b"\r\n--not a boundary\r\n")
    with path.open("rb") as handle:
        await house.send("sendDocument", {"document": InputFile(handle), "caption": "höre"})
    await eventually(lambda: len(house.sent) == 1, "the document")
    shown = house.shown()
    assert shown["caption"] == "höre"
    assert (shown["document"]["file_name"], shown["document"]["mime_type"]) == (
        'a %22report%22 für Ödön.txt',
        "text/plain",
    )
    await house.send("sendPhoto", {"photo": InputFile(b"pixels")})
    await eventually(lambda: len(house.sent) == 2, "the photo")
    assert house.uploads() == [b"\r\n--not a boundary\r\n", b"pixels"]


async def test_an_album_with_a_thumbnail(house: House, eventually: Eventually) -> None:
    album = [
        InputMediaPhoto(b"one", caption="first"),
        InputMediaVideo(b"two", thumbnail=b"small"),
        InputMediaDocument(io.BytesIO(b"three"), filename="3.bin"),
    ]
    await house.send("sendMediaGroup", {"media": album})
    await eventually(lambda: len(house.sent) == 1, "the album")
    assert house.sent[0].weight == 3
    assert sorted(house.uploads()) == [b"one", b"small", b"three", b"two"]
    assert house.calls[0].status == 200


async def test_a_sticker_and_new_media_for_a_message(house: House, eventually: Eventually) -> None:
    await house.send("sendSticker", {"sticker": InputFile(b"sticker")})
    await eventually(lambda: len(house.sent) == 1, "the sticker")
    await house.send("sendPhoto", {"photo": InputFile(b"before")})
    await eventually(lambda: len(house.sent) == 2, "the photo")
    number = house.sent[1].message_id
    media = InputMediaDocument(b"after", filename="x.txt", thumbnail=b"thumb")
    await house.send("editMessageMedia", {"message_id": number, "media": media})
    await eventually(lambda: len(house.sent) == 3, "the edit")
    assert house.uploads() == [b"sticker", b"before", b"after", b"thumb"]
    assert house.shown()["document"]["thumbnail"]["file_size"] == 5


async def test_twenty_megabytes_stream(house: House, eventually: Eventually) -> None:
    data = os.urandom(20 * 1024 * 1024)
    message = await house.send("sendDocument", {"document": InputFile(data)})
    assert len(encode(message)) < 1000 < MAX_ELEMENT
    await eventually(lambda: len(house.sent) == 1, "the document", timeout=60)
    assert house.uploads() == [data]


async def test_one_copy_serves_many_messages_and_goes_after_the_last(
    with_redis: House, redis: "Redis", eventually: Eventually
) -> None:
    for chat in range(1001, 1004):
        await with_redis.send("sendDocument", {"document": InputFile(b"the same")}, chat)
    name = store.file_key(hashlib.sha256(b"the same").hexdigest())
    assert [key for key in await redis.keys("*:file:*") if not key.endswith(":uses")] == [name]

    async def goes_soon() -> bool:
        return 0 < await redis.pttl(name) <= 3_600_000

    await eventually(goes_soon, "the file is not needed any more")
    assert with_redis.uploads() == [b"the same"] * 3
    assert await redis.exists(f"{name}:uses") == 0


@pytest.mark.parametrize("kind", ["error", "reset_before", "reset_after"])
async def test_a_retry_sends_it_all_again(house: House, eventually: Eventually, kind: Any) -> None:
    house.playground.world.faults.add(Fault(kind=kind, count=2), None)
    await house.send("sendDocument", {"document": InputFile(b"again")})
    await eventually(lambda: len(house.sent) == 1, "the third try")
    assert len(house.calls) == 3
    assert house.uploads()[-1] == b"again"


async def test_a_flood_holds_it_and_it_is_sent_then(house: House, eventually: Eventually) -> None:
    house.playground.world.faults.add(Fault(kind="flood", retry_after=1, count=1), 1001)
    await house.send("sendDocument", {"document": InputFile(b"later")})
    await eventually(lambda: len(house.sent) == 1, "the document")
    assert house.uploads() == [b"later"]
