"""The operator's part of the HTTP API: dead letters, pause and resume, cancel. Errors are as in bot/api.py.

Where each process has a queue of its own, a call acts on that of the process that answers it."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bot.access import Access
from bot.api import iso
from bot.body import read_json
from bot.replies import refuse, reply
from bot.submission import Invalid
from bot.verb import verb
from monitoring.logs import mask
from queueing.contract import DeadLetter, Desk, Pause
from queueing.errors import MalformedMessage
from queueing.message import MessageState, canonical_chat

MAX_PAGE = 500
"""Dead letters on one page."""

_MAX_BODY = 1 << 16  # bytes of a pause, and of the reason in it
_BOT = re.compile(r"\d{1,20}", re.ASCII)


class DeskApi:
    """own_bot: the bot of a chat that is paused without naming one.
    timeout: as in Api. What takes longer may have been done in part, and may be asked for again.
    updates: of the queue of updates, if there is one: its dead letters are those of the same calls with `?of=updates`.
    """

    def __init__(
        self, desk: Desk, access: Access, *, own_bot: str, timeout: float, updates: Desk | None = None
    ) -> None:
        self._desk = desk
        self._updates = updates
        self.access = access
        self.timeout = timeout
        self._own_bot = own_bot

    @verb
    async def dead(self, request: Request) -> Response:
        """GET /api/v1/dead?limit=&before=&of=: newest first; `next` is the `before` of the page after this one."""
        try:
            page = await self._of(request).dead_page(_limit(request), request.query_params.get("before"))
        except ValueError as error:
            raise Invalid(str(error), "before") from None
        return reply({"dead": [_summary(letter) for letter in page.letters], "next": page.next})

    @verb
    async def dead_letter(self, request: Request) -> Response:
        """GET /api/v1/dead/{id}: one of them, with what stood in the list and every attempt's error."""
        letter = await self._of(request).dead_letter(request.path_params["id"])
        return _no_letter() if letter is None else reply(_whole(letter))

    @verb
    async def replay(self, request: Request) -> Response:
        """POST /api/v1/dead/{id}/replay?head=: it is sent after all."""
        done = await self._of(request).redrive([request.path_params["id"]], head=_head(request))
        return reply({"replayed": done}) if done else _no_letter()

    @verb
    async def replay_all(self, request: Request) -> Response:
        """POST /api/v1/dead/replay?head=: all that are dead now."""
        return reply({"replayed": await self._of(request).redrive_all(head=_head(request))})

    @verb
    async def drop(self, request: Request) -> Response:
        """DELETE /api/v1/dead/{id}."""
        done = await self._of(request).drop([request.path_params["id"]])
        return reply({"dropped": done}) if done else _no_letter()

    @verb
    async def drop_all(self, request: Request) -> Response:
        """DELETE /api/v1/dead: all that are dead now."""
        return reply({"dropped": await self._of(request).drop_all()})

    @verb
    async def pause(self, request: Request) -> Response:
        """POST /api/v1/pause {"bot"?, "chat_id"?, "reason"?}: nothing leaves of that chat or bot, or without both."""
        bot, chat, reason = await self._scope(request, "bot", "chat_id", "reason")
        await self._desk.pause(bot, chat, reason)
        return reply({"bot": bot, "chat_id": chat, "paused": True})

    @verb
    async def resume(self, request: Request) -> Response:
        """POST /api/v1/resume {"bot"?, "chat_id"?}: ends the pause of just that."""
        bot, chat, _ = await self._scope(request, "bot", "chat_id")
        await self._desk.resume(bot, chat)
        return reply({"bot": bot, "chat_id": chat, "paused": False})

    @verb
    async def paused(self, _request: Request) -> Response:
        """GET /api/v1/paused: by persons, and by failures."""
        return reply({"paused": [_pause_json(pause) for pause in await self._desk.paused()]})

    @verb
    async def cancel(self, request: Request) -> Response:
        """DELETE /api/v1/messages/{id}: it will not be sent."""
        id = request.path_params["id"]
        state = await self._desk.cancel(id)
        if state is None:
            return refuse(404, "no message with this id is known; a status is kept for STATUS_TTL after its end")
        if state is not MessageState.CANCELLED:
            return refuse(409, f"it is too late to cancel this message: it is {state.value}")
        return reply({"id": id, "status": state.value})

    def _of(self, request: Request) -> Desk:
        """Whose dead letters a call is about. Raises Invalid."""
        of = request.query_params.get("of", "messages")
        if of == "messages":
            return self._desk
        if of != "updates":
            raise Invalid("of must be messages or updates", "of")
        if self._updates is None:
            raise Invalid("there are no dead updates: they are handled where they arrive", "of")
        return self._updates

    async def _scope(self, request: Request, *allowed: str) -> tuple[str | None, str | None, str]:
        """Bot, chat and reason of a body. Raises BadBody and Invalid."""
        content = await read_json(request.receive, _MAX_BODY)
        if not isinstance(content, dict):
            raise Invalid("the body must be an object", None)
        fields = {name: value for name, value in content.items() if value is not None}
        for name in fields:
            if name not in allowed:
                raise Invalid(f"{name} is not a field of this call", name)
        bot, reason = fields.get("bot"), fields.get("reason", "")
        if bot is not None and not (isinstance(bot, str) and _BOT.fullmatch(bot)):
            raise Invalid("bot must be the number of a bot, as a string", "bot")
        if not isinstance(reason, str):
            raise Invalid("reason must be a string", "reason")
        if "chat_id" not in fields:
            return bot, None, reason
        try:
            return bot or self._own_bot, canonical_chat(fields["chat_id"]), reason
        except MalformedMessage as error:
            raise Invalid(str(error), "chat_id") from None


def _limit(request: Request) -> int:
    value = request.query_params.get("limit", "100")
    if not re.fullmatch("[0-9]{1,4}", value) or not 1 <= int(value) <= MAX_PAGE:
        raise Invalid(f"limit must be a whole number from 1 to {MAX_PAGE}", "limit")
    return int(value)


def _head(request: Request) -> bool:
    value = request.query_params.get("head", "false").lower()
    if value not in ("true", "false"):
        raise Invalid("head must be true or false", "head")
    return value == "true"


def _no_letter() -> Response:
    return refuse(404, "there is no dead letter with this id")


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "error": mask(letter.error.partition("\n")[0]),
        "died_at": iso(letter.died_at),
        "bot": letter.bot,
        "chat_id": letter.chat,
    }


def _whole(letter: DeadLetter) -> Mapping[str, Any]:
    history = [
        {"at": iso(float(str(line["at"]))), "reason": line["reason"], "error": mask(str(line["error"]))}
        for line in letter.history
    ]
    return {**_summary(letter), "error": mask(letter.error), "element": mask(letter.element), "history": history}


def _pause_json(pause: Pause) -> Mapping[str, Any]:
    return {
        "bot": pause.bot,
        "chat_id": pause.chat,
        "reason": mask(pause.reason),
        "since": None if pause.since is None else iso(pause.since),
        "until": None if pause.until is None else iso(pause.until),
    }
