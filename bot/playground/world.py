"""What exists in the stand-in: bots, chats, messages, files. In memory only, and bounded."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Any

import msgspec
import orjson

from bot.playground.chats import People
from bot.playground.clock import LagMeter
from bot.playground.events import Events
from bot.playground.faults import Faults
from bot.playground.ledger import Ledger
from bot.playground.limits import Limits, LimitSettings
from bot.playground.params import Upload
from bot.playground.updates import Mailbox

MESSAGES_KEPT = 100_000  # of one bot; older ones can no longer be edited, copied or replied to
FILES_KEPT = 200 * 1024 * 1024  # bytes of uploads
TIMELINE_KEPT = 300  # entries of one chat on the page
QUERIES_KEPT = 10_000  # callback and inline queries that may still be answered


class Config(msgspec.Struct, frozen=True):
    """How the stand-in starts. `retry_speed` divides the pauses between webhook deliveries (tests use 100)."""

    token: str = ""
    bot_username: str = ""
    limits: LimitSettings = LimitSettings()
    ledger_limit: int = 5_000_000
    retry_speed: float = 1.0


class Entry(msgspec.Struct):
    """One line of a chat on the page. Times are Unix milliseconds; `after_ms` counts from the person's last message."""

    chat: int
    message_id: int
    side: str
    at: float
    after_ms: float | None
    message: dict[str, Any]
    edited_at: float | None = None
    deleted_at: float | None = None
    keyboard: list[list[str]] | None = None


class Bot:
    """One bot: its messages, its numbers, its waiting updates."""

    def __init__(self, bot_id: int, token: str, username: str, retry_speed: float) -> None:
        self.id = bot_id
        self.token = token
        self.user = {"id": bot_id, "is_bot": True, "first_name": username or f"Bot {bot_id}",
                     "username": username or f"playground{bot_id}_bot"}  # fmt: skip
        self.user_json = orjson.dumps(self.user)
        self.mailbox = Mailbox(retry_speed)
        self.commands: dict[str, list[dict[str, Any]]] = {}
        self.pinned: dict[int, int] = {}
        self.migrated: dict[int, int] = {}
        self.queries: OrderedDict[str, float] = OrderedDict()
        self.timelines: dict[int, deque[Entry]] = {}
        self._last_ids: dict[int, int] = {}
        # one number as key and bytes as value: nothing the garbage collector has to walk
        self._messages: dict[int, bytes] = {}
        self._oldest: deque[int] = deque()

    def clear(self) -> None:
        """Forget messages, pins, migrations and queries; numbers of messages go on."""
        self._messages.clear()
        self._oldest.clear()
        self.pinned.clear()
        self.migrated.clear()
        self.queries.clear()
        for timeline in self.timelines.values():
            timeline.clear()

    def next_id(self, chat: int) -> int:
        number = self._last_ids.get(chat, 0) + 1
        self._last_ids[chat] = number
        return number

    def keep(self, chat: int, message_id: int, message: bytes) -> None:
        """Store a message, new or changed, as JSON."""
        key = (chat << 32) + message_id
        if key not in self._messages:
            self._oldest.append(key)
            if len(self._oldest) > MESSAGES_KEPT:
                self._messages.pop(self._oldest.popleft(), None)
        self._messages[key] = message

    def message(self, chat: int, message_id: int) -> dict[str, Any] | None:
        found = self._messages.get((chat << 32) + message_id)
        return None if found is None else orjson.loads(found)

    def forget(self, chat: int, message_id: int) -> bool:
        return self._messages.pop((chat << 32) + message_id, None) is not None

    def ask(self, query: str) -> None:
        """Remember a callback or inline query that waits for its answer."""
        self.queries[query] = time.monotonic()
        if len(self.queries) > QUERIES_KEPT:
            self.queries.popitem(last=False)


class World:
    """Everything the parts of the server share."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ledger = Ledger(config.ledger_limit)
        self.limits = Limits(config.limits)
        self.faults = Faults()
        self.clock = LagMeter()
        self.events = Events()
        self.people = People()
        self.bots: dict[int, Bot] = {}
        self.open_chats: dict[int, list[int]] = {}  # shown on the page → the people who write there
        self.files: OrderedDict[str, Upload] = OrderedDict()
        self._file_bytes = 0
        self._file_count = 0
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()

    def bot(self, token: str) -> Bot:
        """The bot of a well-formed token, made at its first call; a new secret for a known id is taken as rotated."""
        bot_id = int(token.partition(":")[0])
        bot = self.bots.get(bot_id)
        if bot is None:
            named = self.config.bot_username if token == self.config.token else ""
            bot = self.bots[bot_id] = Bot(bot_id, token, named, self.config.retry_speed)
            bot.timelines = {chat: deque(maxlen=TIMELINE_KEPT) for chat in self.open_chats}
            self.events.publish("bots", bot=bot_id)
        bot.token = token
        return bot

    def keep_file(self, upload: Upload) -> str:
        """Store an upload; returns its file_id. The oldest ones go when there are too many bytes."""
        self._file_count += 1
        file_id = f"playground-file-{self._file_count}"
        self.files[file_id] = upload
        self._file_bytes += len(upload.content)
        while self._file_bytes > FILES_KEPT and len(self.files) > 1:
            self._file_bytes -= len(self.files.popitem(last=False)[1].content)
        return file_id

    async def reset(self) -> None:
        """Forget what happened, faults and running penalties; webhooks, pollers and open chats stay."""
        self.ledger.clear()
        self.faults.clear()
        self.limits.clear()
        self.files.clear()
        self._file_bytes = 0
        for bot in self.bots.values():
            bot.clear()
            await bot.mailbox.clear()
        self.events.publish("reset")

    # --- the page's view of the chats it has opened

    def open_chat(self, chat: int, title: str, people: dict[int, str]) -> None:
        """Show a chat on the page, with the people who write in it (id → first name)."""
        for user, name in people.items():
            self.people.name_user(user, name)
        if chat < 0:
            self.people.name_chat(chat, title)
        self.open_chats[chat] = list(people)
        for bot in self.bots.values():
            bot.timelines.setdefault(chat, deque(maxlen=TIMELINE_KEPT))
        self.events.publish("chats", chat=chat)

    def record(self, bot: Bot, chat: int, side: str, message: dict[str, Any], arrival_ns: int,
               keyboard: list[list[str]] | None = None) -> None:  # fmt: skip
        """A message for the page, if it has this chat open."""
        timeline = bot.timelines.get(chat)
        if timeline is None:
            return
        at = (arrival_ns + self.wall_offset_ns) / 1e6
        asked = next((entry.at for entry in reversed(timeline) if entry.side == "user"), None)
        after = at - asked if side == "bot" and asked is not None else None
        entry = Entry(chat, message["message_id"], side, at, after, message, keyboard=keyboard)
        timeline.append(entry)
        self.events.publish("message", bot=bot.id, entry=msgspec.to_builtins(entry))

    def amend(self, bot: Bot, chat: int, message_id: int, message: dict[str, Any] | None) -> None:
        """A message was edited, or deleted (None)."""
        for entry in bot.timelines.get(chat, ()):
            if entry.message_id != message_id:
                continue
            now = time.time() * 1000
            if message is None:
                entry.deleted_at = now
            else:
                entry.message, entry.edited_at = message, now
            self.events.publish("changed", bot=bot.id, entry=msgspec.to_builtins(entry))
            return
