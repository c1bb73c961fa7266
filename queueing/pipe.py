"""Pipe: one connection on which a client's scripts travel one behind the other, whoever waits for which.

redis-py's own way of a command takes 40 to 55 µs of a core: a connection is taken from the pool and given back, and
stream, timer and retry each cost a few. Here it is 10: one write, one future, answers in the order of the questions.
Nothing that blocks may be asked here, since all that is behind it would wait; a client of its own may.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.exceptions import AskError, ClusterDownError, ReadOnlyError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TimedOut

from queueing.tasks import end

Arguments = Sequence[str | bytes | int | float]

WRONG_SERVER: Final = (ReadOnlyError, AskError, ClusterDownError)
"""What a server answers that is not the primary any more, or not of this slot. Nothing was done."""


_TRY_FOR = 30.0
"""Seconds for which a command is tried again at most, however many tries are left: who asks waits, and the server knows
for a minute what it has done already (lua/enqueue.lua)."""


class Pipe:
    """make: makes a connection of redis-py, which connects, greets and proves who we are as its options say.

    retry: how often and when a command is tried again; unless that is never, once more at once.
    timeout: seconds for which an answer is awaited.
    """

    def __init__(self, make: Callable[[], AbstractConnection], retry: Retry, timeout: float) -> None:
        self._make = make
        self._retry = retry
        self._timeout = timeout
        self._opening: asyncio.Task[_Line] | None = None
        self._line: _Line | None = None
        self._closed = False

    async def call(self, command: Arguments) -> Any:
        """The server's answer. Raises redis-py's exceptions, as its clients do."""
        line = self._line
        if line is None or line.broken:
            line = await self._open()
        try:
            return await line.ask(command)
        except (NotConnected, TimedOut):
            if not self._retry.get_retries():
                raise
        try:
            async with asyncio.timeout(_TRY_FOR):
                return await self._retry.call_with_retry(lambda: self._ask(command), _note)
        except TimeoutError:
            raise TimedOut(f"no answer within {_TRY_FOR:g} s") from None

    async def close(self) -> None:
        self._closed = True
        await end(self._opening)
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _ask(self, command: Arguments) -> Any:
        line = self._line
        if line is None or line.broken:
            line = await self._open()
        return await line.ask(command)

    async def _open(self) -> "_Line":
        """One for all that ask meanwhile: where the server is away, they hear of it at the same time. Who waits no more
        does not end it for the others."""
        if self._closed:
            raise NotConnected(_CLOSED)
        if self._opening is None:
            self._opening = asyncio.create_task(self._make_line())
            self._opening.add_done_callback(self._note_opened)
        opening = self._opening
        await asyncio.wait([opening])
        if opening.cancelled():
            raise NotConnected(_CLOSED)
        return opening.result()

    async def _make_line(self) -> "_Line":
        connection = self._make()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)
            raise
        self._line = line = _Line(connection, self._timeout)
        return line

    def _note_opened(self, opening: "asyncio.Task[_Line]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # perhaps nobody waits for it any more


async def _note(_error: Exception) -> None:
    """Nothing is left to be cleaned up: whoever breaks a line ends all that is on it."""


class _Line(asyncio.Protocol):
    """A connection that redis-py has made, from its greeting on ours. broken: it answers no more."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._broken = False
        self._connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        parse_error = connection._parser.parse_error  # noqa: SLF001
        self._reader = hiredis.Reader(protocolError=NotConnected, replyError=parse_error, notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._redis_py = self._transport.get_protocol()
        self._transport.set_protocol(self)

    @property
    def broken(self) -> bool:
        return self._broken or self._transport.is_closing()  # it is told a little later

    def ask(self, command: Arguments) -> asyncio.Future[Any]:
        if self._broken:
            raise NotConnected(_CLOSED)
        packed = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # its stub knows but one argument
        answer = self._loop.create_future()
        self._waiting.append((answer, self._loop.time() + self._timeout))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._look_at_the_time)
        self._transport.write(packed)
        return answer

    async def close(self) -> None:
        self._break(NotConnected(_CLOSED))
        await self._connection.disconnect()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOT_YET and not self._broken:
                self._answer(reply)
        except NotConnected as error:
            self._break(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._break(NotConnected(str(error) if error else "the server closed the connection"))
        self._redis_py.connection_lost(error)  # redis-py waits for it when it closes the connection
        self._connection._close()  # noqa: SLF001  or it warns that nobody has

    def _answer(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            return
        if isinstance(reply, (*WRONG_SERVER, NotConnected)):
            # Who asks again finds the right one.
            self._break(NotConnected(f"{self._place} is not the primary, or not ready: {reply}"))
        elif not (answer := self._waiting.popleft()[0]).done():
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    @property
    def _place(self) -> str:
        return f"{self._connection.host}:{self._connection.port}"

    def _look_at_the_time(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if (due := self._waiting[0][1]) <= self._loop.time():
            self._break(TimedOut(f"no answer within {self._timeout:g} s"))
        else:
            self._timer = self._loop.call_at(due, self._look_at_the_time)

    def _break(self, error: Exception) -> None:
        """Whoever waits for an answer learns that none will come."""
        if self._broken:
            return
        self._broken = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        for answer, _ in self._waiting:
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()


_NOT_YET = object()
_CLOSED = "the connection was closed"
