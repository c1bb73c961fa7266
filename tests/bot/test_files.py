"""Packing of PTB's typed data, and the stores: what goes in comes out, once, and goes when nobody needs it."""

import asyncio
import hashlib
import io
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputFile,
    InputMediaDocument,
    InputMediaPhoto,
    InputMediaVideo,
    InputPaidMediaPhoto,
    InputProfilePhotoStatic,
    InputSticker,
)
from telegram.error import BadRequest
from telegram.ext import BaseRateLimiter, ExtBot

from bot import file_store, store
from bot.call import MAX_FILE, FileRef, parse_call
from bot.file_store import KEEP, KEEP_SENT, PIECE, DiskFiles, FileGone, FileStore, RedisFiles
from bot.files import MAX_PHOTO, Files
from queueing.errors import QueueFull

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"


class Seen(BaseRateLimiter[None]):
    """Keeps what PTB gives to a rate limiter, and calls nothing."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def process_request(
        self, callback: Any, args: Any, kwargs: Any, endpoint: str, data: dict[str, Any], rate_limit_args: Any
    ) -> bool:
        self.data = data
        return True


async def typed(call: Callable[[ExtBot[None]], Awaitable[object]]) -> dict[str, Any]:
    """What the hook sees of a call."""
    seen = Seen()
    try:
        await call(ExtBot(TOKEN, rate_limiter=seen))
    except (TypeError, AttributeError):  # PTB makes nothing of our answer
        assert seen.data
    return seen.data


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator["Redis"]:
    client = store.connect(redis_url, 5.0)
    yield client
    await client.aclose()


@pytest.fixture(params=["redis", "disk"])
def a_store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    if request.param == "disk":
        return DiskFiles(tmp_path / "files")
    return RedisFiles(request.getfixturevalue("client"))


@pytest.fixture
def files(a_store: FileStore) -> Files:
    return Files(a_store)


@pytest.fixture
def in_redis(client: "Redis") -> Files:
    return Files(RedisFiles(client))


async def content(files: Files, refs: dict[str, FileRef], name: str) -> bytes:
    [part] = [part for part in await files.open(refs) if part.name == name]
    return b"".join([piece async for piece in part.pieces()])


def keys(redis: "Redis") -> Awaitable[list[str]]:
    return redis.keys("{telegram_messages}:file:*")


# --- what PTB gives


def a_path(tmp_path: Path) -> Path:
    path = tmp_path / "report.txt"
    path.write_bytes(b"by path")
    return path


async def test_a_document_by_path_string_bytes_and_handle(files: Files, tmp_path: Path) -> None:
    path = a_path(tmp_path)
    with path.open("rb") as handle:
        given = [path, str(path), path.read_bytes(), handle, InputFile(b"by path", filename="report.txt")]
        for document in given:
            data = await typed(lambda bot, document=document: bot.send_document(42, document, caption="c"))
            parameters, refs = await files.pack(data)
            assert parameters == {"chat_id": 42, "caption": "c"}
            assert await content(files, refs, "document") == b"by path"
            named = {"name": "application.octet-stream", "type": "application/octet-stream"}
            if not isinstance(document, bytes):
                named = {"name": "report.txt", "type": "text/plain"}
            expected = {"key": hashlib.sha256(b"by path").hexdigest(), "size": 7, **named}
            assert {name: value for name, value in refs["document"].items() if name != "use"} == expected
            assert parse_call({"method": "sendDocument", "kwargs": parameters, "files": refs}, "42").files == refs


async def test_a_handle_that_was_not_read_is_read(files: Files, tmp_path: Path) -> None:
    with a_path(tmp_path).open("rb") as handle:
        _, refs = await files.pack({"document": InputFile(handle, read_file_handle=False)})
    assert await content(files, refs, "document") == b"by path"


async def test_what_is_no_file_stays_as_ptb_has_it(files: Files) -> None:
    markup = InlineKeyboardMarkup([[InlineKeyboardButton("a", url="https://x")]])
    data = await typed(lambda bot: bot.send_photo(42, "file-id", reply_markup=markup, disable_notification=True))
    parameters, refs = await files.pack(data)
    assert refs == {}
    assert parameters == {
        "chat_id": 42,
        "photo": "file-id",
        "disable_notification": True,
        "reply_markup": {"inline_keyboard": [[{"text": "a", "url": "https://x"}]]},
    }


async def test_an_album_has_its_files_and_thumbnails(files: Files) -> None:
    album = [
        InputMediaPhoto(b"one", caption="first"),
        InputMediaVideo(io.BytesIO(b"two"), thumbnail=b"small", cover=b"cover"),
        InputMediaDocument("file-id", thumbnail=b"beside an id"),
    ]
    parameters, refs = await files.pack(await typed(lambda bot: bot.send_media_group(42, album)))
    json.dumps(parameters)
    photo, video, document = parameters["media"]

    async def behind(uri: str) -> bytes:
        return await content(files, refs, uri.removeprefix("attach://"))

    assert (photo["type"], photo["caption"], await behind(photo["media"])) == ("photo", "first", b"one")
    assert await behind(video["media"]) == b"two"
    assert (await behind(video["thumbnail"]), await behind(video["cover"])) == (b"small", b"cover")
    assert (document["media"], await behind(document["thumbnail"])) == ("file-id", b"beside an id")
    assert len(refs) == 5
    parse_call({"method": "sendMediaGroup", "kwargs": parameters, "files": refs}, "42")


async def test_all_objects_that_hold_files(files: Files) -> None:
    data = {
        "sticker": InputSticker(b"sticker", ["🎲"], "static"),
        "media": [InputPaidMediaPhoto(b"paid")],
        "photo": InputProfilePhotoStatic(b"me"),
    }
    parameters, refs = await files.pack(data)
    uris = [parameters["sticker"]["sticker"], parameters["media"][0]["media"], parameters["photo"]["photo"]]
    found = [await content(files, refs, uri.removeprefix("attach://")) for uri in uris]
    assert found == [b"sticker", b"paid", b"me"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"document": InputFile(b"")}, "file must be non-empty"),
        ({"document": InputFile(bytes(MAX_FILE + 1))}, "too big"),
        ({"document": InputFile(io.BytesIO(bytes(MAX_FILE + 1)), read_file_handle=False)}, "too big"),
        ({"photo": InputFile(bytes(MAX_PHOTO + 1))}, "too big"),
        ({"media": [InputMediaPhoto(bytes(MAX_PHOTO + 1))]}, "too big"),
        ({"media": [InputMediaPhoto(Path(__file__))]}, "names a local file"),
        ({"media": [InputMediaDocument("file:///etc/passwd")]}, "names a local file"),
    ],
)
async def test_what_telegram_would_refuse_is_refused_at_once(
    in_redis: Files, redis: "Redis", data: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadRequest, match=complaint):
        await in_redis.pack(data)
    assert await keys(redis) == []


async def test_a_document_may_be_larger_than_a_photo(files: Files) -> None:
    _, refs = await files.pack({"document": InputFile(bytes(MAX_PHOTO + 1))})
    assert refs["document"]["size"] == MAX_PHOTO + 1


async def test_a_name_is_made_printable(files: Files) -> None:
    _, refs = await files.pack({"document": InputFile(b"x", filename="a\r\nb\ud800" + "c" * 300)})
    assert refs["document"]["name"].startswith("a__b_ccc")
    parse_call({"method": "sendDocument", "files": refs}, "42")


# --- the stores


async def put(a_store: FileStore, data: bytes, use: str = "0" * 32, until: float = 0.0) -> str:
    key = hashlib.sha256(data).hexdigest()
    await a_store.put(key, data, use, until)
    return key


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7])
async def test_what_goes_in_comes_out_in_pieces(a_store: FileStore, size: int) -> None:
    data = os.urandom(size)
    key = await put(a_store, data)
    assert await a_store.size(key) == size
    pieces = [piece async for piece in a_store.read(key, size)]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= PIECE


async def test_what_was_never_there_is_gone(a_store: FileStore) -> None:
    with pytest.raises(FileGone):
        await a_store.size("0" * 64)
    with pytest.raises(FileGone):
        await anext(aiter(a_store.read("0" * 64, 5)))


async def test_the_same_content_is_kept_once(in_redis: Files, redis: "Redis") -> None:
    for _ in range(3):
        await in_redis.pack({"document": InputFile(b"again", filename=os.urandom(4).hex())})
    key = "{telegram_messages}:file:" + hashlib.sha256(b"again").hexdigest()
    assert sorted(await keys(redis)) == [key, f"{key}:uses"]
    assert await redis.scard(f"{key}:uses") == 3


async def test_many_that_put_the_same_at_once_do_not_disturb_each_other(client: "Redis") -> None:
    files, data = RedisFiles(client), os.urandom(3 * PIECE + 1)
    [key, *_] = await asyncio.gather(*(put(files, data, f"{number:032x}") for number in range(5)))
    assert b"".join([piece async for piece in files.read(key, len(data))]) == data


async def test_it_outlives_what_is_for_later(client: "Redis", redis: "Redis") -> None:
    files, week = RedisFiles(client), KEEP * 1000
    key = await put(files, b"x")
    name = store.file_key(key)
    assert week - 60_000 < await redis.pttl(name) <= week
    await put(files, b"x", "1" * 32, until=time.time() + 86_400)
    assert week + 86_340_000 < await redis.pttl(name) <= week + 86_400_000
    await put(files, b"x", "2" * 32)
    assert await redis.pttl(name) > week + 86_340_000  # not less than before
    assert await redis.pttl(store.file_uses_key(key)) > week + 86_340_000


async def test_it_goes_soon_after_the_last_use(client: "Redis", redis: "Redis") -> None:
    files = RedisFiles(client)
    key = await put(files, b"x", "1" * 32)
    await put(files, b"x", "2" * 32)
    await files.let_go(key, "1" * 32)
    await files.let_go(key, "1" * 32)  # sent twice, in doubt
    assert await redis.pttl(store.file_key(key)) > KEEP_SENT * 1000
    await files.let_go(key, "2" * 32)
    assert 0 < await redis.pttl(store.file_key(key)) <= KEEP_SENT * 1000
    await put(files, b"x", "3" * 32)
    assert await redis.pttl(store.file_key(key)) > KEEP_SENT * 1000


async def test_pieces_that_went_while_it_was_written_are_written_again(client: "Redis", redis: "Redis") -> None:
    files, data = RedisFiles(client), os.urandom(2 * PIECE)
    key = hashlib.sha256(data).hexdigest()
    await redis.hset(store.file_key(key), mapping={"1": "half", "size": len(data)})
    await put(files, data)
    assert b"".join([piece async for piece in files.read(key, len(data))]) == data


async def test_a_full_server_says_so_and_keeps_nothing_for_long(client: "Redis", redis: "Redis") -> None:
    files = Files(RedisFiles(client))
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", used + 3 * PIECE)
    try:
        with pytest.raises(QueueFull):
            await files.pack({"document": InputFile(os.urandom(20 * PIECE))})
    finally:
        await redis.config_set("maxmemory", 0)
    for key in await keys(redis):
        assert 0 < await redis.pttl(key) <= 60_000 or key.endswith(":uses")


async def test_what_was_packed_before_a_failure_is_let_go(in_redis: Files, redis: "Redis") -> None:
    with pytest.raises(BadRequest):
        await in_redis.pack({"media": [InputMediaPhoto(b"good"), InputMediaPhoto(InputFile(b"", attach=True))]})
    [key] = await keys(redis)
    assert await redis.pttl(key) <= KEEP_SENT * 1000


async def test_on_disk_nobody_else_can_read_it_and_age_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "files"
    files = DiskFiles(directory)
    old = await put(files, b"old")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / old).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(file_store, "_SWEEP_EVERY", 0.0)
    new = await put(files, b"new")
    os.utime(directory / old, (0, 0))
    await put(files, b"newer")
    assert not (directory / old).exists()
    assert (directory / new).exists()
    os.utime(directory / new, (0, time.time() + 5))
    await put(files, b"new")  # renewed
    assert (directory / new).stat().st_mtime > time.time() + KEEP - 60
