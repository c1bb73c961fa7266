"""Posts updates as Telegram does, at a fixed rate, and costs little: it shares the machine with what it measures.

Requests are made beforehand, and written to kept-alive sockets, of which Telegram has `max_connections`, too.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

CONNECTIONS = 100

_TRIES = 200
_AGAIN = 0.1
"""Seconds after which an update that got no 2xx is posted again."""


def text_update(update_id: int, chat: int, text: str) -> dict[str, Any]:
    person = {"id": chat, "first_name": "Ada", "is_bot": False}
    content = {"message_id": update_id, "date": 1, "chat": {"id": chat, "type": "private"}, "from": person}
    return {"update_id": update_id, "message": {**content, "text": text}}


@dataclass(slots=True)
class _Post:
    """due: when it is to be posted, by the clock of time.perf_counter(). written: when its last try was."""

    request: bytes
    due: float
    written: float = 0.0
    tries: int = 0


class Poster:
    """Posts updates, those of a chat one after the other, again what got no 2xx.

    answers: how often each status came; 0: the connection broke instead.
    seconds: of each answer, from the writing of its request.
    seconds_from_due: from when an update was to be posted to the answer that took it, tries in vain included.
    """

    def __init__(self, url: str, secret: str) -> None:
        self._address = urlsplit(url)
        self._secret = secret
        self.answers: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.seconds_from_due: list[float] = []

    async def offer(self, updates: int, rate: float, update: Callable[[int], dict[str, Any]]) -> float:
        """Posts so many, at a rate a second whether or not they are answered. → seconds until all are

        update: makes the one of a number, from 0.
        """
        made = [update(number) for number in range(updates)]
        posts = [(content["message"]["chat"]["id"], self._request(content)) for content in made]
        lines = [_Line(self) for _ in range(CONNECTIONS)]
        for line in lines:  # all at once, one process would get most of them
            await line.connect()
            await asyncio.sleep(0.005)
        begun = time.perf_counter()
        for number, (chat, request) in enumerate(posts):
            due = begun + number / rate
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            lines[chat % CONNECTIONS].post(_Post(request, due))
        await asyncio.gather(*(line.close() for line in lines))
        return time.perf_counter() - begun

    def _request(self, update: dict[str, Any]) -> bytes:
        body = orjson.dumps(update)
        head = (
            f"POST /telegram/webhook HTTP/1.1\r\nHost: {self._address.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Telegram-Bot-Api-Secret-Token: {self._secret}\r\n\r\n"
        )
        return head.encode() + body

    @property
    def place(self) -> tuple[str, int]:
        assert self._address.hostname
        assert self._address.port
        return self._address.hostname, self._address.port

    def note(self, status: int, post: _Post) -> bool:
        """It was answered so. Whether that was its last try."""
        now = time.perf_counter()
        self.answers[status] += 1
        if status:
            self.seconds.append(now - post.written)
        if 200 <= status < 300:
            self.seconds_from_due.append(now - post.due)
            return True
        assert post.tries < _TRIES, f"refused {_TRIES} times: {post.request!r}"
        return False


class _Line(asyncio.Protocol):
    """One connection, made again when it breaks. What stands in it is posted one after the other."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self._waiting: deque[_Post] = deque()
        self._transport: asyncio.WriteTransport | None = None
        self._under_way = False
        self._answer = b""
        self._empty = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while self._transport is None:
            try:
                await loop.create_connection(lambda: self, *self._poster.place)
            except OSError:
                await asyncio.sleep(_AGAIN)
        self._next()

    def post(self, post: _Post) -> None:
        self._waiting.append(post)
        self._next()

    async def close(self) -> None:
        """When all is answered."""
        while self._waiting:
            self._empty.clear()
            await self._empty.wait()
        self._closing = True
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._answer = None, b""
        if self._closing:
            return
        if self._under_way:
            self._settle(0)
        self._task = asyncio.get_running_loop().create_task(self.connect())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if end and len(body) >= _length(head):
            self._answer = b""
            self._settle(int(head[9:12]))

    def _settle(self, status: int) -> None:
        if self._poster.note(status, self._waiting[0]):
            self._waiting.popleft()
            self._again()
        else:
            asyncio.get_running_loop().call_later(_AGAIN, self._again)

    def _again(self) -> None:
        self._under_way = False
        self._next()

    def _next(self) -> None:
        if not self._waiting:
            self._empty.set()
        elif self._transport and not self._under_way:
            self._under_way, post = True, self._waiting[0]
            post.tries, post.written = post.tries + 1, time.perf_counter()
            self._transport.write(post.request)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def within(seconds: Sequence[float], share: float) -> float:
    """Milliseconds in which this share of the answers came."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
