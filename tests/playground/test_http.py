"""HTTP as clients speak it, well and badly, seen from a bare socket."""

import asyncio
import json

import pytest

from bot.playground.http import MAX_BODY

from .conftest import TOKEN, eventually

FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


async def talk(playground, *parts: bytes | str) -> bytes:
    """Send the parts one by one, and read until the server closes or has answered all."""
    port = int(playground.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part.encode() if isinstance(part, str) else part)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def post(body: str, head: str = "Connection: close\r\n", version: str = "1.1") -> str:
    lines = f"POST /bot{TOKEN}/sendMessage HTTP/{version}\r\nHost: x\r\n{FORM}{head}"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n{body}"


@pytest.mark.parametrize(
    "parts",
    [
        [post("chat_id=1&text=a%20b")],
        [post("chat_id=1&text=a+b", head="", version="1.0")],
        [*post("chat_id=1&text=a+b")],  # one byte at a time
        [post("chat_id=1&text=a+b", head="Expect: 100-continue\r\nConnection: close\r\n")],
        [f"POST /bot{TOKEN}/sendMessage HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
         f"{FORM}Transfer-Encoding: chunked\r\n\r\n",
         "9\r\nchat_id=1\r\n", "9\r\n&text=a+b\r\n", "0\r\n\r\n"],
        [f"GET /bot{TOKEN}/sendMessage?chat_id=1&text=a+b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
        [f"POST /bot{TOKEN}/SENDMESSAGE?chat_id=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
         'Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{"text":"a b"}'],
    ],
)  # fmt: skip
async def test_each_way_to_say_it(playground, parts):
    answer = await talk(playground, *parts)
    assert b" 200 OK" in answer
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["result"]["text"] == "a b"


async def test_pipelined_calls_are_answered_in_order(playground):
    calls = [post(f"chat_id=1&text={n}", head="") for n in range(200)] + [post("chat_id=1&text=end")]
    answer = await talk(playground, "".join(calls))
    assert answer.count(b" 200 OK") == 201
    assert answer.index(b'"text":"0"') < answer.index(b'"text":"199"') < answer.index(b'"text":"end"')


async def test_a_slow_answer_holds_the_pipelined_ones(playground, control):
    await control("PUT", "faults", {"kind": "latency", "ms": 50, "chat": 1})
    answer = await talk(playground, post("chat_id=1&text=slow", head="") + post("chat_id=2&text=quick"))
    assert answer.index(b'"slow"') < answer.index(b'"quick"')


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("nonsense\r\n\r\n", b" 400 "),
        (f"POST /bot{TOKEN}/sendPhoto HTTP/1.1\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n", b" 413 "),
        ("GET / HTTP/1.1\r\nX: " + "x" * 70_000, b" 431 "),
        ("GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", b" 404 "),
        ("GET /page/../server.py HTTP/1.1\r\nConnection: close\r\n\r\n", b" 404 "),
    ],
)
async def test_refusals(playground, request_text, status):
    assert status in await talk(playground, request_text)


async def test_a_defect_is_answered(playground, monkeypatch):
    monkeypatch.setattr(playground.world.ledger, "add", None)
    assert b" 500 " in await talk(playground, post("chat_id=1&text=x"))


async def test_nothing_stays_open(playground):
    await talk(playground, post("chat_id=1&text=x"))
    await eventually(lambda: not playground._connections)


async def test_the_ledger_knows_who_called(playground, http):
    headers = {"X-Telequeue-Process": "web-3", "User-Agent": "tester"}
    async with http.post(f"/bot{TOKEN}/sendMessage", data={"chat_id": "@Some_channel", "text": "x" * 300},
                         headers=headers):  # fmt: skip
        found = playground.world.ledger[0]
    assert (found.process, found.user_agent, found.text_length) == ("web-3", "tester", 300)
    assert found.text == "x" * 256
    assert found.peer_port > 0
    assert found.chat < -(10**12)
