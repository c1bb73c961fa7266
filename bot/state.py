"""Keeper: reads what a bot knows about an update before its run, and tells what to store with its commit.

In the store, for the bot BOT:

| key             | field                      | holds                                                                |
|-----------------|----------------------------|----------------------------------------------------------------------|
| state:BOT       | user ID, chat ID           | user_data, chat_data of one                                          |
|                 | conversation NAME KEY      | its state, and the id of the job that is its timeout                 |
|                 | bot_data                   | a random value, another each time that bot_data changes              |
|                 | keyboards cleared          | Unix seconds before which keyboards are no longer known              |
| bot_data:BOT    | of each key of bot_data    | its value                                                            |
| keyboard:BOT:ID | data                       | (Unix seconds of the last use, button → callback data); TTL 30 days  |

What is loaded is the run's own (ContextVars): runs of one process see nothing of each other.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from telegram import Update

from bot.bot_data import RunBotData
from bot.callback_data import CLEARED, FIELD, SharedCallbackData
from bot.changes import Change
from bot.conversations import changes, places, put
from bot.pickling import Pickler
from bot.run_local import Locals, set_locals
from bot.stateful import STATE, AnyApplication, StatefulApplication
from bot.stored_data import StoredData, field_of
from queueing.errors import QueueError
from queueing.inbox import Conflict, Write

_logger = logging.getLogger(__name__)

_VERSION: Final = "bot_data"
_NOT_OWN: Final = (
    "the user and the chat of an update are, and nobody else, whom another process may be changing; "
    "bot_data is the place for what is not of one user or chat"
)


class Store(Protocol):
    """What the keeper uses of an inbox (queueing/inbox.py)."""

    async def read(self, fields: Sequence[tuple[str, str]]) -> Sequence[bytes | None]: ...

    async def read_all(self, key: str) -> dict[str, bytes]: ...

    async def write(self, writes: Sequence[Write]) -> Sequence[Conflict]: ...


class Loaded:
    """What was loaded for a run. The handlers find it where PTB has it.

    parts: what each kind of state has to store. own: the process's bot_data, for what goes on when the run has ended.
    """

    def __init__(
        self,
        user_data: StoredData,
        chat_data: StoredData,
        bot_data: RunBotData,
        own: Callable[[], Any],
        parts: Sequence[Callable[[Locals], Iterable[Change]]],
    ) -> None:
        self.user_data: StoredData = user_data
        self.chat_data: StoredData = chat_data
        self._bot_data = bot_data
        self._own = own
        self._parts = parts
        self._locals = Locals()
        self._changes: dict[tuple[str, str], Change] = {}

    def enter(self) -> None:
        """Makes the caller, and the tasks that it starts, part of the run."""
        STATE.set(self)
        set_locals(self._locals)

    @property
    def bot_data(self) -> Any:
        if self._locals.ended:
            _logger.warning("bot_data is used after its update has ended: what is changed there now is not stored")
            return self._own()
        return self._bot_data.value

    @bot_data.setter
    def bot_data(self, value: Any) -> None:
        self._bot_data.value = value

    def writes(self) -> Sequence[Write]:
        """What is to be stored, as it is now; after the run's last task. Raises StateError if something cannot be."""
        found = (change for part in self._parts for change in part(self._locals))
        self._changes = {(change.write.key, change.write.field): change for change in found}
        return self._as_writes()

    def merge(self, conflicts: Sequence[Conflict]) -> Sequence[Write]:
        """All the writes again, those that had conflicts merged with what the fields hold. Raises StateError."""
        for conflict in conflicts:
            place = conflict.write.key, conflict.write.field
            change = self._changes.pop(place)
            value = change.merged(conflict.holds)
            if value != conflict.holds:
                self._changes[place] = replace(change, write=replace(change.write, value=value, seen=conflict.holds))
        return self._as_writes()

    def discard(self) -> None:
        """Ends it: nothing that is changed from now on is stored. To be called however the run went."""
        self._locals.ended = True
        self.user_data.close()
        self.chat_data.close()
        if STATE.get() is self:
            STATE.set(None)
            set_locals(None)

    def _as_writes(self) -> Sequence[Write]:
        return [change.write for change in self._changes.values()]


@dataclass(frozen=True, slots=True)
class _Nobody:
    """What there is of users and chats outside of any run."""

    user_data: StoredData
    chat_data: StoredData


class Keeper:
    """Keeps the state of one bot in a store that all its processes share. bot: its id.

    To be made when the application has been built; its handlers may be added later. Raises TypeError if the application
    is no StatefulApplication.
    """

    def __init__(self, application: AnyApplication, store: Store, bot: str) -> None:
        if not isinstance(application, StatefulApplication):
            raise TypeError(f"{type(application).__name__} cannot share its state; build it with the builder given")
        self._application = application
        self._store = store
        self._pickler = Pickler(application.bot)
        self._state, self._bot_data, self._keyboard = f"state:{bot}", f"bot_data:{bot}", f"keyboard:{bot}:"
        self._version: bytes | None = None
        self._bot_fields: Mapping[str, bytes] = {}
        self._unpicklable: dict[Any, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._callback_data = self._share_callback_data()
        why = "there is no update; state is loaded with each"
        application.share_state(_Nobody(self._data("user_data", {}, why), self._data("chat_data", {}, why)))

    async def load(self, update: Update | None, chat_id: int | None = None, user_id: int | None = None) -> Loaded:
        """Reads what the bot knows of an update, or of a job's chat and user, and makes the caller part of its run; so
        the caller starts the handlers, and awaits this itself, in no task between. A job that ends a conversation comes
        with the conversation's last update. Raises QueueUnavailable, and StateError for what cannot be read."""
        users, chats = _of_whom(update, chat_id, user_id)
        conversations = places(self._application, update) if update else []
        cache = self._callback_data
        keyboards = cache.keys(update) if update and cache else []
        named = [field_of("user_data", id) for id in users] + [field_of("chat_data", id) for id in chats]
        named += [_VERSION, CLEARED, *(place.field for place in conversations)]
        fields = [(self._state, name) for name in named] + [(key, FIELD) for key in keyboards]
        held = dict(zip(fields, await self._store.read(fields), strict=True))
        bot_data = await self._read_bot_data(held[self._state, _VERSION])

        stored_places = [held[self._state, place.field] for place in conversations]
        stored_keyboards = {key: held[key, FIELD] for key in keyboards}
        user_data = self._data("user_data", {id: held[self._state, field_of("user_data", id)] for id in users})
        chat_data = self._data("chat_data", {id: held[self._state, field_of("chat_data", id)] for id in chats})
        parts: list[Callable[[Locals], Iterable[Change]]] = [
            lambda _: user_data.changes(self._state),
            lambda _: chat_data.changes(self._state),
            lambda _: self._bot_data_changes(bot_data),
            lambda run: changes(conversations, stored_places, self._pickler, run, self._state),
        ]
        if cache:
            parts.append(lambda run: cache.changes(stored_keyboards, run))
        loaded = Loaded(user_data, chat_data, bot_data, lambda: self._application.own_bot_data, parts)
        loaded.enter()
        put(conversations, stored_places, self._job_of, self._pickler)
        if cache:
            cache.put(stored_keyboards, held[self._state, CLEARED])
        return loaded

    async def close(self) -> None:
        """Waits for what is stored in the background."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _job_of(self, id: str) -> Any:
        job_queue: Any = self._application.job_queue
        return job_queue.job_of(id)

    def _data(self, kind: str, stored: Mapping[int, bytes | None], why_not: str = _NOT_OWN) -> StoredData:
        make = getattr(self._application.context_types, kind)
        return StoredData(kind, make, self._pickler, stored, why_not)

    async def _read_bot_data(self, version: bytes | None) -> RunBotData:
        """What is stored is read again only if it has changed: its version is read first, so that it is never taken for
        newer than it is."""
        if version != self._version:
            self._bot_fields = await self._store.read_all(self._bot_data)
            self._version = version
        return RunBotData(
            self._application.context_types.bot_data,
            self._pickler,
            self._application.own_bot_data,
            self._bot_fields,
            self._unpicklable,
        )

    def _bot_data_changes(self, bot_data: RunBotData) -> Iterable[Change]:
        found = list(bot_data.changes(self._bot_data))
        if found:
            found.append(Change(Write(self._state, _VERSION, os.urandom(8)), lambda holds: holds))
        return found

    def _share_callback_data(self) -> SharedCallbackData | None:
        bot = self._application.bot
        cache = getattr(bot, "callback_data_cache", None)
        if cache is None:
            return None
        shared = SharedCallbackData(cache, self._keyboard, self._state, self._pickler, self._store_soon)
        bot._callback_data_cache = shared  # noqa: SLF001
        return shared

    def _store_soon(self, write: Write) -> None:
        task = asyncio.create_task(self._store_now(write), name=f"store-{write.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store_now(self, write: Write) -> None:
        try:
            await self._store.write([write])
        except QueueError as error:
            _logger.error("the buttons of a message will not work, since they could not be stored: %s", error)


def _of_whom(update: Update | None, chat_id: int | None, user_id: int | None) -> tuple[list[int], list[int]]:
    """The ids of the users and of the chats whose data a run has. A chat that migrates has two."""
    users, chats = [user_id], [chat_id]
    if update:
        if user := update.effective_user:
            users.append(user.id)
        if chat := update.effective_chat:
            chats.append(chat.id)
        if message := update.message:
            chats += [message.migrate_to_chat_id, message.migrate_from_chat_id]
    return _each_once(users), _each_once(chats)


def _each_once(ids: Iterable[int | None]) -> list[int]:
    return list(dict.fromkeys(id for id in ids if id is not None))
