"""The HTTP client under python-telegram-bot, and an exact answer to "was the request written?".

JSON goes out by bot/posting.py, which asks `MAY_WRITE` when it has a connection, immediately before it writes: so a
process that was stopped while it connected asks after it runs on. What fails before is NotWritten, what fails after is
NoAnswer. Where it is too late, the connection is kept for the next request: where connecting takes longer than a
request has until it must be written, no request would ever find one.

Files go by aiohttp, up and down. A form's first byte leaves in its body's `write`, which asks (aiohttp holds the
headers back until then); before that it is asked as soon as there is a connection, for the same reason. A form is
written as its files are read, piece by piece. One that ends before its last byte was handed over is CutOff: nobody
carries out half a request. `MAY_WRITE` is told of its end, if it is a Permit: that is when it arrived.

No POST is written twice; redirects are not followed.

Answers of Telegram become PTB's exceptions here, or children of them where a status would be lost otherwise. No text
of an exception holds a token, and none carries the exception of aiohttp with it, whose text may hold the URL.
"""

import json
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.payload import Payload
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
from telegram.request import BaseRequest, RequestData

from bot.multipart import Form, Part, in_memory
from bot.posting import KEEPALIVE, Posts
from monitoring.logs import mask
from queueing.errors import QueueError
from queueing.worker import MayWrite, Permit

MAY_WRITE: Final[ContextVar[MayWrite | None]] = ContextVar("may_write", default=None)
"""Asked before the first byte of a POST made in this context; None: it may always be written."""

UPLOAD_FACTOR = 6
"""An upload, or a download, may take this many times as long as any other call (CONTRACT: `SEND_TIMEOUT`)."""

FLOOD_WAIT = 5.0
"""Seconds to wait after a 429 that doesn't say how long; only something in front of Telegram answers so."""

LONGEST_WAIT = 24 * 3600.0
"""Seconds that anything waits at most because an answer said so. Telegram's own waits are shorter."""

_NO_CEILING = 1e9  # aiohttp rounds timeouts above this threshold up to whole seconds
_EXCERPT = 100


class LeaseEnded(TelegramError):
    """`MAY_WRITE` said no: nothing was written."""


class NotWritten(NetworkError):
    """The request failed before its first byte was written: Telegram knows nothing of it."""


class CutOff(NetworkError):
    """The writing of a request with files ended before its last byte: it was not carried out."""


class NoAnswer(NetworkError):
    """The request was written, wholly or in part, and no answer came: it may have been carried out."""


class NoAnswerInTime(NoAnswer, TimedOut):
    """The request was written and no answer came in time. PTB's own code looks for TimedOut."""


class ServerError(NetworkError):
    """A 5xx. `described`: by the Bot API itself; else something in front of it answered, and nothing is known."""

    def __init__(self, message: str, *, described: bool) -> None:
        super().__init__(message)
        self.described = described


class BadAnswer(NetworkError):
    """An answer that isn't the Bot API's. `status`: the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(NetworkError):
    """A 413: the request is larger than Telegram takes."""


class NotFound(InvalidToken):
    """A 404: the token is malformed or unknown, or there is no such method."""


class Flood(RetryAfter):
    """A 429. `seconds` says how long to wait, without PTB's warning about the type of `retry_after`."""

    def __init__(self, seconds: float) -> None:
        TelegramError.__init__(self, f"Flood control exceeded. Retry in {seconds:g} seconds")
        self._retry_after = timedelta(seconds=seconds)
        self.seconds = seconds


class AiohttpRequest(BaseRequest):
    """PTB's requests over keep-alive connections, made on the running loop when they are first needed.

    timeout: seconds that a call may take as a whole, connecting included, where PTB gives no `read_timeout`; an upload
    or a download may take UPLOAD_FACTOR times as long. PTB's other timeouts are parts of that and not looked at.

    Raises what is defined above, and PTB's ChatMigrated, Forbidden, InvalidToken (a 401), BadRequest and Conflict.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._posts = Posts()
        self._session: aiohttp.ClientSession | None = None

    @property
    def read_timeout(self) -> float:
        """Seconds; PTB adds the time of a long poll to it."""
        return self._timeout

    async def initialize(self) -> None:
        """Connections are made when they are needed."""

    async def shutdown(self) -> None:
        await self._posts.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: object = BaseRequest.DEFAULT_NONE,
        write_timeout: object = BaseRequest.DEFAULT_NONE,
        connect_timeout: object = BaseRequest.DEFAULT_NONE,
        pool_timeout: object = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        """Status and body of a successful answer; see BaseRequest. Anything else is raised."""
        seconds = self._seconds(method, read_timeout, request_data)
        if method == "GET":
            return await self._exchange(method, url, None, _Gate(None), seconds)
        gate = _Gate(MAY_WRITE.get())
        if request_data is not None and request_data.contains_files:
            return await self._exchange(method, url, _form(request_data), gate, seconds)
        parameters = {} if request_data is None else request_data.parameters
        return await self._post(url, _json(parameters), gate, seconds)

    async def call(self, url: str, parameters: Mapping[str, Any], seconds: float, files: Sequence[Part] = ()) -> Any:
        """The result of a POST of plain JSON, or of a form with files, which ends within `seconds`: BaseRequest.post
        without its detours. Raises what reading the files raises, too, if that is a QueueError."""
        gate = _Gate(MAY_WRITE.get())
        if files:
            _, answer = await self._exchange("POST", url, Form(parameters, files), gate, seconds)
        else:
            _, answer = await self._post(url, _json(parameters), gate, seconds)
        return self.parse_json_payload(answer)["result"]

    def _post(self, url: str, body: bytes, gate: "_Gate", seconds: float) -> Awaitable[tuple[int, bytes]]:
        return _judged(self._posts.post(url, body, gate.enter, seconds), gate, seconds)

    def _exchange(
        self, method: str, url: str, form: Form | None, gate: "_Gate", seconds: float
    ) -> Awaitable[tuple[int, bytes]]:
        return _judged(self._by_aiohttp(method, url, form, gate, seconds), gate, seconds)

    async def _by_aiohttp(
        self, method: str, url: str, form: Form | None, gate: "_Gate", seconds: float
    ) -> tuple[int, bytes]:
        body = None if form is None else _FormBody(form, gate)
        timeout = aiohttp.ClientTimeout(total=seconds, ceil_threshold=_NO_CEILING)
        session = self._session or self._open()
        async with session.request(method, url, data=body, allow_redirects=False, timeout=timeout) as response:
            return response.status, await response.read()

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        """The object in a successful answer. PTB's own logs the whole of what it cannot read, and is slower."""
        try:
            answer = orjson.loads(payload)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "result" not in answer:
            raise BadAnswer(f"the answer has no result: {_excerpt(payload)}", HTTPStatus.OK)
        return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No limit: QUEUE_WORKERS is one. Who waits for a connection has no time left for the answer.
                connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "telequeue"},
                skip_auto_headers=("Accept", "Accept-Encoding"),
            )
        return self._session

    def _seconds(self, method: str, read_timeout: object, request_data: RequestData | None) -> float:
        if isinstance(read_timeout, (int, float)):
            return read_timeout
        if method == "GET" or (request_data is not None and request_data.contains_files):  # PTB gets files only
            return self._timeout * UPLOAD_FACTOR
        return self._timeout


class _Connector(aiohttp.TCPConnector):
    """A connection that was made too late for its request goes unused into the pool. (aiohttp closes one whose request
    could not be written.)"""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(req, *args, **options)
        try:
            if isinstance(req.body, _FormBody):
                req.body.gate.ask()
        except LeaseEnded:
            connection.release()
            raise
        return connection


class _Gate:
    """Asks whether a request may be written, and knows whether it was."""

    __slots__ = ("failure", "may_write", "refused", "whole", "written")

    def __init__(self, may_write: MayWrite | None) -> None:
        self.may_write = may_write
        self.refused = False
        self.written = False
        self.whole = True  # but for what is written in pieces
        self.failure: QueueError | None = None

    def ask(self) -> None:
        if self.may_write is not None and not self.may_write():
            self.refused = True
            raise LeaseEnded("the lease ended before the request was written")

    def enter(self) -> None:
        self.ask()
        self.written = True

    def end(self) -> None:
        """What was written in pieces is written."""
        self.whole = True
        if isinstance(self.may_write, Permit):
            self.may_write.note_end()


class _FormBody(Payload):
    """A form with files, of which no more than a piece is in memory, written through a gate."""

    def __init__(self, form: Form, gate: _Gate) -> None:
        super().__init__(form, content_type=form.content_type)
        self._size = form.size
        self.gate = gate

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a form with files is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        if isinstance(writer, StreamWriter) and (writer.transport is None or writer.transport.is_closing()):
            raise aiohttp.ClientConnectionResetError("the connection was closed before the request was written")
        self.gate.enter()
        self.gate.whole = False
        try:
            async for piece in self._value.pieces():  # the first is there without an await
                await writer.write(piece)
        except QueueError as error:
            self.gate.failure = error
            raise
        self.gate.end()


def _form(data: RequestData) -> Form:
    parts = [
        in_memory(name, filename, type, content if isinstance(content, bytes) else content.read())
        for name, (filename, content, type) in data.multipart_data.items()
    ]
    return Form(data.json_parameters, parts)


def _json(parameters: object) -> bytes:
    try:
        return orjson.dumps(parameters)
    except orjson.JSONEncodeError:  # half a surrogate pair, a number beyond 64 bits: for Telegram to judge
        return json.dumps(parameters).encode()


async def _judged(answered: Awaitable[tuple[int, bytes]], gate: _Gate, seconds: float) -> tuple[int, bytes]:
    """The answer, if it is a success. Raises what any other means, or that there is none."""
    try:
        status, answer = await answered
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        failure: Exception = _failure(error, gate, seconds)
    else:
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return status, answer
        failure = _refusal(status, answer)
    raise failure  # here, where the client's exception is no longer its context


def _failure(error: Exception, gate: _Gate, seconds: float) -> TelegramError | QueueError:
    """What it means that a request brought no answer."""
    if gate.failure is not None:
        return gate.failure
    if gate.refused:
        return LeaseEnded("the lease ended before the request was written")
    in_time = not isinstance(error, TimeoutError)
    text = mask(f"{type(error).__name__}: {error}") if in_time else f"no answer within {seconds:g} s"
    if not gate.written:
        return NotWritten(f"not written: {text}" if in_time else f"no connection within {seconds:g} s")
    if not gate.whole:
        return CutOff(f"cut off: {text}" if in_time else f"not written within {seconds:g} s")
    return NoAnswer(text) if in_time else NoAnswerInTime(text)


def _refusal(status: int, body: bytes) -> TelegramError:
    """The exception for an answer that isn't a success."""
    try:
        answer = orjson.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(description := answer.get("description"), str):
        return _foreign_refusal(status, body)
    description = mask(description)  # what is in it is kept with the message
    parameters = answer.get("parameters")
    hints = parameters if isinstance(parameters, dict) else {}
    if "migrate_to_chat_id" in hints:
        return _migration(hints["migrate_to_chat_id"], status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Flood(_wait(hints.get("retry_after")))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerError(f"{description} ({status})", described=True)
    return _BY_STATUS.get(status, NetworkError)(description)


def _migration(chat: object, status: int) -> TelegramError:
    if type(chat) is int:
        return ChatMigrated(chat)
    return BadAnswer(f"status {status}, and migrate_to_chat_id is no chat: {mask(repr(chat))[:_EXCERPT]}", status)


def _wait(seconds: object) -> float:
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds > 0:
        return min(seconds, LONGEST_WAIT)
    return FLOOD_WAIT


_BY_STATUS: Final[dict[int, type[TelegramError]]] = {
    HTTPStatus.BAD_REQUEST: BadRequest,
    HTTPStatus.UNAUTHORIZED: InvalidToken,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge,
}


def _foreign_refusal(status: int, body: bytes) -> TelegramError:
    """A proxy's page, mostly. Its 403 or 404 says nothing about a chat or a token."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge("Request Entity Too Large")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Flood(FLOOD_WAIT)
    text = f"status {status}, not from the Bot API: {_excerpt(body)}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerError(text, described=False)
    return BadAnswer(text, status)


def _excerpt(body: bytes) -> str:
    return repr(mask(body[: 2 * _EXCERPT].decode(errors="replace"))[:_EXCERPT])
