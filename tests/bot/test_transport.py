"""The HTTP client under PTB, against real sockets: what was written, what was not, and nothing twice."""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter
from telegram import Bot
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)

from bot import transport
from bot.multipart import Form, in_memory
from bot.playground import Playground
from bot.transport import (
    MAY_WRITE,
    AiohttpRequest,
    BadAnswer,
    Flood,
    LeaseEnded,
    NoAnswer,
    NoAnswerInTime,
    NotFound,
    NotWritten,
    ServerError,
    TooLarge,
)
from tests.bot.raw_server import Move, RawServer, answer, cut, disconnect, hang, listening, ok, refuse, reset
from tests.conftest import free_port

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
SECRET = TOKEN.partition(":")[2]
Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
async def request_() -> AsyncIterator[AiohttpRequest]:
    request = AiohttpRequest(5.0)
    yield request
    await request.shutdown()


@contextlib.contextmanager
def asking(may_write: Callable[[], bool]) -> Iterator[None]:
    """Within it, `may_write` is asked before a request is written."""
    before = MAY_WRITE.set(may_write)
    try:
        yield
    finally:
        MAY_WRITE.reset(before)


def address(url: str, method: str = "sendMessage") -> str:
    return f"{url}/bot{TOKEN}/{method}"


async def send(request: AiohttpRequest, url: str, seconds: float = 5.0) -> object:
    return await request.call(address(url), {"chat_id": "42", "text": "hi"}, seconds)


async def test_a_call_is_plain_json_and_brings_the_result(request_: AiohttpRequest) -> None:
    async with RawServer(ok({"message_id": 7})) as server:
        assert await send(request_, server.url) == {"message_id": 7}
    [request] = server.requests
    assert request.target == f"/bot{TOKEN}/sendMessage"
    assert request.headers["Content-Type"] == "application/json"
    assert request.json == {"chat_id": "42", "text": "hi"}


async def test_calls_share_a_connection(request_: AiohttpRequest) -> None:
    async with RawServer(ok()) as server:
        for _ in range(3):
            await send(request_, server.url)
    assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize("value", [10**30, "half \ud83d", {1: 2}, [float("nan")]])
async def test_what_the_fast_encoder_refuses_is_left_to_telegram(request_: AiohttpRequest, value: object) -> None:
    async with RawServer(ok()) as server:
        assert await request_.call(address(server.url), {"odd": value}, 5.0) is True


async def test_proxies_of_the_environment_are_not_used(
    request_: AiohttpRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with RawServer(ok()) as server:
        assert await send(request_, server.url) is True


async def test_after_a_shutdown_it_opens_anew(request_: AiohttpRequest) -> None:
    async with RawServer(ok()) as server:
        await send(request_, server.url)
        await request_.shutdown()
        await request_.shutdown()
        assert await send(request_, server.url) is True


# --- was it written?


async def test_connection_refused_is_not_written(request_: AiohttpRequest) -> None:
    with pytest.raises(NotWritten, match="Connect call failed"):
        await send(request_, f"http://127.0.0.1:{free_port()}")


async def test_an_unknown_host_is_not_written(request_: AiohttpRequest) -> None:
    with pytest.raises(NotWritten):
        await send(request_, "http://no-such-host.invalid")


async def test_a_failed_tls_handshake_is_not_written(request_: AiohttpRequest) -> None:
    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"this is no TLS\r\n")
        await reader.read()

    async with listening(no_tls) as port:
        with pytest.raises(NotWritten):
            await send(request_, f"https://127.0.0.1:{port}")


async def test_a_connection_that_takes_too_long_is_not_written(request_: AiohttpRequest) -> None:
    async with RawServer(hang) as server:
        with pytest.raises(NotWritten, match=r"no connection within 0\.1 s"):
            await send(request_, server.url.replace("http://", "https://"), seconds=0.1)


async def test_an_upload_on_a_connection_closed_at_the_last_moment_is_not_written() -> None:
    loop = asyncio.get_running_loop()
    gate = transport._Gate(None)
    body = transport._FormBody(Form({}, [in_memory("a", "a.txt", "text/plain", b"content")]), gate)
    with pytest.raises(aiohttp.ClientConnectionResetError):
        await body.write(StreamWriter(BaseProtocol(loop), loop))
    assert not gate.written


@pytest.mark.parametrize("move", [disconnect, reset, cut])
async def test_a_connection_lost_after_the_request_is_no_answer(request_: AiohttpRequest, move: Move) -> None:
    async with RawServer(move) as server:
        with pytest.raises(NoAnswer) as caught:
            await send(request_, server.url)
    assert not isinstance(caught.value, TimedOut)
    assert len(server.requests) == 1


async def test_a_late_answer_is_no_answer_in_time(request_: AiohttpRequest) -> None:
    async with RawServer(hang) as server:
        with pytest.raises(NoAnswerInTime, match=r"no answer within 0\.1 s"):
            await send(request_, server.url, seconds=0.1)
    assert issubclass(NoAnswerInTime, TimedOut)


async def test_a_request_written_in_part_is_no_answer(request_: AiohttpRequest) -> None:
    async def read_a_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100)
        await reset(writer)

    async with listening(read_a_little) as port:
        with pytest.raises(NoAnswer):
            await request_.call(address(f"http://127.0.0.1:{port}"), {"text": "x" * 20_000_000}, 5.0)


async def test_a_post_is_never_repeated_on_a_connection_that_turned_out_closed(request_: AiohttpRequest) -> None:
    async with RawServer(ok(), disconnect, ok()) as server:
        await send(request_, server.url)
        with pytest.raises(NoAnswer):
            await send(request_, server.url)
        assert len(server.requests) == 2


async def test_a_get_in_the_same_place_is_repeated(request_: AiohttpRequest) -> None:
    """Shows that the test above is about something: where it is harmless, it is done."""
    async with RawServer(answer(200, b"a"), disconnect, answer(200, b"content")) as server:
        await request_.retrieve(f"{server.url}/file/bot{TOKEN}/a.txt")
        assert await request_.retrieve(f"{server.url}/file/bot{TOKEN}/a.txt") == b"content"
        assert [request.method for request in server.requests] == ["GET", "GET", "GET"]


async def test_a_download_has_as_much_time_as_an_upload() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.1)
            writer.write(b"x")

    hasty = AiohttpRequest(0.2)
    async with RawServer(drip) as server:
        assert await hasty.retrieve(f"{server.url}/file/bot{TOKEN}/a.txt") == b"xxxx"
    await hasty.shutdown()


async def test_a_redirect_is_not_followed(request_: AiohttpRequest) -> None:
    async def move(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    async with RawServer(move, ok()) as server:
        with pytest.raises(BadAnswer, match="status 307"):
            await send(request_, server.url)
        assert len(server.requests) == 1


# --- may it be written?


async def test_nothing_is_written_once_the_lease_has_ended(request_: AiohttpRequest) -> None:
    async with RawServer(ok()) as server:
        with asking(lambda: False), pytest.raises(LeaseEnded):
            await send(request_, server.url)
        assert server.requests == []
        assert await send(request_, server.url) is True
        assert server.connections == 1, "what was made too late for one request is there for the next"


async def test_an_upload_asks_as_well(request_: AiohttpRequest) -> None:
    async with RawServer(ok()) as server:
        bot = Bot(TOKEN, f"{server.url}/bot", request=request_, get_updates_request=request_)
        with asking(lambda: False), pytest.raises(LeaseEnded):
            await bot.send_document(42, b"content")
        assert server.requests == []


async def test_it_asks_once_when_connected(request_: AiohttpRequest) -> None:
    asked: list[int] = []

    def ask() -> bool:
        asked.append(len(server.requests))
        return True

    async with RawServer(ok()) as server:
        with asking(ask):
            with pytest.raises(NotWritten):
                await send(request_, f"http://127.0.0.1:{free_port()}")
            assert asked == []
            await send(request_, server.url)
            await send(request_, server.url)
        assert asked == [0, 1]


async def test_a_lease_that_ends_while_a_connection_is_made_is_noticed(
    request_: AiohttpRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = {"ended": False}
    loop = asyncio.get_running_loop()
    resolve, asked, release = loop.getaddrinfo, asyncio.Event(), asyncio.Event()

    async def late(*args: Any, **options: Any) -> Any:
        asked.set()
        await release.wait()
        return await resolve(*args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", late)
    async with RawServer(ok()) as server:
        with asking(lambda: not lease["ended"]):
            connecting = asyncio.create_task(send(request_, server.url.replace("127.0.0.1", "localhost")))
        await asked.wait()
        lease["ended"] = True
        release.set()
        with pytest.raises(LeaseEnded):
            await connecting
        assert (server.connections, server.requests) == (1, [])


async def test_nobody_waits_for_a_connection(request_: AiohttpRequest, eventually: Eventually) -> None:
    """As many as QUEUE_WORKERS, whose calls all take long: each has its whole SEND_TIMEOUT for the answer."""
    release = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await ok()(writer)

    async with RawServer(late) as server:
        calls = [asyncio.create_task(send(request_, server.url, 20.0)) for _ in range(150)]
        await eventually(lambda: len(server.requests) == len(calls), "every call to be written")
        release.set()
        assert await asyncio.gather(*calls) == [True] * len(calls)


# --- what an answer means


@pytest.mark.parametrize(
    ("move", "error", "text"),
    [
        (refuse(400, "Bad Request: chat not found"), BadRequest, "Chat not found"),
        (refuse(401, "Unauthorized"), InvalidToken, "Unauthorized"),
        (refuse(403, "Forbidden: bot was blocked by the user"), Forbidden, "blocked"),
        (refuse(404, "Not Found"), NotFound, "Not Found"),
        (refuse(409, "Conflict: terminated by other getUpdates request"), Conflict, "terminated"),
        (refuse(413, "Request Entity Too Large"), TooLarge, "Too Large"),
        (refuse(429, "Too Many Requests: retry after 9", retry_after=9), Flood, "9 seconds"),
        (refuse(429, "Too Many Requests"), Flood, "5 seconds"),
        (refuse(400, "Bad Request: upgraded", migrate_to_chat_id=-1007), ChatMigrated, "-1007"),
        (refuse(500, "Internal Server Error"), ServerError, "500"),
        (refuse(418, "I'm a teapot"), NetworkError, "teapot"),
        (answer(502, "<html>Bad Gateway"), ServerError, "502.*not from the Bot API"),
        (answer(403, "<html>Denied"), BadAnswer, "403.*not from the Bot API.*Denied"),
        (answer(404, "[]"), BadAnswer, "404"),
        (answer(413, "<html>"), TooLarge, "Too Large"),
        (answer(429, "slow down"), Flood, "5 seconds"),
        (answer(200, "<html>Welcome"), BadAnswer, "no result.*Welcome"),
        (answer(200, "[1, 2]"), BadAnswer, "no result"),
        (answer(200, {"ok": False}), BadAnswer, "no result"),
        (answer(400, {"description": "odd", "parameters": ["odd"]}), BadRequest, "odd"),
        (answer(429, {"description": "odd", "parameters": {"retry_after": "soon"}}), Flood, "5 seconds"),
        *[(refuse(429, "odd", retry_after=odd), Flood, " 5 seconds") for odd in (True, 0, -1, -1e300, None, [9])],
        *[(refuse(429, "odd", retry_after=long), Flood, " 86400 seconds") for long in (86_401, 1e12, 1e300, 10**30)],
        *[(refuse(429, "odd", retry_after=no), Flood, " 5 seconds") for no in (float("nan"), float("inf"))],
        *[
            (refuse(400, "upgraded", migrate_to_chat_id=odd), BadAnswer, "is no chat")
            for odd in (True, "-1007", -1007.5, None, {"id": -1007})
        ],
    ],
)
async def test_answers_become_exceptions(
    request_: AiohttpRequest, move: Move, error: type[TelegramError], text: str
) -> None:
    async with RawServer(move) as server:
        with pytest.raises(error, match=text) as caught:
            await send(request_, server.url)
        assert type(caught.value) is error
        bot = Bot(TOKEN, f"{server.url}/bot", request=request_, get_updates_request=request_)
        with pytest.raises(error, match=text):
            await bot.send_message(42, "PTB gets the same")


def test_a_flood_is_what_ptb_knows_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    flood = Flood(3)
    assert isinstance(flood, RetryAfter)
    assert (flood.seconds, flood.retry_after) == (3, timedelta(seconds=3))


async def test_only_the_bot_api_itself_describes_its_errors(request_: AiohttpRequest) -> None:
    async with RawServer(refuse(502, "Bad Gateway"), answer(502, "<html>")) as server:
        described = []
        for _ in range(2):
            with pytest.raises(ServerError) as caught:
                await send(request_, server.url)
            described.append(caught.value.described)
    assert described == [True, False]


@pytest.mark.parametrize(
    "move",
    [
        disconnect,
        hang,
        cut,
        answer(404, f"<html>no such page: /bot{TOKEN}/sendMessage"),
        answer(200, f"<html>/bot{TOKEN}/sendMessage"),
    ],
)
async def test_no_error_shows_the_token(request_: AiohttpRequest, move: Move, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with RawServer(move) as server:
        with pytest.raises(TelegramError) as caught:
            await send(request_, server.url, seconds=0.2)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert SECRET not in shown
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


async def test_no_error_of_a_connection_shows_the_token(request_: AiohttpRequest) -> None:
    with pytest.raises(NotWritten) as caught:
        await send(request_, f"http://127.0.0.1:{free_port()}")
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


# --- under PTB, against the stand-in


async def test_ptb_works_over_it_unchanged(request_: AiohttpRequest, playground: Playground) -> None:
    base, files = f"{playground.url}/bot", f"{playground.url}/file/bot"
    async with Bot(TOKEN, base, files, request=request_, get_updates_request=request_) as bot:
        assert bot.id == 110201543
        message = await bot.send_message(1001, "hello", parse_mode="HTML", disable_notification=True)
        assert (message.text, message.chat.id) == ("hello", 1001)
        edited = await message.edit_text("better")
        assert not isinstance(edited, bool)
        assert edited.text == "better"
        document = await bot.send_document(1001, b"the content", filename="a.txt", caption="mine")
        assert document.document
        file = await bot.get_file(document.document.file_id)
        assert bytes(await file.download_as_bytearray()) == b"the content"


async def test_a_long_poll_gets_its_time(playground: Playground) -> None:
    request = AiohttpRequest(1.5)
    async with Bot(TOKEN, f"{playground.url}/bot", request=request, get_updates_request=request) as bot:
        assert await bot.get_updates(timeout=2) == ()


async def test_an_upload_gets_six_times_as_long() -> None:
    request = AiohttpRequest(0.5)

    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.8)
        await ok({"message_id": 1, "date": 1, "chat": {"id": 42, "type": "private"}})(writer)

    async with RawServer(slow) as server:
        bot = Bot(TOKEN, f"{server.url}/bot", request=request, get_updates_request=request)
        assert (await bot.send_document(42, b"content")).message_id == 1
        with pytest.raises(NoAnswerInTime):
            await bot.send_message(42, "text")
    await request.shutdown()
