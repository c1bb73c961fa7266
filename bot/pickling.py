"""How state is stored: pickled, with bots left out and put back.

A stored object of Telegram's (a Message in user_data) has its bot again when it is read: that of the process.
"""

import asyncio
import io
import pickle
from typing import Any

from telegram import Bot, TelegramObject

from bot.merging import MISSING, equal

_OF_THE_PROCESS = (asyncio.Lock, asyncio.Event, asyncio.Condition, asyncio.Semaphore, asyncio.Queue)
"""These pickle as long as nobody waits for them, but a copy of one is of no use."""


class StateError(RuntimeError):
    """Something in a bot's data cannot be stored, or not be read again."""


def own_bot() -> Bot | None:
    """Stands for the bot in what is stored; Pickler has put its own in its place before anybody calls it."""
    raise StateError("what is stored of a bot can only be read by Pickler.loads")


def _revive(cls: type[TelegramObject], state: dict[str, object], bot: Bot | None) -> TelegramObject:
    """A Telegram object as it was stored."""
    revived = cls.__new__(cls)
    revived.__setstate__(state)
    revived.set_bot(bot)
    return revived


class Pickler:
    """Pickles for one bot."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    def dumps(self, value: object, name: str) -> bytes:
        """The value as bytes. name: what it is, for the error. Raises StateError if something in it does not pickle."""
        buffer = io.BytesIO()
        try:
            _Writer(buffer, self._bot).dump(value)
        except Exception as error:  # whatever the __reduce__ of a bot's own class raises
            raise StateError(f"{_culprit(value, name, self)} cannot be stored: {error}") from error
        return buffer.getvalue()

    def loads(self, stored: bytes, name: str) -> Any:
        """The value again. Raises StateError if it does not unpickle, as when its class has gone from the code."""
        try:
            return _Reader(io.BytesIO(stored), self._bot).load()
        except Exception as error:  # likewise
            raise StateError(f"{name} cannot be read as it is stored: {error}") from error

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values are the same. Objects without an __eq__ are if they are stored alike."""
        if equal(one, other):
            return True
        if type(one) is not type(other) or one is MISSING or other is MISSING:
            return False
        return self.dumps(one, "") == self.dumps(other, "")


class _Writer(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, bot: Bot) -> None:
        super().__init__(buffer, protocol=5)
        self._bot = bot

    def reducer_override(self, obj: Any) -> Any:
        # Not persistent_id, which is called for each number and string as well: three times the time for large sets.
        if isinstance(obj, TelegramObject):
            if isinstance(obj, Bot):
                if obj is self._bot:
                    return own_bot, ()
                raise pickle.PicklingError("it has another bot in it than the application's")
            bot = getattr(obj, "_bot", None)
            return _revive, (type(obj), obj.__getstate__(), bot if bot is self._bot else None)
        if isinstance(obj, _OF_THE_PROCESS):
            raise pickle.PicklingError(f"{type(obj).__name__} works within its process only")
        return NotImplemented


class _Reader(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, bot: Bot) -> None:
        super().__init__(buffer)
        self._bot = bot

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == own_bot.__name__:
            return lambda: self._bot
        return super().find_class(module, name)


def _culprit(value: object, name: str, pickler: Pickler) -> str:
    """The name of that part of the value which does not pickle."""
    if isinstance(value, dict):
        for key, item in value.items():
            try:
                pickler.dumps((key, item), "")
            except StateError:
                return f"{name}[{key!r}]"
    return name
