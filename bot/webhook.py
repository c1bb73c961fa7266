"""POST /telegram/webhook: Telegram's updates, answered with 200 once they are safe.

| answer | when                                                                                                    |
|--------|---------------------------------------------------------------------------------------------------------|
| 200    | with Redis: taken into the inbox, or taken before and ended since. What fails after that is repeated by |
|        | the inbox, and what cannot be read becomes a dead letter.                                               |
|        | Within one process: handled; or handled before; or of no use for ever: a handler's own mistake, a shape |
|        | that PTB can't read. Telegram holds up the chat until it gets a 2xx, so these end here                  |
| 400    | no JSON object, or no update_id: that is not Telegram's, and nothing of a chat waits for it             |
| 401    | the secret is wrong or missing. Without WEBHOOK_SECRET nothing is accepted                              |
| 413    | more than 1 MiB                                                                                         |
| 503    | this very update was taken and has not ended; or as many wait as UPDATES_MAX; or Redis does not answer. |
|        | Within one process: the queue does not take what the handlers send, or the bot is not known yet. With   |
|        | Retry-After: Telegram gives the update again                                                            |
"""

import hmac
import time
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bot.body import ARRIVED, BadBody, read_json
from bot.intake import Intake, Taken
from bot.replies import refuse, reply

MAX_BODY = 1 << 20
"""Bytes. Telegram's updates are a few kilobytes."""

_MAX_UPDATE_ID = 2**63 - 1
_HEADER = b"x-telegram-bot-api-secret-token"
_RETRY_AFTER = 1
"""Seconds after which Telegram may try again; it honours the header."""

CountUpdate = Callable[[str, float], None]
"""Hears of each answer: its result, one of monitoring.metrics.WEBHOOK_RESULTS, and how long it took in seconds."""


class Webhook:
    """An ASGI application, without the layers of one that has routes: they took as long as all that is done here.

    secret: what Telegram must send along; None: nothing is accepted.
    """

    def __init__(self, intake: Intake, secret: str | None, count: CountUpdate) -> None:
        self._intake = intake
        self._secret = None if secret is None else secret.encode()
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = scope.get("state", {}).get(ARRIVED) or time.monotonic()
        result, response = await self._answer(scope, receive)
        await response(scope, receive, send)
        self._count(result, time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, Response]:
        if not self._authorized(scope):
            return "unauthorized", refuse(401, "the secret is wrong or missing")
        try:
            fields = await read_json(receive, MAX_BODY)
        except BadBody as error:
            return "too_large" if error.status == 413 else "malformed", refuse(error.status, str(error))
        update_id = fields.get("update_id") if isinstance(fields, dict) else None
        if type(update_id) is not int or not 0 <= update_id <= _MAX_UPDATE_ID:
            return "malformed", refuse(400, "this is no update: it has no whole number update_id", field="update_id")
        taken = await self._intake.take(update_id, fields)
        return taken.value, _response(taken)

    def _authorized(self, scope: Scope) -> bool:
        if self._secret is None:
            return False
        for name, value in scope["headers"]:
            if name == _HEADER:
                return hmac.compare_digest(value, self._secret)
        return False


def _response(taken: Taken) -> Response:
    if taken is Taken.BUSY:
        return refuse(503, "this update is being handled", retry_after=_RETRY_AFTER)
    if taken is Taken.FULL:
        return refuse(503, "too many updates wait", retry_after=_RETRY_AFTER)
    if taken is Taken.UNAVAILABLE:
        return refuse(503, "the update cannot be handled now", retry_after=_RETRY_AFTER)
    return _OK


_OK = reply({"ok": True})
