"""Files all the way: packed, queued, taken by a worker, streamed to the stand-in, and compared byte by byte."""

import hashlib
import io
import json
import os
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
from bot.playground import Playground
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


async def test_a_photo_and_a_document_arrive_as_they_were(house: House, eventually: Eventually, tmp_path: Path) -> None:
    path = tmp_path / 'a "report" für Ödön.txt'
    path.write_bytes(b"\r\n--not a boundary\r\n")
    with path.open("rb") as handle:
        await house.send("sendDocument", {"document": InputFile(handle), "caption": "höre"})
    await eventually(lambda: len(house.sent) == 1, "the document")
    shown = house.shown()
    assert shown["caption"] == "höre"
    assert (shown["document"]["file_name"], shown["document"]["mime_type"]) == (
        "a %22report%22 für Ödön.txt",
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


# --- what is not sent


async def test_a_file_that_is_gone_is_a_dead_letter(with_redis: House, redis: "Redis", eventually: Eventually) -> None:
    message = await packed(with_redis.files, "sendDocument", {"document": InputFile(b"soon gone")})
    await redis.flushall()
    await with_redis.queue.enqueue([message])
    await eventually(lambda: with_redis.dead == ["file_gone"], "the dead letter")
    assert with_redis.calls == []


async def test_half_a_file_is_never_taken_for_the_whole(
    with_redis: House, redis: "Redis", eventually: Eventually
) -> None:
    data = os.urandom(3 * PIECE)
    message = await packed(with_redis.files, "sendDocument", {"document": InputFile(data)})
    await redis.hdel(store.file_key(hashlib.sha256(data).hexdigest()), "2")
    await with_redis.queue.enqueue([message])
    await eventually(lambda: with_redis.dead == ["file_gone"], "the dead letter")
    assert (with_redis.calls, with_redis.uploads()) == ([], [])


SECRET = "what is on our disk"


def ref(**fields: object) -> dict[str, object]:
    return {"key": "0" * 64, "name": "x", "type": "text/plain", "size": 5, **fields}


@pytest.mark.parametrize(
    ("kwargs", "files", "reason"),
    [
        ({"document": "file://PATH"}, None, "local_file"),
        ({"document": "attach://PATH"}, None, "local_file"),
        ({"document": "attach://part"}, None, "local_file"),
        ({"document": "attach://part"}, {"other": ref()}, "local_file"),
        ({"document": " attach://part"}, {"part": ref()}, "local_file"),
        ({"media": '[{"type":"document","media":"file://PATH"}]'}, None, "local_file"),
        ({"document": "attach://part"}, {"part": ref(key="PATH")}, "malformed"),
        ({"document": "attach://part"}, {"part": ref(key="../../PATH")}, "malformed"),
        ({"document": "attach://part"}, {"part": ref(key="A" * 64)}, "malformed"),
        ({"document": "attach://part"}, {"part": "PATH"}, "malformed"),
        ({}, {"document": ref(path="PATH")}, "malformed"),
        ({}, {"document": ref()}, "file_gone"),
    ],
)
async def test_no_producer_has_a_file_of_our_disk_sent(
    house: House, redis: "Redis", eventually: Eventually, tmp_path: Path, kwargs: object, files: object, reason: str
) -> None:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    text = json.dumps({"method": "sendDocument", "kwargs": kwargs, "files": files}).replace("PATH", str(path))
    if isinstance(house.queue, RedisQueue):
        element = {"bot_token": TOKEN, "chat_id": 1001, **json.loads(text)}
        await redis.rpush("telegram_messages", json.dumps(element))
    else:
        await house.queue.enqueue([Message(bot=BOT, chat="1001", body=json.loads(text))])
    await eventually(lambda: house.dead == [reason], f"a dead letter: {reason}")
    assert house.calls == []


async def test_a_path_is_only_a_string(
    with_redis: House, redis: "Redis", eventually: Eventually, tmp_path: Path
) -> None:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    element = {"bot_token": TOKEN, "chat_id": 1001, "method": "sendDocument", "kwargs": {"document": str(path)}}
    await redis.rpush("telegram_messages", json.dumps(element))
    await eventually(lambda: len(with_redis.sent) == 1, "the call")
    assert with_redis.uploads() == []
    assert with_redis.shown()["document"]["file_id"] == str(path)


async def test_any_producer_may_name_what_is_in_the_store(
    with_redis: House, redis: "Redis", eventually: Eventually
) -> None:
    _, refs = await with_redis.files.pack({"document": InputFile(b"shared")})
    element = {"bot_token": TOKEN, "chat_id": 1001, "method": "sendDocument", "files": refs}
    await redis.rpush("telegram_messages", json.dumps(element))
    await eventually(lambda: with_redis.uploads() == [b"shared"], "the document")


# --- time, limits, restarts


async def test_what_is_unsent_when_a_queue_in_the_process_stops_is_sent_by_the_next(
    playground: Playground, eventually: Eventually, tmp_path: Path
) -> None:
    files = Files(DiskFiles(tmp_path / "files"))
    first = House(MemoryQueue(journal=tmp_path / "unsent"), files, playground)
    await first.queue.start()
    await first.send("sendDocument", {"document": InputFile(b"kept on disk")})
    await first.queue.close()
    again = Files(DiskFiles(tmp_path / "files"))
    async with House(MemoryQueue(journal=tmp_path / "unsent"), again, playground) as second:
        await eventually(lambda: second.uploads() == [b"kept on disk"], "the document")
