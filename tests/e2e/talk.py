"""A person's side of a conversation: writes, presses buttons, and hears what the bot says, call by call."""

import os
import random
import re
import signal
from typing import Any

from tests.conftest import wait_until
from tests.e2e.conftest import Stack

PATIENCE = 20.0
"""Seconds for an answer: a process that was killed in the middle is taken over within LEASE_SECONDS + 5."""


class Talk:
    """One person in one chat. kill_at: the number of the deed after which a process is killed, at random."""

    def __init__(self, stack: Stack, chat: int, user: int = 0, kill_at: int | None = None) -> None:
        self.stack = stack
        self.chat = chat
        self.user = user or chat
        self.killed = False
        self._kill_at = kill_at
        self._deeds = 0
        self._heard: list[str] = []
        self._since = 0

    async def open(self, **people: str) -> None:
        """Puts the chat on the stand-in's page, which is where its buttons are found."""
        named = {str(self.user): f"User {self.user}"} | {id.lstrip("_"): name for id, name in people.items()}
        await self._playground("POST", "/playground/chats", {"chat": self.chat, "title": "A chat", "people": named})

    async def say(self, text: str) -> None:
        await self._do({"text": text})

    async def show(self, **content: Any) -> None:
        """A message that is no text: photo, location …"""
        message = {
            "message_id": 10_000 + self._deeds,
            "date": 1_700_000_000,
            "chat": {"id": self.chat, "type": "private", "first_name": "A"},
            "from": {"id": self.user, "is_bot": False, "first_name": "A"},
        }
        await self.update("message", message | content)

    async def update(self, kind: str, content: dict[str, Any]) -> None:
        await self._do({"kind": kind, "content": content})

    async def press(self, word: str) -> None:
        """The newest button with this word on it."""
        entries = await self.stack.get(f"/playground/timeline?chat={self.chat}", self.stack.telegram)
        for entry in reversed(entries):
            for row in entry["message"].get("reply_markup", {}).get("inline_keyboard", []):
                for button in row:
                    if button["text"] == word:
                        await self._do({"press": {"message_id": entry["message_id"], "data": button["callback_data"]}})
                        return
        raise AssertionError(f"no button {word} among {entries}")

    async def hears(self, *patterns: str) -> None:
        """The next messages and edits of the bot, in this order and no others between them. Repetitions are left out
        once a process was killed: of what it had in hand nobody knows whether it was sent."""
        for pattern in patterns:
            await wait_until(self._has_next, f"something like {pattern!r} after {self._heard}", timeout=PATIENCE)
            text = (await self._next())[0]
            self._heard.append(text)
            assert re.fullmatch(pattern, text), f"heard {text!r} instead of {pattern!r}, after {self._heard[:-1]}"

    async def hears_nothing_more(self) -> None:
        """The queues are empty, and everything that was said was heard."""
        await self.stack.drained()
        assert await self._next() == [], f"after {self._heard}"

    async def _has_next(self) -> bool:
        return bool(await self._next())

    async def _next(self) -> list[str]:
        calls = await self.stack.get(f"/playground/ledger?chat={self.chat}&limit=100000", self.stack.telegram)
        said = [
            call["text"]
            for call in calls["calls"]
            if call["taken"] and call["method"].startswith(("send", "edit")) and call["method"] != "sendChatAction"
        ]
        if self._kill_at is not None:
            said = [text for before, text in zip([None, *said], said, strict=False) if text != before]
        return said[len(self._heard) :]

    async def _do(self, deed: dict[str, Any]) -> None:
        self._deeds += 1
        await self._playground("POST", "/playground/updates", {"chat": self.chat, "user": self.user} | deed)
        if self._deeds == self._kill_at:
            processes = (await self.stack.queue())["processes"]
            os.kill(random.choice(processes)["pid"], signal.SIGKILL)
            self.killed = True

    async def _playground(self, method: str, path: str, content: object) -> Any:
        answer = await self.stack.send(method, path, content, self.stack.telegram)
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer
