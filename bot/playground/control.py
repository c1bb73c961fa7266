"""The control API under /playground/. Every route, its shapes and its meaning are listed in README.md here."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson

from bot.playground import people
from bot.playground.chats import parse_chat
from bot.playground.faults import Fault
from bot.playground.http import Request
from bot.playground.judge import Question, judge
from bot.playground.ledger import Call
from bot.playground.limits import LimitSettings
from bot.playground.report import as_text
from bot.playground.world import Bot, World

_log = logging.getLogger(__name__)

PAGE_SIZE = 1000  # calls of one ledger page, unless asked for more
LARGEST_PAGE = 100_000
NDJSON = "application/x-ndjson"
_NO_CACHE = "Cache-Control: no-store\r\n"


class Refusal(Exception):
    """A control request that can't be done: HTTP status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class NewChat(msgspec.Struct, forbid_unknown_fields=True):
    """A chat for the page: its id, title (groups), and people by id → first name."""

    chat: int | str
    title: str = ""
    people: dict[int, str] = {}


class Control:
    """Routes control requests. JSON in, JSON out; refusals are {"error": reason}."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[tuple[str, str], Callable[[Request, dict[str, str]], Any]] = {
            ("GET", "state"): self._state,
            ("GET", "events"): self._events,
            ("GET", "timeline"): self._timeline,
            ("POST", "chats"): self._open_chat,
            ("POST", "updates"): self._updates,
            ("GET", "ledger"): self._ledger,
            ("GET", "summary"): lambda _request, _query: self._world.ledger.summary(),
            ("GET", "judge"): self._judge,
            ("POST", "judge"): self._judge,
            ("GET", "faults"): self._faults,
            ("PUT", "faults"): self._set_faults,
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._delete_faults,
            ("GET", "limits"): lambda _request, _query: self._world.limits.settings,
            ("PUT", "limits"): self._set_limits,
            ("POST", "reset"): self._reset,
        }

    def handle(self, request: Request, path: str) -> None:
        """Answer a request for /playground/{path}."""
        name = path.rstrip("/")
        route = self._routes.get((request.method.decode(), name))
        query = dict(parse_qsl(request.target.partition(b"?")[2].decode("utf-8", "replace")))
        try:
            if route is None:
                known = any(name == other for _, other in self._routes)
                raise Refusal(405 if known else 404, f"no route {request.method.decode()} /playground/{name}")
            result = route(request, query)
        except Exception as error:  # noqa: BLE001  whatever a request contains, it gets an answer
            _write_error(request, error)
            return
        if asyncio.iscoroutine(result):
            task = asyncio.get_running_loop().create_task(self._finish(request, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif result is not None:
            request.answer(200, msgspec.json.encode(result), headers=_NO_CACHE)

    async def _finish(self, request: Request, work: Awaitable[Any]) -> None:
        try:
            result = await work
        except Exception as error:  # noqa: BLE001  as above
            _write_error(request, error)
            return
        if result is not None:
            request.answer(200, msgspec.json.encode(result), headers=_NO_CACHE)

    # --- page

    def _state(self, _request: Request, _query: dict[str, str]) -> dict[str, Any]:
        world = self._world
        configured = int(world.config.token.partition(":")[0] or 0)
        return {
            "bots": [_describe(bot) for bot in world.bots.values()],
            "default_bot": configured or next(iter(world.bots), 0),
            "chats": [
                {**world.people.chat(chat), "people": [world.people.user(user) for user in users]}
                for chat, users in world.open_chats.items()
            ],
            "calls": len(world.ledger),
            "faults": len(world.faults.rules),
        }

    def _events(self, request: Request, _query: dict[str, str]) -> None:
        page = request.stream("text/event-stream")
        if page is not None:
            self._world.events.open(page)

    def _timeline(self, _request: Request, query: dict[str, str]) -> list[Any]:
        bot, chat = self._bot(int(query.get("bot", 0))), parse_chat(query.get("chat"))
        return list(bot.timelines.get(chat, ()))

    def _open_chat(self, request: Request, _query: dict[str, str]) -> dict[str, int]:
        new = msgspec.json.decode(request.body, type=NewChat)
        chat = parse_chat(new.chat)
        if chat == 0:
            raise Refusal(422, "chat: expected a number other than 0, or @name")
        named = new.people or ({chat: new.title or f"User {chat}"} if chat > 0 else {})
        if not named:
            raise Refusal(422, "people: a group needs at least one person, as {id: first name}")
        self._world.open_chat(chat, new.title or str(new.chat), named)
        return {"chat": chat}

    def _updates(self, request: Request, query: dict[str, str]) -> Any:
        deeds = msgspec.json.decode(request.body, type=list[people.Deed] | people.Deed)
        several = deeds if isinstance(deeds, list) else [deeds]
        default = int(query.get("bot", 0))
        done = [people.perform(self._world, self._bot(deed.bot or default), deed) for deed in several]
        return done if isinstance(deeds, list) else done[0]

    def _bot(self, bot_id: int) -> Bot:
        """The bot of this id; 0 means the configured one, or the first."""
        bots = self._world.bots
        chosen = bot_id or int(self._world.config.token.partition(":")[0] or 0) or next(iter(bots), 0)
        if chosen not in bots:
            raise Refusal(404, f"no bot {chosen or ''} has called yet".replace("  ", " "))
        return bots[chosen]

    # --- ledger and judge

    def _ledger(self, request: Request, query: dict[str, str]) -> dict[str, Any] | None:
        limit = min(int(query.get("limit", PAGE_SIZE)), LARGEST_PAGE)
        calls = list(itertools.islice(self._select(query), limit + 1))
        more, calls = len(calls) > limit, calls[:limit]
        if query.get("format") == "ndjson":
            request.answer(200, b"".join(msgspec.json.encode(call) + b"\n" for call in calls), NDJSON)
            return None
        ledger = self._world.ledger
        following = calls[-1].seq + 1 if more else None
        return {"calls": calls, "next": following, "end": ledger.end, "dropped": ledger.dropped}

    def _select(self, query: dict[str, str]) -> Iterator[Call]:
        bot, chat, until = query.get("bot"), query.get("chat"), query.get("until")
        return self._world.ledger.select(
            since=int(query.get("since", 0)), until=int(until) if until else None, bot=int(bot) if bot else None,
            chat=parse_chat(chat) if chat else None, method=query.get("method"),
        )  # fmt: skip

    async def _judge(self, request: Request, query: dict[str, str]) -> Any:
        """In a thread: the answer may take seconds, and the stamps of calls that arrive meanwhile must stay right."""
        question = _question(request)
        ledger, clock = self._world.ledger, self._world.clock
        query = {"until": str(ledger.end), **query}

        def work() -> Any:
            gc.disable()  # a million calls make no cycles, but the collector would look for them again and again
            try:
                calls = list(self._select(query))
                error = clock.error_ms(calls[0].arrival_ns, calls[-1].arrival_ns) if calls else 0.0
                return judge(calls, question, timestamp_error_ms=error, dropped=ledger.dropped)
            finally:
                gc.enable()

        verdict = await asyncio.to_thread(work)
        if query.get("format") != "text":
            return verdict
        request.answer(200, as_text(verdict).encode(), "text/plain; charset=utf-8")
        return None

    # --- faults and limits

    def _faults(self, _request: Request, _query: dict[str, str]) -> list[dict[str, object]]:
        return [rule.describe() for rule in self._world.faults.rules]

    def _set_faults(self, request: Request, query: dict[str, str]) -> list[dict[str, object]]:
        """Replace all rules; nothing changes if one of them is wrong."""
        faults = _read_faults(request)
        self._world.faults.clear()
        return self._enter(faults)

    def _add_faults(self, request: Request, _query: dict[str, str]) -> list[dict[str, object]]:
        return self._enter(_read_faults(request))

    def _enter(self, faults: list[tuple[Fault, int | None]]) -> list[dict[str, object]]:
        return [self._world.faults.add(fault, chat).describe() for fault, chat in faults]

    def _delete_faults(self, _request: Request, query: dict[str, str]) -> list[dict[str, object]]:
        """One rule by `id`, or all; all also ends penalties and migrations that rules have begun."""
        world = self._world
        if "id" in query:
            if not world.faults.remove(int(query["id"])):
                raise Refusal(404, f"no fault {query['id']}")
        else:
            world.faults.clear()
            world.limits.clear()
            for bot in world.bots.values():
                bot.migrated.clear()
        return [rule.describe() for rule in world.faults.rules]

    def _set_limits(self, request: Request, _query: dict[str, str]) -> LimitSettings:
        settings = msgspec.json.decode(request.body, type=LimitSettings)
        self._world.limits.apply(settings)
        return settings

    async def _reset(self, _request: Request, _query: dict[str, str]) -> dict[str, bool]:
        await self._world.reset()
        return {"ok": True}

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _describe(bot: Bot) -> dict[str, Any]:
    """A bot for the page: never its token."""
    mailbox = bot.mailbox
    webhook = mailbox.delivery.webhook if mailbox.delivery is not None else None
    return {
        "id": bot.id, "name": bot.user["first_name"], "username": bot.user["username"],
        "listening": "webhook" if webhook else "polling" if mailbox.listening() else "no",
        "pending": len(mailbox), "commands": bot.commands.get("|", []),
        "last_error": webhook.last_error_message if webhook else "",
        "last_error_date": webhook.last_error_date if webhook else 0,
    }  # fmt: skip


def _read_faults(request: Request) -> list[tuple[Fault, int | None]]:
    found = msgspec.json.decode(request.body, type=list[Fault] | Fault)
    faults = []
    for fault in found if isinstance(found, list) else [found]:
        chat = None if fault.chat is None else parse_chat(fault.chat)
        if chat == 0:
            raise Refusal(422, f"chat: {fault.chat!r} is no chat id")
        if fault.kind == "migrate" and (chat is None or parse_chat(fault.to) == 0):
            raise Refusal(422, "migrate needs chat and to")
        faults.append((fault, chat))
    return faults


def _question(request: Request) -> Question:
    """The judge's question: JSON, or expectations alone as NDJSON, or none."""
    if not request.body:
        return Question()
    if request.headers.get(b"content-type", b"").startswith(NDJSON.encode()):
        return msgspec.convert({"expect": [orjson.loads(line) for line in request.body.splitlines() if line]}, Question)
    return msgspec.json.decode(request.body, type=Question)


def _write_error(request: Request, error: Exception) -> None:
    if isinstance(error, Refusal):
        status = error.status
    elif isinstance(error, ValueError | msgspec.ValidationError):
        status = 422
    else:
        _log.error("a control request failed", exc_info=error)
        status = 500
    request.answer(status, orjson.dumps({"error": str(error)}))
