"""The broadcasts' part of the HTTP API: start, progress, cancel. Errors are as in bot/api.py."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bot.access import Access
from bot.api import iso
from bot.body import read_json
from bot.broadcasts import Broadcasts, Progress, Status
from bot.idempotency import FirstBodies, Repeat
from bot.replies import refuse, reply
from bot.submission import Invalid
from bot.verb import NeedsSharedQueue, told, verb
from queueing.errors import MalformedMessage
from queueing.message import Message, canonical_chat

MAX_BODY = 8 << 20
"""Bytes of one call: a hundred thousand of the longest names, and a text."""

MOST = 100_000
"""Chats in one call."""

MAX_LISTED = 100

_FIELDS = frozenset({"text", "method", "kwargs", "chats", "to"})
_FIELD = re.compile(r"(text|method|kwargs)\b[\w.]*")
_A_CHAT = 1e-4  # seconds for which a client waits longer for each chat
_AT_ONCE = 1000  # chats that are looked at before others have their turn in this process


class BroadcastApi:
    """broadcasts: None without the shared queue.
    timeout: as in Api, for all that is asked of the queue; a body may take longer to come.
    """

    def __init__(
        self, broadcasts: Broadcasts | None, access: Access, *, first_bodies: FirstBodies, timeout: float
    ) -> None:
        self._kept = broadcasts
        self._first_bodies = first_bodies
        self.access = access
        self.timeout = timeout

    @told
    async def start(self, request: Request) -> Response:
        """POST /api/v1/broadcasts {"text", "method"?, "kwargs"?, "chats": […] or "to": "subscribers"} → 202.

        With an `Idempotency-Key` it is started once, however often it is asked for.
        """
        content = await read_json(request.receive, MAX_BODY)
        repeat = Repeat.of(str(self.access.client(request)), request, content)
        fields = _fields(content)
        what, chats = self._compose(fields), await _chats(fields)
        async with asyncio.timeout(self.timeout + len(chats or ()) * _A_CHAT):
            if repeat and await self._first_bodies.first(repeat.key, repeat.body) != repeat.body:
                return refuse(422, "this Idempotency-Key came with another body before", field="Idempotency-Key")
            progress = await self._broadcasts.start(what, chats, id=repeat.id_prefix if repeat else None)
        return reply(_json(progress), 202)

    @verb
    async def progress(self, request: Request) -> Response:
        """GET /api/v1/broadcasts/{id}."""
        progress = await self._broadcasts.progress(request.path_params["id"])
        return _unknown() if progress is None else reply(_json(progress))

    @verb
    async def latest(self, _request: Request) -> Response:
        """GET /api/v1/broadcasts: the newest first, a hundred at most."""
        return reply({"broadcasts": [_json(progress) for progress in await self._broadcasts.latest(MAX_LISTED)]})

    @verb
    async def cancel(self, request: Request) -> Response:
        """DELETE /api/v1/broadcasts/{id}: what has not left is not sent."""
        progress = await self._broadcasts.cancel(request.path_params["id"])
        if progress is None:
            return _unknown()
        if progress.status is Status.DONE:
            return refuse(409, "it is too late to cancel this broadcast: it is done")
        return reply(_json(progress))

    @property
    def _broadcasts(self) -> Broadcasts:
        if self._kept is None:
            raise NeedsSharedQueue
        return self._kept

    def _compose(self, fields: Mapping[str, Any]) -> Message:
        kwargs = fields.get("kwargs")
        if isinstance(kwargs, dict) and "chat_id" in kwargs:
            raise Invalid("kwargs.chat_id has no place in a broadcast", "kwargs.chat_id")
        try:
            return self._broadcasts.compose(fields.get("text"), method=fields.get("method"), kwargs=kwargs)
        except MalformedMessage as error:
            named = _FIELD.match(str(error))
            raise Invalid(str(error), named[0] if named else None) from None


def _fields(content: object) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise Invalid("a broadcast must be an object", None)
    for name in content:
        if name not in _FIELDS:
            raise Invalid(f"{name} is not a field of a broadcast", name)
    return {name: value for name, value in content.items() if value is not None}


async def _chats(fields: Mapping[str, Any]) -> Sequence[str] | None:
    """Canonical names, each once; None: all subscribers."""
    to, chats = fields.get("to"), fields.get("chats")
    if to is not None:
        if to != "subscribers" or chats is not None:
            raise Invalid("to must be subscribers, and stands instead of chats", "to")
        return None
    if not isinstance(chats, list) or not 1 <= len(chats) <= MOST:
        raise Invalid(f"chats must be an array of 1 to {MOST} chats, unless to is subscribers", "chats")
    names: dict[str, None] = {}
    for index, chat in enumerate(chats):
        try:
            names[canonical_chat(chat)] = None
        except MalformedMessage:
            field = f"chats[{index}]"
            raise Invalid(f"{field} must be a whole number or an @name", field) from None
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    return list(names)


def _unknown() -> Response:
    return refuse(404, "no broadcast with this id is known; one is kept for 30 days")


def _json(progress: Progress) -> Mapping[str, object]:
    return {
        "id": progress.id,
        "status": progress.status.value,
        "total": progress.total,
        "waiting": progress.waiting,
        "sent": progress.sent,
        "blocked": progress.blocked,
        "failed": progress.failed,
        "cancelled": progress.cancelled,
        "expired": progress.expired,
        "created_at": iso(progress.created_at),
        "started_at": iso(progress.started_at),
        "finished_at": None if progress.finished_at is None else iso(progress.finished_at),
        "text": progress.text,
    }
