"""The chat backend's client: what it asks, what it makes of good and of bad answers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bot.chat import ChatBackend, ChatFailed
from tests.bot.chat_server import ChatServer, chat_server
from tests.conftest import free_port, wait_until


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with chat_server() as server:
        yield server


@pytest.fixture
async def chat(server: ChatServer) -> AsyncIterator[ChatBackend]:
    chat = ChatBackend(server.url, "small", "key-1")
    yield chat
    await chat.close()


async def ask(chat: ChatBackend, question: str = "hi") -> list[str]:
    return [piece async for piece in chat.answer([{"role": "user", "content": question}])]


async def test_it_asks_for_a_stream_and_gives_the_pieces(server: ChatServer, chat: ChatBackend) -> None:
    assert await ask(chat) == ["You said ", "hi", "."]
    assert server.asked == [{"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": True}]
    assert server.keys == ["Bearer key-1"]


async def test_without_a_key_it_sends_none(server: ChatServer) -> None:
    chat = ChatBackend(server.url, "small")
    assert await ask(chat) == ["You said ", "hi", "."]
    assert server.keys == [None]
    await chat.close()


async def test_pieces_come_while_the_answer_is_made(server: ChatServer, chat: ChatBackend) -> None:
    server.pause = 0.01
    server.answer = lambda question: [f"{n} " for n in range(20)]
    answer = chat.answer([{"role": "user", "content": "count"}])
    assert await anext(answer) == "0 "
    assert server.open == 1
    assert len([piece async for piece in answer]) == 19


async def test_a_server_that_does_not_stream(server: ChatServer, chat: ChatBackend) -> None:
    server.streams = False
    assert await ask(chat) == ["You said hi."]


async def test_characters_that_come_in_two_halves(server: ChatServer, chat: ChatBackend) -> None:
    server.raw = 'data: {"choices":[{"delta":{"content":"grüße 🙂"}}]}\n\ndata: [DONE]'.encode()
    assert await ask(chat) == ["grüße 🙂"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"data: {nonsense\n\n", "no JSON object"),
        (b"data: [1]\n\n", "no JSON object"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
        (b'data: {"choices": [7]}\n\n', "no answer in it"),
        (b"data: " + b"x" * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
async def test_garbage_in_the_stream(raw: bytes, words: str, server: ChatServer, chat: ChatBackend) -> None:
    server.raw = raw
    with pytest.raises(ChatFailed, match=words):
        await ask(chat)


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500])
async def test_a_refusal(status: int, server: ChatServer, chat: ChatBackend) -> None:
    server.status = status
    with pytest.raises(ChatFailed, match=f"status {status}: .*overloaded"):
        await ask(chat)
    assert len(server.asked) == 1, "nothing is asked twice"


async def test_a_connection_that_breaks(server: ChatServer, chat: ChatBackend) -> None:
    server.broken = True
    answer = chat.answer([{"role": "user", "content": "hi"}])
    assert [await anext(answer) for _ in range(3)] == ["You said ", "hi", "."]
    with pytest.raises(ChatFailed):
        await anext(answer)


async def test_nobody_there() -> None:
    chat = ChatBackend(f"http://127.0.0.1:{free_port()}/v1", "small")
    with pytest.raises(ChatFailed, match="Connect"):
        await ask(chat)
    await chat.close()


async def test_silence(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.chat.SILENCE", 0.2)
    server.gate = asyncio.Event()
    chat = ChatBackend(server.url, "small")
    with pytest.raises(ChatFailed, match=r"nothing came for 0\.2 s"):
        await ask(chat)
    await chat.close()


async def test_whoever_gives_up_ends_the_request(server: ChatServer, chat: ChatBackend) -> None:
    server.pause = 0.01
    server.answer = lambda question: ["x"] * 100_000
    asking = asyncio.create_task(ask(chat))
    await wait_until(lambda: server.open == 1, "the question")
    asking.cancel()
    await wait_until(lambda: server.open == 0, "the end of the request")
