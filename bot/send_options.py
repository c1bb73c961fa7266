"""What a handler may say about one send: `rate_limit_args` of the bot's methods. The shortcuts of PTB's objects have no
such argument; there, it is one of the `api_kwargs`.

    await context.bot.send_message(chat, "Your turn", rate_limit_args={"wait": 10, "priority": "normal"})
    await message.reply_text("Your turn", api_kwargs={"rate_limit_args": {"wait": 10}})
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict, cast

from queueing.errors import MalformedMessage
from queueing.message import Priority, check_dedup_key, check_ttl


class SendOptions(TypedDict, total=False):
    """The keys of `rate_limit_args`. Anything else, and a value of another type, is a ValueError.

    wait:      True: the call returns once the message was sent, with Telegram's own result, or raises its error. A
               number: the same, for as many seconds; then TimedOut is raised, and the message stays in the queue.
               False: it returns at once, also where the bot was made to wait; only for what has a result then.
    priority:  "interactive" (the default), "normal" or "bulk": which messages of all chats go first.
    dedup_key: of several sends of the bot with the same key in 24 hours, only the first is made.
    ttl:       seconds after which it is not sent any more.
    direct:    True: it is not queued, but called at once, outside of the queue's order and limits.
    """

    wait: bool | float
    priority: str
    dedup_key: str
    ttl: float
    direct: bool


@dataclass(frozen=True, slots=True)
class Options:
    """SendOptions, checked. wait: None: as the method and the bot have it."""

    wait: bool | float | None = None
    priority: Priority = Priority.INTERACTIVE
    dedup_key: str | None = None
    ttl: float | None = None
    direct: bool = False


_NONE = Options()


def options_of(rate_limit_args: object) -> Options:
    """The options in `rate_limit_args`. A number, which PTB's AIORateLimiter takes there, says nothing here.

    Raises ValueError, which names the key.
    """
    if rate_limit_args is None or isinstance(rate_limit_args, int):
        return _NONE
    if not isinstance(rate_limit_args, Mapping):
        raise ValueError(f"rate_limit_args must be a dict, not {type(rate_limit_args).__name__}")
    given = cast(SendOptions, dict(rate_limit_args))
    if unknown := sorted(map(str, given.keys() - SendOptions.__annotations__.keys())):
        known = ", ".join(SendOptions.__annotations__)
        raise ValueError(f"rate_limit_args: {unknown[0]} is no option; there are {known}")
    try:
        options = Options(
            wait=_wait(given.get("wait")),
            priority=Priority(given.get("priority", Priority.INTERACTIVE)),
            dedup_key=check_dedup_key(given.get("dedup_key")),
            ttl=check_ttl(given.get("ttl")),
            direct=_flag(given.get("direct", False)),
        )
    except (MalformedMessage, ValueError) as error:
        raise ValueError(f"rate_limit_args: {error}") from None
    if options.direct and len(given) > 1:
        raise ValueError("rate_limit_args: what is sent directly is in no queue, so direct goes with no other option")
    return options


def _wait(value: object) -> bool | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value > 0:
        return value
    raise ValueError("wait must be true, false, or seconds, more than 0")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("direct must be true or false")
