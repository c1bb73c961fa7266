"""The hook: PTB asks its rate limiter before every call of a handler, and ours puts what is for a chat into the queue.

Which call goes which way, bot/methods.py says; a handler may change that for a send (bot/send_options.py).

What returns at once brings a Message with a *provisional id*, a negative one. Any later call may name it, from any
process: it is queued behind the message that it names, and gets the real id when its turn comes. So does a call that
would go directly otherwise. If what it names is never sent, it isn't either, and becomes a dead letter (`parent_dead`).

What waits for the real result is in the same lane, and returns what Telegram answered or raises what it refused. If the
process is to end first, the handlers of a run are cancelled, since they might take an error for Telegram's, and run
again elsewhere: the same send, which is not made again, brings its result there. What is in no run gets StillQueued.

Within a run (bot/run.py), what returns at once is held back until the run commits, or waits for a result. The ids of a
run's sends are the same when it is run again.

Errors: QueueFull and QueueUnavailable reach the handler as they are. They are no TelegramError, so that a handler that
shrugs at those does not swallow them: the update has failed, and is to be handled again. What the queue does not take,
such as a chat_id that no chat can have, goes directly, for Telegram to judge.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from telegram.error import BadRequest, TelegramError, TimedOut
from telegram.ext import BaseRateLimiter
from telegram.request._requestparameter import RequestParameter  # turns PTB's objects into JSON's, as PTB itself does

from bot.call import SEND_MESSAGE
from bot.derived import result_of
from bot.endings import ENDED, Endings
from bot.methods import EDITS, Way, way_of_call
from bot.outbox import Outbox
from bot.outcomes import is_query_expired
from bot.provisional import message_id, parents_of, queue_id
from bot.refusals import StillQueued, refusal
from bot.run import NUMBER_BITS, Run, current_run
from bot.send_options import Options, SendOptions, options_of
from queueing.contract import MessageStatus
from queueing.errors import MalformedMessage
from queueing.message import Message, MessageState

Result = bool | dict[str, Any] | list[dict[str, Any]]
Callback = Callable[..., Coroutine[Any, Any, Result]]

_IN_API_KWARGS = "rate_limit_args"

_logger = logging.getLogger(__name__)


async def _at_once(method: str, call: Awaitable[Result]) -> Result:
    """Of a button whose press was answered before, by a run that its process did not survive, or that waited for too
    long, nobody sees the answer any more: no reason for the rest of the handler not to run."""
    try:
        return await call
    except BadRequest as error:
        if method != "answerCallbackQuery" or current_run() is None or not is_query_expired(error):
            raise
        _logger.info("the press of a button was answered before, or too late: %s", error)
        return True


class Files(Protocol):
    """Where files are kept until they are sent: bot/files.py."""

    async def pack(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Keeps the files in parameters that are typed as PTB has them; → the parameters as JSON, and what the body of
        the message is to have as `files`. Raises a TelegramError for a file that cannot be taken."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that is to be queued. number: what it is known by. parameters: JSON, without the chat."""

    method: str
    number: int
    chat: object
    parameters: dict[str, Any]
    options: Options
    wait: bool | float
    extra: dict[str, Any]


class QueuedRateLimiter(BaseRateLimiter[SendOptions]):
    """Puts a bot's calls into the queue.

    endings: tells when messages that are waited for have ended.
    files:   where files go; None: a call that uploads some is made directly.
    wait:    for every send: True: for the real result; a number: for as many seconds; False: what can, returns at once.
    bot:     tells the bot's own User, once it is known.
    """

    def __init__(
        self,
        outbox: Outbox,
        endings: Endings,
        *,
        files: Files | None = None,
        wait: bool | float = False,
        bot: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        self._outbox = outbox
        self._endings = endings
        self._files = files
        self._wait = wait
        self._bot = bot

    async def initialize(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def process_request(
        self,
        callback: Callback,
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: SendOptions | None,
    ) -> Result:
        options = options_of(data.pop(_IN_API_KWARGS, rate_limit_args))
        way = Way.DIRECT if options.direct else way_of_call(endpoint, data)
        inputs = {name: RequestParameter.from_input(name, value) for name, value in data.items()}
        parameters = {name: given.value for name, given in inputs.items()}
        uploads = any(given.input_files for given in inputs.values())
        # What names a message that has no real id yet can only go behind it.
        if (way is Way.DIRECT and not parents_of(parameters)) or (uploads and self._files is None):
            return await _at_once(endpoint, callback(*args, **kwargs))
        wait = self._wait_of(way, endpoint, options)
        # Before anything is awaited: of calls that are made together, the same is the first when the run is run again.
        run = current_run()
        number = run.next_number() if run else secrets.randbits(NUMBER_BITS) or 1
        extra: dict[str, Any] = {}
        if uploads and self._files is not None:
            parameters, extra["files"] = await self._files.pack(data)
        call = _Call(endpoint, number, parameters.pop("chat_id", None), parameters, options, wait, extra)
        run = current_run()
        try:
            message = self._compose(call, run)
        except MalformedMessage as error:
            if extra or parents_of(parameters):
                raise BadRequest(str(error)) from error
            return await callback(*args, **kwargs)  # for Telegram to judge
        return await (self._ask(call, message, run) if wait else self._tell(call, message, run))

    def _wait_of(self, way: Way, method: str, options: Options) -> bool | float:
        wanted = self._wait if options.wait is None else options.wait
        if way is Way.DERIVED or wanted:
            return wanted
        if options.wait is False:
            raise ValueError(f"rate_limit_args: the result of {method} is Telegram's alone, so it has to be waited for")
        return True

    async def _tell(self, call: _Call, message: Message, run: Run | None) -> Result:
        """Queues it, and returns what Telegram will answer, as far as that can be told."""
        if run is None or run.sends is None:
            await self._outbox.enqueue([message])
        elif message.dedup_key is None:
            run.sends.append(message)
        else:  # which message it is, only the queue can say
            await self._outbox.flush(run, message)
        id = await self._outbox.first_with(message)
        try:
            number = message_id(id)
        except ValueError:  # another program's message was the first with its key
            number = message_id(message.id)
        return result_of(call.method, message.chat, call.parameters, number, self._bot())

    async def _ask(self, call: _Call, message: Message, run: Run | None) -> Result:
        """Queues it, and returns what Telegram answered."""
        if run is None:
            await self._outbox.enqueue([message])
        else:
            await self._outbox.flush(run, message)
        loop = asyncio.get_running_loop()
        deadline = float("inf") if call.wait is True else loop.time() + call.wait
        id = await self._outbox.first_with(message)
        if id != message.id and await self._endings.wait(id, loop.time()) is None:
            raise TelegramError("another message was taken with this dedup_key, and what came of it was not kept")
        status = await self._endings.wait(id, deadline, awaited=True)
        if status is None or status.state not in ENDED:
            raise self._unended(call.wait, run)
        answer = _answer(call.method, status)
        if type(answer) is int:  # another message's, which nobody waited for: only its id was kept
            answer = result_of(SEND_MESSAGE, message.chat, call.parameters, answer, self._bot())
        result: Result = answer
        return result

    def _unended(self, wait: bool | float, run: Run | None) -> BaseException:
        if not self._endings.over:
            return TimedOut(f"not sent within {wait:g} s; the message stays in the queue")
        error = StillQueued("the process is about to end; the message stays in the queue")
        if run is None or run.over:
            return error
        run.errors.append(error)
        return asyncio.CancelledError()

    def _compose(self, call: _Call, run: Run | None) -> Message:
        """Raises MalformedMessage for what the queue does not take."""
        parameters, extra, awaited = dict(call.parameters), dict(call.extra), bool(call.wait)
        if run and run.about and not awaited:
            extra["origin"] = dict(run.about)
        return self._outbox.compose(
            call.chat,
            parameters.pop("text", None),
            method=None if call.method == SEND_MESSAGE else call.method,
            kwargs=parameters,
            priority=call.options.priority,
            id=queue_id(call.number),
            ttl=call.options.ttl,
            dedup_key=call.options.dedup_key,
            # Of a run, all are: their ids are not taken again when it is run again.
            provisional=not awaited and (call.method == SEND_MESSAGE or run is not None),
            awaited=awaited,
            extra=extra,
        )


def _answer(method: str, status: MessageStatus) -> Any:
    """Telegram's answer to a message that has ended. Raises what it refused."""
    if status.state is not MessageState.SENT:
        raise refusal(status)
    result = orjson.loads(status.result or "true")
    if result is True and method in EDITS:  # for the queue it is done, see bot/outcomes.py
        raise BadRequest("Message is not modified")
    return result
