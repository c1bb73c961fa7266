"""The connections that messages leave by, against real sockets: whose answer it is, and which connection lives on."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bot import posting
from bot.posting import Posts
from tests.bot.raw_server import Move, RawServer, answer, disconnect, hang, listening, ok

Eventually = Callable[..., Awaitable[None]]

CERTIFICATE = Path(__file__).parent / "localhost.pem"
"""Of localhost, signed by itself, with its key: it proves nothing to anybody but these tests. Ends in 2126."""


@pytest.fixture
async def posts() -> AsyncIterator[Posts]:
    posts = Posts()
    yield posts
    await posts.close()


def nothing() -> None:
    pass


async def post(posts: Posts, url: str, body: bytes = b"{}", seconds: float = 5.0) -> tuple[int, bytes]:
    return await posts.post(f"{url}/bot1:a/sendMessage", body, nothing, seconds)


def in_pieces(text: bytes, size: int = 1) -> Move:
    async def move(writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(text), size):
            writer.write(text[start : start + size])
            await writer.drain()

    return move


def then_close(text: bytes) -> Move:
    async def move(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()

    return move


def pause(seconds: float, text: bytes) -> Move:
    async def move(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await answer(200, text)(writer)

    return move


async def test_what_is_written_is_a_whole_request(posts: Posts) -> None:
    async with RawServer(answer(200, b"there")) as server:
        assert await post(posts, server.url + "/api", b'{"text":"\xc3\xa4"}') == (200, b"there")
        [request] = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/api/bot1:a/sendMessage", b'{"text":"\xc3\xa4"}')
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Host"] == server.url.removeprefix("http://")


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_may_come_in_any_pieces(posts: Posts, size: int) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    async with RawServer(in_pieces(chunked, size)) as server:
        for _ in range(2):
            assert await post(posts, server.url) == (200, b"abc0123456789abcdef")
        assert server.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection(posts: Posts) -> None:
    async with RawServer(then_close(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"), ok()) as server:
        assert await post(posts, server.url) == (502, b"<html>")
        assert (await post(posts, server.url))[0] == 200
        assert server.connections == 2


@pytest.mark.parametrize(
    "text",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
)
async def test_half_an_answer_is_none(posts: Posts, text: bytes) -> None:
    async with RawServer(then_close(text)) as server:
        with pytest.raises(ConnectionResetError):
            await post(posts, server.url)


async def test_what_comes_before_the_answer_is_not_it(posts: Posts) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with RawServer(in_pieces(early + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 11)) as server:
        assert await post(posts, server.url) == (200, b"ok")


@pytest.mark.parametrize(
    "text",
    [
        b"\0\1\2 this is no HTTP\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: much\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_said(posts: Posts, text: bytes) -> None:
    async with RawServer(in_pieces(text, 1000), ok()) as server:
        with pytest.raises(ConnectionError, match=r"no answer of HTTP/1\.1"):
            await post(posts, server.url)
        assert (await post(posts, server.url))[0] == 200


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"], ids=["close", "HTTP/1.0"]
)
async def test_a_connection_that_the_server_ends_is_not_used_again(posts: Posts, head: bytes) -> None:
    async with RawServer(in_pieces(head + b"Content-Length: 2\r\n\r\nok", 1000)) as server:
        for _ in range(2):
            assert await post(posts, server.url) == (200, b"ok")
        assert server.connections == 2


async def test_two_answers_to_one_request_are_one_too_many(posts: Posts, eventually: Eventually) -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d"
    async with RawServer(in_pieces(one % 1 + one % 2, 1000), answer(200, b"3")) as server:
        assert await post(posts, server.url) == (200, b"1")
        await eventually(lambda: server.open == 0, "the connection to be ended")
        assert await post(posts, server.url) == (200, b"3")


@pytest.mark.parametrize("more", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwr"])
async def test_half_an_answer_behind_the_answer_is_not_the_next_ones(posts: Posts, more: bytes) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"
    async with RawServer(in_pieces(whole + more, len(whole + more)), ok()) as server:
        assert await post(posts, server.url) == (200, b"right")
        assert (await post(posts, server.url))[1] == b'{"ok": true, "result": true}'
        assert server.connections == 2


@pytest.mark.parametrize("name", ["gzip", "GZIP", "deflate"])
async def test_what_was_packed_unasked_is_read(posts: Posts, name: str) -> None:
    pack = gzip.compress if name.lower() == "gzip" else zlib.compress
    packed = pack(b'{"ok":true}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {name}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with RawServer(in_pieces(head + packed, 7), in_pieces(head + b"x" * len(packed), 7)) as server:
        assert await post(posts, server.url) == (200, b'{"ok":true}')
        assert await post(posts, server.url) == (200, b"x" * len(packed))


async def test_who_answers_before_it_has_read_gets_no_other_request(posts: Posts) -> None:
    """It may never read the rest, and the next request would stand behind that."""

    async def refuse_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with listening(refuse_unread) as port:
        for _ in range(2):
            assert await post(posts, f"http://127.0.0.1:{port}", bytes(20_000_000)) == (413, b"")


async def test_what_is_said_without_being_asked_ends_the_connection(posts: Posts, eventually: Eventually) -> None:
    said = asyncio.Event()

    async def more(writer: asyncio.StreamWriter) -> None:
        await answer(200, b"1")(writer)
        await said.wait()
        await answer(408, b"too slow")(writer)

    async with RawServer(more, answer(200, b"2")) as server:
        assert await post(posts, server.url) == (200, b"1")
        said.set()
        await eventually(lambda: server.open == 0, "the connection to be ended")
        assert await post(posts, server.url) == (200, b"2")


async def test_an_answer_after_the_end_is_nobody_elses(posts: Posts) -> None:
    """Neither after a timeout nor after a cancellation."""
    async with RawServer(hang) as server:
        with pytest.raises(TimeoutError):
            await post(posts, server.url, seconds=0.05)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await post(posts, server.url, seconds=60.0)
        server._moves[0] = answer(200, b"mine")
        assert await post(posts, server.url) == (200, b"mine")
        assert server.connections == 3


async def test_each_request_has_its_own_time(posts: Posts) -> None:
    """On one connection: a short one after a long one ends in time, and the end of a short one is not a long one's."""
    slowly = pause(0.3, b"slowly")
    async with RawServer(ok(), hang, ok(), slowly) as server:
        await post(posts, server.url, seconds=60.0)
        async with asyncio.timeout(10):
            with pytest.raises(TimeoutError):
                await post(posts, server.url, seconds=0.05)
        await post(posts, server.url, seconds=0.2)
        assert await post(posts, server.url, seconds=60.0) == (200, b"slowly")
        assert server.connections == 2


async def test_a_connection_that_ended_meanwhile_is_not_used(posts: Posts, eventually: Eventually) -> None:
    async with RawServer(then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), ok()) as server:
        await post(posts, server.url)
        await eventually(lambda: not posts._open, "the end to be noticed")
        assert (await post(posts, server.url))[0] == 200


async def test_many_at_once_get_each_its_own_answer(posts: Posts) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            await asyncio.sleep(length % 3 / 1000)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, body))

    async with listening(echo) as port:
        bodies = [b"x" * n for n in range(50)]
        for _ in range(4):
            answers = await asyncio.gather(*(post(posts, f"http://127.0.0.1:{port}", body) for body in bodies))
            assert answers == [(200, body) for body in bodies]


async def test_what_nobody_uses_is_closed(
    posts: Posts, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(posting, "KEEPALIVE", 0.05)
    async with RawServer(ok()) as server:
        await asyncio.gather(*(post(posts, server.url) for _ in range(3)))
        assert server.connections == 3
        await eventually(lambda: server.open == 0, "them to be closed")
        assert (await post(posts, server.url))[0] == 200


async def test_what_is_too_old_is_not_used_even_before_it_is_closed(posts: Posts) -> None:
    async with RawServer(ok()) as server:
        await post(posts, server.url)
        [connection] = posts._open
        connection.free_since -= posting.KEEPALIVE
        assert await post(posts, server.url) == (200, b'{"ok": true, "result": true}')
        assert server.connections == 2
        assert connection not in posts._open


async def test_a_host_has_many_addresses(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer costs a quarter of a second, not the message."""
    loop = asyncio.get_running_loop()
    async with RawServer(ok()) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.2", port))  # nobody listens there

            async def addresses(*_args: object, **_options: object) -> list[tuple[object, ...]]:
                hosts = ("127.0.0.2", "127.0.0.1")
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

            monkeypatch.setattr(loop, "getaddrinfo", addresses)
            assert (await post(posts, f"http://bots.example:{port}"))[0] == 200
        assert server.requests[0].headers["Host"] == f"bots.example:{port}"


async def test_over_tls_it_is_the_same(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(CERTIFICATE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n{}"):
                await ok()(writer)
        writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0, ssl=served)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        with pytest.raises(ssl.SSLCertVerificationError):
            await post(posts, url)
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        monkeypatch.setattr(posting, "_tls", lambda: trusting)
        for _ in range(2):
            assert (await post(posts, url))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            await post(posts, url.replace("localhost", "127.0.0.2"))
    finally:
        await posts.close()
        server.close()
        await server.wait_closed()


async def test_at_its_end_nothing_stays_open(eventually: Eventually) -> None:
    posts = Posts()
    async with RawServer(ok(), hang) as server:
        await post(posts, server.url)
        waiting = asyncio.create_task(post(posts, server.url))
        await eventually(lambda: len(server.requests) == 2, "the second request to be written")
        await posts.close()
        with pytest.raises(ConnectionError):
            await waiting


async def test_a_server_that_closes_at_once_is_noticed(posts: Posts) -> None:
    async with RawServer(disconnect) as server:
        with pytest.raises(ConnectionResetError):
            await post(posts, server.url)
