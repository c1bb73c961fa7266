"""The table of Bot API methods, and what a method gets to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bot.playground.params import Params, bad_request
from bot.playground.world import Bot, World


class Context:
    """One call on its way. A method leaves the id of the (first) message it made in `message_id`."""

    __slots__ = ("arrival_ns", "bot", "chat", "message_id", "method", "params", "world")

    def __init__(self, world: World, bot: Bot, method: Method, params: Params, chat: int, arrival_ns: int) -> None:
        self.world = world
        self.bot = bot
        self.method = method
        self.params = params
        self.chat = chat
        self.arrival_ns = arrival_ns
        self.message_id = 0

    @property
    def date(self) -> int:
        """Unix seconds of the call's arrival."""
        return (self.arrival_ns + self.world.wall_offset_ns) // 10**9


# bytes are JSON already; an awaitable result is answered when it is there (getUpdates, setWebhook)
Run = Callable[[Context], Any]


class Method:
    """A Bot API method. `sends` says that it puts messages into a chat and so counts against limits."""

    __slots__ = ("name", "needs_chat", "run", "sends")

    def __init__(self, name: str, run: Run, *, sends: bool, needs_chat: bool) -> None:
        self.name = name
        self.run = run
        self.sends = sends
        self.needs_chat = needs_chat


METHODS: dict[str, Method] = {}  # by lower-case name: Telegram does not mind the case


def method(name: str, *, sends: bool = False, needs_chat: bool = False) -> Callable[[Run], Run]:
    """Enter a function under a method's name."""

    def enter(run: Run) -> Run:
        METHODS[name.lower()] = Method(name, run, sends=sends, needs_chat=needs_chat or sends)
        return run

    return enter


def require_chat(params: Params, chat: int) -> None:
    """The refusals Telegram has for a chat_id that is missing or names nothing."""
    if chat == 0:
        missing = params.values.get("chat_id") in (None, "")
        raise bad_request("chat_id is empty" if missing else "chat not found")
