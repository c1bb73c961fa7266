"""Message → Bot API → Outcome: sends what the worker was given. What an error means is told in bot/outcomes.py.

`telegram.Bot` is rebuilt from the stored token. An outside producer's parameters never go through its methods, which
would read and upload a file that a string names: they are posted as they are, and a string is only ever a string.
"""

import asyncio
import json
import logging
import re
import time
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from msgspec import structs
from telegram import Bot
from telegram.error import BadRequest, ChatMigrated, Conflict, Forbidden, InvalidToken, NetworkError, TelegramError

from bot.call import Call, CallRefused, parse_call
from bot.file_store import FileGone
from bot.files import Files
from bot.multipart import Part
from bot.outcomes import classify
from bot.provisional import resolve
from bot.transport import MAY_WRITE, UPLOAD_FACTOR, AiohttpRequest, NotFound, NotWritten
from monitoring.logs import mask
from queueing.errors import QueueError
from queueing.message import Message
from queueing.retry import Outcome, Rejected, RetryLater, Sent, Unsent
from queueing.worker import MayWrite

TOKEN = re.compile(r"([0-9]{1,20}):[A-Za-z0-9_-]{1,200}")
"""A bot's token; the group is the bot's id."""

_AUTHENTICATED = (BadRequest, Forbidden, ChatMigrated, Conflict)  # Telegram says these only to a bot that it knows
_KNOWN_BOTS = 1_000
_REFUSED = 3  # tokens of a bot that are remembered as refused, beside the last: no more than are ever stored
_SERVER_WAIT = 1.0
_LONGEST_RESULT = 1_000

K = TypeVar("K")
V = TypeVar("V")

log = logging.getLogger(__name__)


class Credentials(Protocol):
    """Where tokens are kept: a Queue. See queueing.contract.Queue."""

    async def credentials(self, bot: str) -> Sequence[str]: ...

    async def register(self, bot: str, credential: str) -> None: ...

    async def proven(self, bot: str) -> bool: ...


class Sender:
    """Delivers messages for any bot.

    credentials:  where the tokens are.
    api_url:      base URL of the Bot API, without a slash at its end.
    send_timeout: seconds within which a delivery ends, all its calls together; with files, UPLOAD_FACTOR times as long.
    own_token:    the configured bot's: it is at hand even when the queue's server lost what it knew.
    request:      the HTTP client; whoever made it shuts it down.
    files:        where the files of messages are; None: nowhere.

    A bot is remembered here once its token worked, and forgotten when 1,000 others were used since.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        api_url: str,
        send_timeout: float,
        request: AiohttpRequest,
        own_token: str | None = None,
        files: Files | None = None,
    ) -> None:
        self._files = files
        self._credentials = credentials
        self._own_token = own_token
        self._base_url = f"{api_url}/bot"
        self._send_timeout = send_timeout
        self._request = request
        self._bots: _Recent[str, Bot] = _Recent(_KNOWN_BOTS)
        self._refused: _Recent[str, list[str]] = _Recent(_KNOWN_BOTS)

    async def deliver(self, message: Message, may_write: MayWrite) -> Outcome:
        """Sends a message. Never raises; see queueing.worker.Deliver."""
        asked = MAY_WRITE.set(may_write)
        try:
            call = parse_call(message.body, message.chat, whole=message.awaited)
            if message.results:
                call = structs.replace(call, parameters=resolve(call.parameters, message.results))
            return await self._deliver_call(message.bot, call)
        except CallRefused as error:
            return Rejected(str(error), error.reason)
        except FileGone:
            return Rejected("a file of it is not in the store, or not any more", "file_gone")
        except (QueueError, TimeoutError) as error:
            return RetryLater(f"what it needs could not be read: {error}", "queue_unavailable", after=_SERVER_WAIT)
        except TelegramError as error:
            return classify(error)
        except Exception as error:  # noqa: BLE001  a mistake of ours must cost one message's attempt, not the worker
            log.error("delivery of %s failed unexpectedly\n%s", message.id, mask(traceback.format_exc()))
            return classify(error)
        finally:
            MAY_WRITE.reset(asked)

    async def _deliver_call(self, bot_id: str, call: Call) -> Outcome:
        deadline = time.monotonic() + self._send_timeout * (UPLOAD_FACTOR if call.files else 1)
        if not call.files:
            return await self._deliver(bot_id, call, (), deadline)
        if self._files is None:
            raise FileGone
        async with asyncio.timeout(self._left(deadline)):
            parts = await self._files.open(call.files)
        outcome = await self._deliver(bot_id, call, parts, deadline)
        if isinstance(outcome, Sent):
            await self._files.let_go(call.files)
        return outcome

    async def _deliver(self, bot_id: str, call: Call, parts: Sequence[Part], deadline: float) -> Outcome:
        """Tries the token that worked last, then what is stored; but what was refused since, after the others. For a
        refusal takes time, and by then it may be too late to write another request: that one is the next delivery's."""
        known = self._bots.get(bot_id)
        refusal: InvalidToken | None = None
        refused = self._refused.get(bot_id) or []
        if known is not None and known.token not in refused:
            try:
                return await self._send(known, call, parts, deadline)
            except InvalidToken as error:
                refusal = error
                self._note_refusal(known)
        tokens = await self._tokens(bot_id, deadline)
        if known is not None and known.token not in tokens:
            tokens.append(known.token)
        for token in sorted(tokens, key=lambda token: refused.index(token) if token in refused else -1):
            if refusal is not None and known is not None and token == known.token:
                continue
            bot = self._rebuild(token)
            try:
                outcome = await self._send(bot, call, parts, deadline)
            except InvalidToken as error:
                refusal = refusal or error
                self._note_refusal(bot)
            else:
                if refusal is None or outcome != Unsent() or token not in refused:
                    return outcome
        if refusal is None:
            return Rejected(f"no token is known for bot {bot_id}", "unknown_bot")
        worked = known is not None or await self._credentials.proven(bot_id)
        return classify(refusal, worked=worked)

    def _note_refusal(self, bot: Bot) -> None:
        """The token that was refused last is the last."""
        others = [token for token in self._refused.get(_id(bot)) or [] if token != bot.token]
        self._refused.put(_id(bot), [*others[-_REFUSED:], bot.token])

    async def _tokens(self, bot_id: str, deadline: float) -> list[str]:
        async with asyncio.timeout(self._left(deadline)):
            stored = await self._credentials.credentials(bot_id)
        if self._own_token is not None and self._own_token not in stored:
            stored = [self._own_token, *stored]
        return [token for token in stored if (match := TOKEN.fullmatch(token)) and match[1] == bot_id]

    def _rebuild(self, token: str) -> Bot:
        return Bot(token, base_url=self._base_url, request=self._request, get_updates_request=self._request)

    async def _send(self, bot: Bot, call: Call, parts: Sequence[Part], deadline: float) -> Outcome:
        """Raises InvalidToken if the token was refused."""
        try:
            url = f"{bot.base_url}/{call.method}"
            result = await self._request.call(url, call.parameters, self._left(deadline), parts)
            kept = json.dumps(_masked(result)) if call.whole else _receipt(result)
            outcome: Outcome = Sent(kept, _id_of_chat(call.parameters["chat_id"], result))
        except NotFound:
            await self._check_token(bot, deadline)
            outcome = Rejected(f"the Bot API has no method {call.method}", "unknown_method")
        except InvalidToken:
            raise
        except TelegramError as error:
            outcome = classify(error)
            if not isinstance(error, _AUTHENTICATED):
                return outcome
        if self._bots.get(_id(bot)) is not bot:
            await self._remember(bot, deadline)
        return outcome

    async def _check_token(self, bot: Bot, deadline: float) -> None:
        """Raises InvalidToken if Telegram doesn't know the token, NotWritten if it cannot be asked."""
        asked = MAY_WRITE.set(None)  # it delivers nothing, so no lease has to last for it
        try:
            await bot.get_me(read_timeout=self._left(deadline))
        except NetworkError as error:
            failure = str(error)
        else:
            return
        finally:
            MAY_WRITE.reset(asked)
        raise NotWritten(f"the token could not be checked: {failure}")

    async def _remember(self, bot: Bot, deadline: float) -> None:
        """Keeps a token that worked, here and for the other processes."""
        bot_id = _id(bot)
        self._bots.put(bot_id, bot)
        self._refused.put(bot_id, [])
        try:
            async with asyncio.timeout(self._left(deadline)):
                await self._credentials.register(bot_id, bot.token)
        except (QueueError, TimeoutError) as error:
            log.warning("the token of bot %s could not be stored: %s", bot_id, error)

    def _left(self, deadline: float) -> float:
        """Seconds until the deadline, and never 0, which would mean for ever."""
        return max(deadline - time.monotonic(), 0.001)


def _id(bot: Bot) -> str:
    return bot.token.partition(":")[0]


def _receipt(result: Any) -> str | None:
    """What is kept of Telegram's answer, as JSON: the message's id, an album's ids, or the whole when it is short.

    Tokens are masked in it.
    """
    if _is_message(result):
        return str(result["message_id"])
    if isinstance(result, list) and result and all(map(_is_message, result)):
        return json.dumps([item["message_id"] for item in result])
    text = json.dumps(result)
    return json.dumps(_masked(result)) if len(text) <= _LONGEST_RESULT else None


def _id_of_chat(name: object, result: Any) -> str | None:
    """The id of the chat that was sent to by its @name, if Telegram's answer tells it."""
    if not isinstance(name, str):
        return None
    message = result[0] if isinstance(result, list) and result else result
    match message:
        case {"chat": {"id": int(id), "username": str(username)}} if name == f"@{username.lower()}":
            return str(id)
        case _:
            return None


def _is_message(result: Any) -> bool:
    return isinstance(result, dict) and type(result.get("message_id")) is int


def _masked(value: Any) -> Any:
    match value:
        case str():
            return mask(value)
        case list():
            return [_masked(item) for item in value]
        case dict():
            return {mask(name): _masked(item) for name, item in value.items()}
        case _:
            return value


class _Recent(Generic[K, V]):
    """The entries used most recently, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
