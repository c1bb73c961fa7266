"""A plugin of pytest, for PTB's own tests: our bot, waiting for each result, in the place of the one they test.

What is sent goes through the rate limiter, real Redis, a worker and the sender, and only then to the `request` of the
bot under test, which most of those tests replace to see what arrives there.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from stand_in_plugin import TELEGRAM
from telegram import InputFile, User
from telegram.error import BadRequest, InvalidToken, TelegramError
from telegram.request import HTTPXRequest, RequestData
from telegram.request._requestparameter import RequestParameter
from tests.auxil import pytest_classes  # PTB's

from bot.endings import Endings
from bot.file_store import RedisFiles
from bot.files import Files
from bot.multipart import Part
from bot.outbox import Outbox
from bot.queued_bot import GetMeCache, QueuedBot
from bot.sender import Sender
from bot.transport import NotFound
from queueing.events import Event
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Outcome, RetryPolicy
from queueing.worker import MayWrite, Worker

_PATIENCE = 20.0
"""Seconds for a test's send."""


class _Wire:
    """Stands where the sender's HTTP client does: what is sent goes to the bot's own `request`."""

    def __init__(self, bot: "QueuedTestBot") -> None:
        self._bot = bot

    async def call(self, url: str, parameters: dict[str, Any], seconds: float, parts: Sequence[Part] = ()) -> Any:
        given = [RequestParameter(name, value, None) for name, value in parameters.items()]
        for part in parts:
            content = b"".join([bytes(piece) async for piece in part.pieces()])
            given.append(RequestParameter(part.name, None, [InputFile(content, part.filename)]))
        try:
            return await self._bot.request.post(url=url, request_data=RequestData(given), read_timeout=seconds)
        except InvalidToken as error:
            raise (NotFound if str(error) == "Not Found" else InvalidToken)(str(error)) from None  # as our own client
        except TelegramError:
            raise
        except BaseException as error:  # an assertion of the test, which is to fail there and not here
            self._bot.failure = error
            raise BadRequest("the test failed") from error

    async def post(self, *args: Any, **options: Any) -> Any:
        return await self._bot.request.post(*args, **options)


class _Line:
    """The queue and its worker, for all bots of the session, which has one event loop."""

    def __init__(self) -> None:
        self.queue = RedisQueue(os.environ["PTB_SUITE_REDIS"])
        self.endings = Endings(self.queue.status)
        self.queue.hear_ends(self.endings.told)
        self.files = Files(RedisFiles(Redis.from_url(os.environ["PTB_SUITE_REDIS"])))
        self.bots: dict[str, QueuedTestBot] = {}
        self._starting: asyncio.Future[None] | None = None
        self._worker = Worker(
            self.queue, self._deliver, workers=10, policy=RetryPolicy(max_attempts=1), observe=self._observe
        )

    def _observe(self, event: Event, /) -> None:
        self.endings(event)

    async def start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self.queue.start()
        await self._worker.start()

    async def _deliver(self, message: Message, may_write: MayWrite) -> Outcome:
        bot = self.bots.pop(message.id)
        sender = Sender(
            self.queue,
            api_url=bot.base_url.removesuffix(f"/bot{bot.token}"),
            send_timeout=_PATIENCE,
            request=_Wire(bot),  # type: ignore[arg-type]
            own_token=bot.token,
            files=self.files,
        )
        return await sender.deliver(message, may_write)


_line = _Line()


class _NotingOutbox(Outbox):
    """Remembers whose each message is."""

    bot: "QueuedTestBot"

    def compose(self, *args: Any, **options: Any) -> Message:
        message = super().compose(*args, **options)
        _line.bots[message.id] = self.bot
        return message


class QueuedTestBot(QueuedBot):
    """As PTB's PytestExtBot: it may be changed, and knows itself without asking."""

    failure: BaseException | None = None

    def __init__(self, token: str, base_url: Any = TELEGRAM, **options: Any) -> None:
        options.pop("get_updates_request", None)  # QueuedBot has one for all
        options.setdefault("request", HTTPXRequest())
        outbox = _NotingOutbox(_line.queue, lambda event: None, token.partition(":")[0])
        super().__init__(
            token,
            api_url=base_url.removesuffix("/bot"),
            outbox=outbox,
            get_me_cache=GetMeCache(_nothing, _forget),
            endings=_line.endings,
            files=_line.files,
            wait=_PATIENCE,
            **options,
        )
        self._unfreeze()
        outbox.bot = self

    async def get_me(self, *_args: Any, **_options: Any) -> User:
        return await pytest_classes._mocked_get_me(self)

    async def _do_post(self, *args: Any, **options: Any) -> Any:
        await _line.start()
        try:
            return await super()._do_post(*args, **options)
        except TelegramError:
            if self.failure is None:
                raise
        failure, self.failure = self.failure, None
        raise failure


async def _nothing() -> None:
    return None


async def _forget(_text: str) -> None:
    return None


pytest_classes.PytestExtBot = QueuedTestBot
