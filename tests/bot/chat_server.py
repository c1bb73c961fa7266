"""A stand-in for a server with OpenAI's API: it streams what it is told to, slowly, badly or not at all."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class ChatServer:
    """answer:  gives the pieces of the answer to a question. raw: bytes that are sent instead.
    pause:   seconds before each piece. gate: if there is one, nothing is answered before it is set.
    broken:  the connection is closed after the pieces, without an end. streams: False: one JSON object, as some do.
    asked:   the bodies of the requests. keys: their Authorization. most: the most that were answered at a time.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answer: Callable[[str], list[str]] = lambda question: ["You said ", question, "."]
        self.raw: bytes | None = None
        self.status = 200
        self.pause = 0.0
        self.gate: asyncio.Event | None = None
        self.broken = False
        self.streams = True
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.open = 0
        self.most = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("Authorization"))
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return await self._answer(request, body)
        finally:
            self.open -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        pieces = self.answer(body["messages"][-1]["content"])
        if self.status != 200:
            return web.json_response({"error": {"message": "overloaded"}}, status=self.status)
        if not self.streams:
            return web.json_response({"choices": [{"message": {"role": "assistant", "content": "".join(pieces)}}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        if self.raw is not None:
            await response.write(self.raw)
            return response
        await response.write(b": a comment\n\n")
        await self._event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for piece in pieces:
            await asyncio.sleep(self.pause)
            await self._event(response, {"choices": [{"delta": {"content": piece}}]})
        if self.broken:
            assert request.transport is not None
            request.transport.close()
            return response
        await self._event(response, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        await self._event(response, {"choices": [], "usage": {"total_tokens": 3}})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _event(self, response: web.StreamResponse, content: object) -> None:
        data = f"data: {json.dumps(content)}\r\n\r\n".encode()
        half = len(data) // 2
        await response.write(data[:half])
        await response.write(data[half:])


@asynccontextmanager
async def chat_server() -> AsyncIterator[ChatServer]:
    server = ChatServer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        if server.gate is not None:
            server.gate.set()
        await runner.cleanup()
