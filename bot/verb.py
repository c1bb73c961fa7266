"""What calls of the HTTP API have in common: who may ask, how long it may take, how each error is answered."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from bot.access import Access
from bot.api import try_later, unauthorized
from bot.body import BadBody
from bot.replies import refuse
from bot.submission import Invalid
from queueing.errors import QueueError, QueueFull, QueueUnavailable


class NeedsSharedQueue(QueueError):
    """This needs the shared queue: USE_REDIS_QUEUE=true."""


class Served(Protocol):
    """A part of the API. timeout: seconds within which the queue has to answer all that a call asks it."""

    access: Access
    timeout: float


S = TypeVar("S", bound=Served)
Answer = Callable[[S, Request], Awaitable[Response]]


def verb(action: Answer[S]) -> Answer[S]:
    """A method of a part of the API, as it is served. It may raise what `told` catches."""

    @functools.wraps(action)
    async def within_time(self: S, request: Request) -> Response:
        async with asyncio.timeout(self.timeout):
            return await action(self, request)

    return told(within_time)


def told(action: Answer[S]) -> Answer[S]:
    """The same for one that minds the time itself."""

    @functools.wraps(action)
    async def answer(self: S, request: Request) -> Response:
        if self.access.client(request) is None:
            return unauthorized()
        try:
            return await action(self, request)
        except BadBody as error:
            return refuse(error.status, str(error))
        except Invalid as error:
            return refuse(422, str(error), field=error.field)
        except NeedsSharedQueue as error:
            return refuse(501, str(error))
        except (QueueFull, QueueUnavailable, TimeoutError) as error:
            return try_later(error)

    return answer
