"""The HTTP API, /api/v1: other services put messages into the queue, and ask what became of them.

Errors are {"error": words} with, at 422, the "field" that is wrong. 503 carries Retry-After: nothing was taken, or
nobody knows; with an `Idempotency-Key`, or an id of the client's own, the same call may be made again without harm.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bot.access import Access
from bot.body import BadBody, read_json
from bot.endings import ENDED, Endings
from bot.idempotency import FirstBodies, Repeat
from bot.outbox import Outbox
from bot.replies import refuse, reply
from bot.submission import Invalid, Submission, parse_submissions
from queueing.contract import Front, MessageStatus, QueueStats, Waiting
from queueing.errors import MalformedMessage, QueueFull, QueueUnavailable
from queueing.message import Message, MessageState

MAX_BODY = 4 << 20
"""Bytes of one call: a thousand messages of Telegram's longest text, 4,096 characters."""

_FULL_RETRY, _AWAY_RETRY = 10, 2
"""Seconds that a client is asked to wait: for messages to leave, or for Redis to come back."""


class Api:
    """own_bot, own_token: the configured bot. workers: coroutines of each process. timeout: seconds within which the
    queue has to answer all that a call asks it; after that the call is answered with 503.
    sync_wait: seconds for which a call that posts messages waits for their endings, which `endings` tells; 0: none.
    updates: of the queue of updates, if there is one.
    """

    def __init__(
        self,
        queue: Front,
        outbox: Outbox,
        access: Access,
        *,
        first_bodies: FirstBodies,
        endings: Endings,
        own_bot: str,
        own_token: str,
        workers: int,
        timeout: float,
        sync_wait: float = 0.0,
        updates: Front | None = None,
    ) -> None:
        self._queue = queue
        self._first_bodies = first_bodies
        self._endings = endings
        self._outbox = outbox
        self._access = access
        self._own_bot = own_bot
        self._own_token = own_token.encode()
        self._workers = workers
        self._timeout = timeout
        self._sync_wait = sync_wait
        self._updates = updates

    async def send(self, request: Request) -> Response:
        """POST /api/v1/messages: one object → 202 {"id", "status", "created_at"}; an array → {"messages": […]}.

        With SYNC_MESSAGE_PROCESSING: 200 and, instead, the status of each as `message` tells it, once all have ended,
        whichever way: that the call worked is one thing, what became of the message another. 202 with what is known
        by then if they have not ended in time. A client that hangs up changes nothing.
        """
        client = self._access.client(request)
        if client is None:
            return unauthorized()
        try:
            content = await read_json(request, MAX_BODY)
            repeat = Repeat.of(client, request, content)
            submissions = parse_submissions(content, id_prefix=repeat.id_prefix if repeat else None)
            deadline = asyncio.get_running_loop().time() + self._timeout
            async with asyncio.timeout_at(deadline):
                messages = [await self._compose(submission) for submission in submissions]
                if repeat and await self._first_bodies.first(repeat.key, repeat.body) != repeat.body:
                    return refuse(422, "this Idempotency-Key came with another body before", field="Idempotency-Key")
                await self._outbox.enqueue(messages)
        except BadBody as error:
            return refuse(error.status, str(error))
        except Invalid as error:
            return refuse(422, str(error), field=error.field)
        except (QueueFull, QueueUnavailable, TimeoutError) as error:
            return try_later(error)
        if self._sync_wait:
            code, told = await self._endings_of(messages)
        else:
            receipts = (self._receipt(*each, deadline) for each in zip(messages, submissions, strict=True))
            code, told = 202, await asyncio.gather(*receipts)
        return reply({"messages": told} if isinstance(content, list) else told[0], code)

    async def _compose(self, submission: Submission) -> Message:
        try:
            message = self._outbox.compose(**submission.arguments, track=True)
        except MalformedMessage as error:
            raise submission.invalid(str(error)) from None
        if submission.bot_token is not None:
            return message.changed(bot=await self._bot_of(submission, submission.bot_token))
        return message if submission.bot is None else message.changed(bot=submission.bot)

    async def _bot_of(self, submission: Submission, token: str) -> str:
        """Keeps the token that came with a message, unless it is known. The configured bot's own cannot be replaced."""
        bot = token.partition(":")[0]
        if bot == self._own_bot:
            if not hmac.compare_digest(token.encode(), self._own_token):
                raise submission.invalid("bot_token is not the one that this bot is configured with")
        else:
            await self._queue.offer(bot, token)
        return bot

    async def _receipt(self, message: Message, submission: Submission, deadline: float) -> dict[str, object]:
        """What is said of an accepted message: for an id that may have been given before, what is known of it."""
        id, status = message.id, None
        with contextlib.suppress(TimeoutError):  # as in _known
            async with asyncio.timeout_at(deadline):
                id = await self._taken_as(message)
                status = await self._known(id) if submission.may_repeat or id != message.id else None
        if status is None:
            return {"id": id, "status": MessageState.PENDING.value, "created_at": iso(time.time())}
        return {"id": status.id, "status": status.state.value, "created_at": iso(status.created_at)}

    async def _endings_of(self, messages: Sequence[Message]) -> tuple[int, Sequence[Mapping[str, object]]]:
        """→ 200 once all have ended, 202 if some have not in time, and what is known of each."""
        until, code = asyncio.get_running_loop().time() + self._sync_wait, 200
        told: list[Mapping[str, object]] = []
        for message in messages:  # one after the other: all have to end, and so each call asks one question at a time
            status, waiting = await self._ending(message, until)
            if status is None:
                told.append({"id": message.id, "status": MessageState.PENDING.value, "created_at": iso(time.time())})
            else:
                told.append(_status_json(status, waiting))
            if status is None or status.state not in ENDED:
                code = 202
        return code, told

    async def _ending(self, message: Message, until: float) -> tuple[MessageStatus | None, Waiting | None]:
        """until: the event loop's time at which it is told of unended."""
        status = waiting = None
        too_late = message.send_at is not None and message.send_at > time.time() + self._sync_wait
        with contextlib.suppress(QueueUnavailable, TimeoutError):  # the messages are taken, as in _known
            async with asyncio.timeout_at(until + self._timeout):
                status = await self._endings.wait(await self._taken_as(message), 0.0 if too_late else until)
                if status and status.state not in ENDED:
                    waiting = await self._queue.why(status.id)
        return status, waiting

    async def _taken_as(self, message: Message) -> str:
        """Its id or, if another message came first with its dedup key, the id of that."""
        if message.dedup_key is None:
            return message.id
        try:
            return await self._queue.first_with(message.bot, message.dedup_key) or message.id
        except QueueUnavailable:
            return message.id  # as in _known

    async def _known(self, id: str) -> MessageStatus | None:
        try:
            return await self._queue.status(id)
        except QueueUnavailable:
            return None  # the messages are taken; a 503 now would say the opposite

    async def message(self, request: Request) -> Response:
        """GET /api/v1/messages/{id}: what became of a message or, if it waits, why and until about when."""
        if self._access.client(request) is None:
            return unauthorized()
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._queue.status(request.path_params["id"])
                waiting = await self._queue.why(status.id) if status else None
        except (QueueUnavailable, TimeoutError) as error:
            return try_later(error)
        if status is None:
            return refuse(404, "no message with this id is known; a status is kept for STATUS_TTL after its end")
        return reply(_status_json(status, waiting))

    async def queue(self, request: Request) -> Response:
        """GET /api/v1/queue: how many messages are where, and who works on them."""
        if self._access.client(request) is None:
            return unauthorized()
        try:
            async with asyncio.timeout(self._timeout):
                stats = await self._queue.stats()
                updates = await self._updates.stats() if self._updates else None
        except (QueueUnavailable, TimeoutError) as error:
            return try_later(error)
        return reply(self._stats_json(stats) | ({"updates": _updates_json(updates)} if updates else {}))

    def _stats_json(self, stats: QueueStats) -> dict[str, object]:
        return {
            "queue_depth": stats.depth,
            "total_processed": stats.processed,
            "workers_per_process": self._workers,
            "total_workers": sum(process.workers for process in stats.processes),
            "by_state": _by_state(stats),
            "oldest_age": stats.oldest_age,
            "backend": self._queue.backend,
            "processes": _processes_json(stats),
        } | _parts_json(stats)


def _by_state(stats: QueueStats) -> Mapping[str, int]:
    return {
        "ready": stats.ready,
        "waiting": stats.waiting,
        "scheduled": stats.scheduled,
        "inflight": stats.inflight,
        "dead": stats.dead,
    }


def _updates_json(stats: QueueStats) -> dict[str, object]:
    return {**_part_json(stats), "processes": _processes_json(stats)}


def _processes_json(stats: QueueStats) -> list[dict[str, object]]:
    return [dataclasses.asdict(process) for process in stats.processes]


def _part_json(part: QueueStats) -> Mapping[str, object]:
    return {"queue_depth": part.depth, "by_state": _by_state(part), "oldest_age": part.oldest_age}


def _parts_json(stats: QueueStats) -> dict[str, object]:
    """Nothing more, unless there are two queues."""
    parts = {name: _part_json(part) for name, part in stats.parts.items()}
    return {"backends": parts} if parts else {}


def unauthorized() -> Response:
    """To whom is no client."""
    response = refuse(401, "send a key of API_KEYS as `Authorization: Bearer KEY`; without API_KEYS, ask from loopback")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def try_later(error: QueueFull | QueueUnavailable | TimeoutError) -> Response:
    """Nothing was done, or nobody knows."""
    if isinstance(error, QueueFull):
        return refuse(503, f"the queue is full: {error}", retry_after=_FULL_RETRY)
    return refuse(503, "the queue's server does not answer", retry_after=_AWAY_RETRY)


def _status_json(status: MessageStatus, waiting: Waiting | None) -> Mapping[str, object]:
    return {
        "id": status.id,
        "status": status.state.value,
        "bot": status.bot,
        "chat_id": status.chat,
        "created_at": iso(status.created_at),
        "sent_at": None if status.sent_at is None else iso(status.sent_at),
        "attempts": status.attempts,
        "telegram_message_id": _message_id(status.result),
        "error": status.error,
        "waiting": None if waiting is None else _waiting_json(waiting),
    }


def _waiting_json(waiting: Waiting) -> Mapping[str, object]:
    """`ahead` is exact unless there are `more` than those."""
    return {
        "reason": waiting.reason,
        "until": None if waiting.until is None else iso(waiting.until),
        "ahead": waiting.ahead,
        "more": waiting.more,
    }


def _message_id(result: str | None) -> int | None:
    """The number in an acknowledgement; methods that send no message have another result."""
    try:
        value = orjson.loads(result or "null")
    except orjson.JSONDecodeError:
        return None
    if isinstance(value, dict):  # the whole answer, which one of our handlers waits for
        value = value.get("message_id")
    return value if type(value) is int else None


def iso(seconds: float) -> str:
    """Unix seconds as 2026-01-31T12:00:00.000Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
