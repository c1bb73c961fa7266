"""Arbitrary callback data for all processes: what is behind a keyboard's buttons, for 30 days after their last use.

PTB's cache keeps the newest 1,024 keyboards of its process. Here those of an update come from the store, and those that
its handlers make go there with its commit; what is made outside of a run is stored at once.
"""

import asyncio
import copy
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final
from uuid import uuid4

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.ext import CallbackDataCache

from bot.changes import Change
from bot.pickling import Pickler
from bot.run import current_run
from bot.run_local import Locals, RunLocal, current_locals
from queueing.inbox import Write

FIELD: Final = "data"
CLEARED: Final = "keyboards cleared"
"""Field of the bot's state: Unix seconds; keyboards that were last used before are none."""

_KEEP: Final = 30 * 86400
_ON_ITS_WAY: Final = 0.05
"""Seconds after which a keyboard may be on its way to somebody while its run still goes on: it is stored then."""

_ID = re.compile(r"[0-9a-f]{32}")


def _keyboard(data: object) -> str | None:
    """The id of the keyboard that a button's data names."""
    found = _ID.match(data) if isinstance(data, str) else None
    return found[0] if found else None


def keyboards_of(update: Update) -> list[str]:
    """The ids of the keyboards that an update has in it, each once."""
    found = [_keyboard(update.callback_query.data)] if update.callback_query else []
    for message in _messages(update.effective_message):
        if message.reply_markup:
            found += [_keyboard(button.callback_data) for row in message.reply_markup.inline_keyboard for button in row]
    return list(dict.fromkeys(id for id in found if id))


def _messages(message: object) -> Iterator[Message]:
    if isinstance(message, Message):
        yield message
        yield from _messages(message.reply_to_message)
        yield from _messages(message.pinned_message)


class SharedCallbackData(CallbackDataCache):
    """In the place of the bot's own cache. PTB's code finds in it what the caller's run has.

    prefix: of the keys of keyboards. state: the key of the bot's state.
    store:  stores, in the background, what belongs to no run and what cannot wait for its run's commit.
    """

    def __init__(
        self, cache: CallbackDataCache, prefix: str, state: str, pickler: Pickler, store: Callable[[Write], None]
    ) -> None:
        super().__init__(cache.bot, cache.maxsize)
        self._prefix = prefix
        self._state = state
        self._pickler = pickler
        self._store = store
        self._keyboards: RunLocal[str, Any] = RunLocal(self._keyboard_data)
        self._queries: RunLocal[str, str] = RunLocal(self._callback_queries)
        self._cleared: RunLocal[str, float] = RunLocal({})
        self._made: RunLocal[str, int] = RunLocal({})
        self._keyboard_data = self._keyboards
        self._callback_queries = self._queries

    def process_keyboard(self, reply_markup: InlineKeyboardMarkup) -> InlineKeyboardMarkup:
        """As PTB's, but a run that is repeated gives its keyboards the same ids: messages that it had sent use them."""
        id = self._next_id()
        data: dict[str, object] = {}
        rows = [[_kept(button, id, data) for button in row] for row in reply_markup.inline_keyboard]
        if not data:
            return reply_markup
        self.load_persistence_data(([(id, time.time(), data)], {}))
        if (run := current_locals()) is None:
            self._store(self._write(id, self._keyboards[id]))
        else:
            asyncio.get_running_loop().call_later(_ON_ITS_WAY, self._store_early, run, id)
        return InlineKeyboardMarkup(rows)

    def clear_callback_data(self, time_cutoff: float | datetime | None = None) -> None:
        """As PTB's, for all processes."""
        super().clear_callback_data(time_cutoff)
        cutoff = time_cutoff.timestamp() if isinstance(time_cutoff, datetime) else time_cutoff
        self._cleared["before"] = time.time() if cutoff is None else cutoff
        if current_locals() is None:
            self._store(self._clearing(self._cleared["before"]))

    def keys(self, update: Update) -> list[str]:
        """Where the update's keyboards are stored."""
        return [self._prefix + id for id in keyboards_of(update)]

    def put(self, stored: Mapping[str, bytes | None], cleared: bytes | None) -> None:
        """Gives the caller's run what is stored of its keyboards, by key."""
        for key, packed in stored.items():
            if packed is not None:
                used, data = self._pickler.loads(packed, key)
                if used >= float(cleared or 0):
                    self.load_persistence_data(([(key.removeprefix(self._prefix), used, data)], {}))

    def changes(self, stored: Mapping[str, bytes | None], run: Locals) -> Iterator[Change]:
        """What is to be stored: new keyboards, those that were used, for 30 more days, and that others are gone."""
        keyboards, used = self._keyboards.of(run), set(self._queries.of(run).values())
        for id, keyboard in keyboards.items():
            seen = stored.get(self._prefix + id)
            if seen is None:
                yield Change(self._write(id, keyboard), lambda holds: holds)
            elif id in used:
                # Compared, for another run may have dropped it meanwhile.
                yield Change(replace(self._write(id, keyboard), seen=seen), lambda holds: holds)
        for key, packed in stored.items():
            if packed is not None and key.removeprefix(self._prefix) not in keyboards:
                yield Change(Write(key, FIELD, None), lambda holds: holds)
        for cutoff in self._cleared.of(run).values():
            yield Change(self._clearing(cutoff), lambda holds: holds)

    def _next_id(self) -> str:
        run = current_run()
        if run is None or current_locals() is None:
            return uuid4().hex
        number = self._made["number"] = self._made.get("number", 0) + 1
        # Keyed, so that nobody who knows of an update can name the buttons that it led to.
        key = self.bot.token.encode()[-64:]
        return blake2b(f"{run.origin}:{number}".encode(), digest_size=16, key=key).hexdigest()

    def _write(self, id: str, keyboard: Any) -> Write:
        _, used, data = keyboard.to_tuple()
        key = self._prefix + id
        return Write(key, FIELD, self._pickler.dumps((used, data), "callback_data"), ttl=_KEEP)

    def _clearing(self, cutoff: float) -> Write:
        return Write(self._state, CLEARED, repr(cutoff).encode())

    def _store_early(self, run: Locals, id: str) -> None:
        keyboard = self._keyboards.of(run).get(id)
        if keyboard and not run.ended:
            self._store(self._write(id, keyboard))


def _kept(button: InlineKeyboardButton, keyboard: str, data: dict[str, object]) -> InlineKeyboardButton:
    """The button as Telegram gets it; what it carries goes into `data`."""
    if button.callback_data is None:
        return button
    id = f"{len(data):032x}"
    data[id] = button.callback_data
    kept = copy.copy(button)
    kept.update_callback_data(keyboard + id)
    return kept
