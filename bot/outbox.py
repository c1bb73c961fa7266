"""Outbox: how anyone of ours queues a send. It composes the message, checks it, and tells who watches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bot.call import parse_call
from bot.provisional import parents_of
from bot.run import Run
from queueing.contract import Front, MessageStatus
from queueing.errors import MalformedMessage
from queueing.events import Enqueued, Observer
from queueing.message import (
    Message,
    Priority,
    canonical_chat,
    check_after,
    check_dedup_key,
    check_id,
    check_send_at,
    check_ttl,
    check_uncertain,
    encode,
    new_id,
    without_chat,
)

MAX_ELEMENT = 2**20
"""Bytes of a message in the queue; Telegram's own limit for a text is 4,096 characters."""

_PLAIN_MOST = 4096
"""Characters of a text that is surely within MAX_ELEMENT."""

_MAX_ATTEMPTS = 1_000  # as queueing.message has it for elements that other programs push


class Outbox:
    """Queues sends of the bot `bot_id`. `observe` hears of each. is_shared: whether a queue that all processes share
    takes a message."""

    def __init__(
        self,
        queue: Front,
        observe: Observer,
        bot_id: str,
        is_shared: Callable[[Message], bool] = lambda _: True,
    ) -> None:
        self._is_shared = is_shared
        self._queue = queue
        self._observe = observe
        self._bot_id = bot_id

    def compose(
        self,
        chat_id: object,
        text: object = None,
        *,
        method: object = None,
        kwargs: object = None,
        priority: Priority = Priority.NORMAL,
        id: str | None = None,
        track: bool = False,
        max_attempts: object = None,
        ttl: object = None,
        send_at: object = None,
        dedup_key: object = None,
        uncertain: object = None,
        provisional: bool = False,
        awaited: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> Message:
        """The message for a call of the Bot API; `method` is sendMessage unless given, `kwargs` a dict of parameters.
        It is `after` all messages whose provisional ids it names.

        extra: what else its body has that no producer but ours may give: see bot/call.py.

        Raises MalformedMessage, whose text names the field, for what could never be sent.
        """
        chat = canonical_chat(chat_id)
        if isinstance(kwargs, dict):
            kwargs = without_chat(kwargs, chat)
        body = {"method": method, "text": text, "kwargs": None if kwargs == {} else kwargs, **(extra or {})}
        message = Message(
            bot=self._bot_id,
            chat=chat,
            body={name: value for name, value in body.items() if value is not None},
            id=new_id() if id is None else check_id(id),
            priority=priority,
            track=track or awaited,
            max_attempts=_check_max_attempts(max_attempts),
            ttl=check_ttl(ttl),
            send_at=check_send_at(send_at),
            dedup_key=check_dedup_key(dedup_key),
            uncertain=check_uncertain(uncertain),
            provisional=provisional,
            awaited=awaited,
            after=check_after(parents_of(kwargs) or None) if isinstance(kwargs, dict) else (),
        )
        if not _is_text_alone(message.body):
            parse_call(message.body, message.chat)
            if len(encode(message)) > MAX_ELEMENT:
                raise MalformedMessage("text and kwargs are larger than 1 MiB together")
        return message

    async def enqueue(self, messages: Sequence[Message]) -> list[str]:
        """Queues all of them, in this order, or none; returns their ids. Raises QueueFull and QueueUnavailable."""
        await self._queue.enqueue(messages)
        self.tell(messages)
        return [message.id for message in messages]

    def tell(self, messages: Sequence[Message]) -> None:
        """They were queued, by whoever says so."""
        for message in messages:
            self._observe(Enqueued(message))

    async def flush(self, run: Run, message: Message | None = None) -> None:
        """Queues now what a run holds back until its commit and, after it, `message`. Raises as `enqueue` does: then it
        still holds back what it did, and nothing is known of `message`; both may be given again."""
        async with run.sending:
            held = run.take_sends()
            if held or message:
                try:
                    await self.enqueue([*held, *([message] if message else ())])
                except BaseException:
                    if run.sends is not None:
                        run.sends[:0] = held
                    raise

    async def status(self, id: str) -> MessageStatus | None:
        """What is known of a message that is tracked or awaited. Raises QueueUnavailable."""
        return await self._queue.status(id)

    async def first_with(self, message: Message) -> str:
        """Its id or, if another message came first with its dedup key, the id of that. Raises QueueUnavailable."""
        if message.dedup_key is None:
            return message.id
        return await self._queue.first_with(message.bot, message.dedup_key) or message.id

    async def keep_shared(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Queues those that are for a queue within this process, which no commit reaches; returns the others."""
        shared = [message for message in messages if self._is_shared(message)]
        if len(shared) < len(messages):
            await self.enqueue([message for message in messages if not self._is_shared(message)])
        return shared


def _is_text_alone(body: Mapping[str, Any]) -> bool:
    """Whether it asks for a message of a text, and nothing can be wrong with it: most are."""
    text = body.get("text")
    if len(body) != 1 or not isinstance(text, str) or len(text) > _PLAIN_MOST:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _check_max_attempts(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_ATTEMPTS:
        return value
    raise MalformedMessage(f"max_attempts must be a whole number from 1 to {_MAX_ATTEMPTS}")
