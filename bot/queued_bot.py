"""The bot that handlers talk through: sends of plain python-telegram-bot handlers go through the queue, as its rate
limiter has it (bot/rate_limiter.py); getMe is cached for all processes, and the token shows nowhere."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from telegram import User
from telegram.error import InvalidToken
from telegram.ext import ExtBot
from telegram.request import BaseRequest

from bot.endings import Endings
from bot.outbox import Outbox
from bot.rate_limiter import Files, QueuedRateLimiter
from bot.send_options import SendOptions

_OF_A_SENDER = ("id", "is_bot", "first_name", "username")


@dataclass(frozen=True, slots=True)
class GetMeCache:
    """Where all processes find what getMe answered (JSON text), so that one asks and the others don't."""

    load: Callable[[], Awaitable[str | None]]
    save: Callable[[str], Awaitable[None]]


class QueuedBot(ExtBot[SendOptions]):
    """PTB's bot for `Application.builder().bot(…)`.

    api_url: base URL of the Bot API, without a slash at its end.
    request: the HTTP client; the bot's shutdown() shuts it down.
    endings: tells when sends that are waited for have ended; None: the queue is asked for each.
    files:   where uploads are kept until they are sent; None: they are not queued.
    wait:    True: every send returns what Telegram answered; a number: within as many seconds, or raises TimedOut.
    options: what else ExtBot takes: `defaults`, applied before a send is queued, `arbitrary_callback_data` …
    """

    def __init__(
        self,
        token: str,
        *,
        api_url: str,
        outbox: Outbox,
        request: BaseRequest,
        get_me_cache: GetMeCache,
        endings: Endings | None = None,
        files: Files | None = None,
        wait: bool | float = False,
        **options: Any,
    ) -> None:
        limiter = QueuedRateLimiter(
            outbox, endings or Endings(outbox.status), files=files, wait=wait, bot=self._own_user
        )
        super().__init__(
            token,
            base_url=f"{api_url}/bot",
            base_file_url=f"{api_url}/file/bot",
            request=request,
            get_updates_request=request,
            rate_limiter=limiter,
            **options,
        )
        self._get_me_cache = get_me_cache
        self._token_id = token.partition(":")[0]

    def __repr__(self) -> str:
        return f"QueuedBot[{self._token_id}]"

    def _own_user(self) -> Mapping[str, Any] | None:
        return None if self._bot_user is None else {name: getattr(self._bot_user, name) for name in _OF_A_SENDER}

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
