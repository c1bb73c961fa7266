"""The bot that handlers talk through: sends of plain python-telegram-bot handlers go through the queue.

PTB asks its rate limiter before every call of a handler; ours puts a `sendMessage` (and so every `reply_text`,
`reply_html`, `Chat.send_message` …) into the queue, at interactive priority, and returns at once. What the handler gets
is a Message with `message_id` 0, which the Bot API itself uses for "not sent yet, unusable until it is": to edit or
delete a message, or to reply to it, its real id is needed. The chat, the text and the date are there.

Every other method is called at once, and its real result returned: until they are queued too, they are outside the
queue's order and limits.

Errors: QueueFull and QueueUnavailable reach the handler as they are. They are no TelegramError, so that a handler that
shrugs at those does not swallow them: the update has failed, and Telegram is to send it again. What could never be
sent raises PTB's BadRequest, as Telegram would have said: sending the update again would not help.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
from telegram import User
from telegram.error import BadRequest, InvalidToken
from telegram.ext import BaseRateLimiter, Defaults, ExtBot
from telegram.request import BaseRequest
from telegram.request._requestparameter import RequestParameter  # turns PTB's objects into JSON's, as PTB itself does

from bot.call import SEND_MESSAGE
from bot.outbox import Outbox
from queueing.errors import MalformedMessage
from queueing.message import Priority

Result = bool | dict[str, Any] | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class GetMeCache:
    """Where all processes find what getMe answered (JSON text), so that one asks and the others don't."""

    load: Callable[[], Awaitable[str | None]]
    save: Callable[[str], Awaitable[None]]


class QueuedRateLimiter(BaseRateLimiter[None]):
    """Queues `sendMessage`, lets everything else through. `rate_limit_args` of other limiters are not looked at."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def initialize(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Result]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: object,
    ) -> Result:
        if endpoint != SEND_MESSAGE:
            return await callback(*args, **kwargs)
        parameters = {name: RequestParameter.from_input(name, value).value for name, value in data.items()}
        chat_id, text = parameters.pop("chat_id", None), parameters.pop("text", None)
        try:
            message = self._outbox.compose(chat_id, text, kwargs=parameters, priority=Priority.INTERACTIVE)
        except MalformedMessage as error:
            raise BadRequest(str(error)) from error
        await self._outbox.enqueue([message])
        return _unsent(message.chat, text)


class QueuedBot(ExtBot[None]):
    """PTB's bot for `Application.builder().bot(…)`: sends are queued, getMe is cached, the token shows nowhere.

    api_url: base URL of the Bot API, without a slash at its end.
    request: the HTTP client; the bot's shutdown() shuts it down.
    defaults: PTB's, applied before a send is queued. more: other parameters of PTB's ExtBot.
    """

    def __init__(
        self,
        token: str,
        *,
        api_url: str,
        outbox: Outbox,
        request: BaseRequest,
        get_me_cache: GetMeCache,
        defaults: Defaults | None = None,
        **more: Any,
    ) -> None:
        super().__init__(
            token,
            base_url=f"{api_url}/bot",
            base_file_url=f"{api_url}/file/bot",
            request=request,
            get_updates_request=request,
            defaults=defaults,
            **more,
            rate_limiter=QueuedRateLimiter(outbox),
        )
        self._get_me_cache = get_me_cache
        self._token_id = token.partition(":")[0]

    def __repr__(self) -> str:
        return f"QueuedBot[{self._token_id}]"

    async def initialize(self) -> None:
        """As PTB's, which tells the token when Telegram refuses it."""
        try:
            await super().initialize()
        except InvalidToken:
            pass
        else:
            return
        raise InvalidToken(f"Telegram refused the token of bot {self._token_id}")

    async def get_me(self, **timeouts: Any) -> User:
        """What Telegram says of the bot: asked of the cache first, by initialize(); of Telegram from then on."""
        if self._bot_user is None and (cached := await self._get_me_cache.load()):
            user = User.de_json(orjson.loads(cached), self)
            if str(user.id) == self._token_id:
                self._bot_user = user
                return user
        user = await super().get_me(**timeouts)
        await self._get_me_cache.save(user.to_json())
        return user


def _unsent(chat: str, text: object) -> dict[str, Any]:
    """The Message that stands for one in the queue."""
    return {"message_id": 0, "date": int(time.time()), "chat": _chat(chat), "text": text}


def _chat(chat: str) -> dict[str, Any]:
    """What can be told of a chat by its name alone. Ids below -100… are supergroups' and channels'."""
    if chat.startswith("@"):
        return {"id": 0, "type": "channel", "username": chat[1:]}
    kind = "private" if not chat.startswith("-") else "supergroup" if chat.startswith("-100") else "group"
    return {"id": int(chat), "type": kind}
