"""uvicorn's side of a connection: what comes out of it is HTTP as before."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.body import ARRIVED
from tests.bot.served import listening


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def nothing(_request: Request) -> Response:
    return Response(status_code=204)


async def in_parts(_request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            yield part

    return StreamingResponse(parts())


async def arrived(request: Request) -> Response:
    return PlainTextResponse(str(request.scope["state"][ARRIVED]))


async def broken(_request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b""
        raise RuntimeError("a mistake after the head")

    return StreamingResponse(parts(), headers={"content-length": "10"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    routes = [
        Route("/echo", echo, methods=["GET", "POST"]),
        Route("/nothing", nothing),
        Route("/parts", in_parts),
        Route("/arrived", arrived),
        Route("/broken", broken),
    ]
    async with listening(Starlette(routes=routes)) as client:
        yield client


async def raw(client: httpx.AsyncClient, *requests: bytes) -> bytes:
    """What a connection answers to these, written at once, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(b"".join(requests))
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def test_answers_with_a_body_without_one_and_in_parts(client: httpx.AsyncClient) -> None:
    assert (await client.post("/echo", content="hello")).text == "hello"
    assert (await client.get("/echo")).text == ""
    assert (await client.get("/nothing")).status_code == 204
    assert (await client.get("/parts")).text == "one two three"


async def test_head_is_answered_without_a_body(client: httpx.AsyncClient) -> None:
    response = await client.head("/echo")
    assert (response.status_code, response.content) == (200, b"")
    assert (await client.post("/echo", content="next")).text == "next"


async def test_requests_that_come_together_are_answered_in_their_order(client: httpx.AsyncClient) -> None:
    last = request("POST", "/echo", "Content-Length: 1", "Connection: close") + b"c"
    answers = await raw(client, request("GET", "/nothing"), request("HEAD", "/echo"), request("GET", "/parts"), last)
    statuses = [line for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert [status[9:12] for status in statuses] == [b"204", b"200", b"200", b"200"]
    assert answers.endswith(b"\r\n\r\nc")


async def test_who_asks_first_is_told_to_go_on(client: httpx.AsyncClient) -> None:
    head = request("POST", "/echo", "Content-Length: 2", "Expect: 100-continue", "Connection: close")
    answers = await raw(client, head, b"hi")
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answers.endswith(b"\r\n\r\nhi")


async def test_an_answer_that_breaks_off_ends_the_connection(client: httpx.AsyncClient) -> None:
    answers = await raw(client, request("GET", "/broken"))
    assert answers.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_says_when_it_came(client: httpx.AsyncClient) -> None:
    before = asyncio.get_running_loop().time()
    assert before - 1 < float((await client.get("/arrived")).text) < before + 60
