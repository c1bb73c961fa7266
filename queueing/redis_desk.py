"""RedisDesk: the operator's verbs on Redis or Valkey. One method, one script; each may run twice without harm."""

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from queueing.contract import DEAD_DAYS, DEAD_MOST, DeadLetter, DeadPage, Pause, Waiting
from queueing.keys import Keys
from queueing.message import MessageState
from queueing.scripts import Script, mapped_errors

_BATCH = 100
"""Dead letters that one run of a script moves; `trim` removes ten times as many."""


class RedisDesk:
    """See queueing.contract.Desk. A part of RedisQueue, which connects it.

    keys:       the names of the queue's keys.
    limits_arg: what may leave, as lua/limits.lua reads it.
    ttl_arg:    ms after which a message that brings no ttl expires, or ''.
    """

    _patient: "Redis"
    """For what may run twice: repeats by itself what got no answer."""

    def __init__(self, keys: Keys, limits_arg: str, ttl_arg: str) -> None:
        self._keys = keys
        self._limits_arg = limits_arg
        self._ttl_arg = ttl_arg
        self._redrive, self._drop, self._trim = Script("redrive"), Script("drop"), Script("trim")
        self._pause, self._resume = Script("pause"), Script("resume")
        self._cancel, self._why = Script("cancel"), Script("why")

    async def _run(self, script: Script, *args: str | int) -> Any:
        return await script.run(self._patient, self._keys.front, args)

    async def dead_page(self, limit: int, before: str | None = None) -> DeadPage:
        with mapped_errors():
            start = 0 if before is None else await self._rank_after(before)
            newest: Sequence[Any] = await self._patient.zrevrange(
                self._keys.dead_index, start, start + limit, withscores=True
            )
            ids = [text_of(id) for id, _ in newest[:limit]]
            letters = await self._patient.hmget(self._keys.dead, ids) if ids else []
        found = [_dead_letter(id, letter) for id, letter in zip(ids, letters, strict=True) if letter]
        return DeadPage(found, f"{newest[limit - 1][1]:.0f}:{ids[-1]}" if len(newest) > limit else None)

    async def _rank_after(self, before: str) -> int:
        """The place of the first dead letter after the one that `before` names: "time of death in ms:id"."""
        died_at, _, id = before.partition(":")
        if not died_at.isdecimal() or not died_at.isascii() or not id:
            raise ValueError("before must be `next` of an earlier page")
        rank: Any = await self._patient.zrevrank(self._keys.dead_index, id)
        if rank is not None:
            return int(rank) + 1
        # It is gone. Some that died in the same millisecond may be shown again; none is left out.
        gone: Any = await self._patient.zcount(self._keys.dead_index, f"({died_at}", "+inf")
        return int(gone)

    async def dead_letter(self, id: str) -> DeadLetter | None:
        with mapped_errors():
            letter = await self._patient.hget(self._keys.dead, id)
        return _dead_letter(id, letter) if letter else None

    async def redrive(self, ids: Sequence[str], *, head: bool = False) -> int:
        done = 0
        batches = [ids[i : i + _BATCH] for i in range(0, len(ids), _BATCH)]
        for batch in reversed(batches) if head else batches:
            arguments = secrets.token_hex(12), int(head), self._limits_arg, self._ttl_arg
            done += await self._run(self._redrive, *arguments, *batch)
        return done

    async def redrive_all(self, *, head: bool = False) -> int:
        return await self._with_all(lambda ids: self.redrive(ids, head=head), newest_first=head)

    async def drop(self, ids: Sequence[str]) -> int:
        done = 0
        for i in range(0, len(ids), _BATCH):
            done += await self._run(self._drop, secrets.token_hex(12), *ids[i : i + _BATCH])
        return done

    async def drop_all(self) -> int:
        return await self._with_all(self.drop, newest_first=False)

    async def _with_all(self, action: Callable[[Sequence[str]], Awaitable[int]], *, newest_first: bool) -> int:
        """Does it with all that are dead now, in batches: those that die meanwhile, perhaps again, are left alone."""
        done = 0
        with mapped_errors():
            newest: Sequence[Any] = await self._patient.zrevrange(self._keys.dead_index, 0, 0, withscores=True)
        until = newest[0][1] if newest else 0
        while True:
            first, last = (until, "-inf") if newest_first else ("-inf", until)
            with mapped_errors():
                batch: Sequence[Any] = await self._patient.zrange(
                    self._keys.dead_index, first, last, newest_first, byscore=True, offset=0, num=_BATCH
                )
            if not batch:
                return done
            ids = [text_of(id) for id in batch]
            done += await action(ids[::-1] if newest_first else ids)

    async def trim(self) -> int:
        return int(await self._run(self._trim, DEAD_MOST, DEAD_DAYS * 86_400_000, 10 * _BATCH, secrets.token_hex(12)))

    async def pause(self, bot: str | None = None, chat: str | None = None, reason: str = "") -> None:
        await self._run(self._pause, _scope(bot, chat), " ".join(reason.split()), secrets.token_hex(12))

    async def resume(self, bot: str | None = None, chat: str | None = None) -> None:
        await self._run(self._resume, _scope(bot, chat), secrets.token_hex(12))

    async def paused(self, limit: int = 1000) -> Sequence[Pause]:
        found: list[Pause] = []
        with mapped_errors():
            skew: Any = await self._patient.hget(self._keys.clock, "skew")
            ahead = int(skew or 0) / 1000
            async for scope, kept in self._patient.hscan_iter(self._keys.paused, count=1000):
                pause = _pause(text_of(scope), text_of(kept), ahead)
                if pause.until is None or pause.until > time.time():
                    found.append(pause)
                if len(found) == limit:
                    break
        return sorted(found, key=lambda pause: (pause.until is not None, pause.bot or "", pause.chat or ""))

    async def cancel(self, id: str) -> MessageState | None:
        state = await self._run(self._cancel, id)
        return None if state is None else MessageState(text_of(state))

    async def why(self, id: str) -> Waiting | None:
        reply = await self._run(self._why, id, self._limits_arg)
        if reply is None:
            return None
        reason, until, ahead, more = reply
        return Waiting(text_of(reason), None if until < 0 else until / 1000, ahead, bool(more))

    async def first_with(self, bot: str, dedup_key: str) -> str | None:
        with mapped_errors():
            id = await self._patient.get(self._keys.dedup(bot, dedup_key))
        return None if id is None else text_of(id)


def text_of(value: bytes | str) -> str:
    """What came from the server, as text, whatever any program put there."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def _scope(bot: str | None, chat: str | None) -> str:
    """The name of what is paused, see lua/limits.lua."""
    if bot is None:
        if chat is not None:
            raise ValueError("a chat is paused for a bot")
        return "*"
    return bot if chat is None else f"{bot}:{chat}"


def _pause(field: str, kept: str, ahead: float) -> Pause:
    """ahead: seconds by which queue time, in which pauses end, is ahead of the server's clock."""
    by_hand = field.startswith("hand ")
    scope = field.removeprefix("hand ")
    bot, colon, chat = scope.partition(":")
    at, _, reason = kept.partition(" ")
    return Pause(
        bot=None if scope == "*" else bot,
        chat=chat if colon else None,
        reason=reason,
        since=int(at) / 1000 if by_hand else None,
        until=None if by_hand else int(at) / 1000 - ahead,
    )


def _dead_letter(id: str, letter: bytes | str) -> DeadLetter:
    fields = json.loads(text_of(letter))
    lines = [line.split("\t") for line in fields.get("history", "").splitlines()]
    return DeadLetter(
        id=id,
        reason=fields["reason"],
        error=fields["error"],
        died_at=fields["died_at"] / 1000,
        element=fields["element"],
        bot=fields.get("bot"),
        chat=fields.get("chat"),
        history=[{"at": int(at) / 1000, "reason": reason, "error": error} for at, reason, error in lines],
    )
