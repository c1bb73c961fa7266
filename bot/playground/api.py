"""The Bot API's door: from a request to its method, through ledger, faults and limits, to the answer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import orjson

from bot.playground import asking, editing, receiving, sending  # noqa: F401  (each enters its methods in the table)
from bot.playground.chats import parse_chat
from bot.playground.faults import Fault, Rule
from bot.playground.http import REASONS, Request
from bot.playground.ledger import TAKEN
from bot.playground.params import NO_PARAMS, ApiError, Params, bad_request, read_params
from bot.playground.registry import METHODS, Context, Method, require_chat
from bot.playground.world import Bot, World

_log = logging.getLogger(__name__)

_PATH = re.compile(rb"/bot([^/]*)/([A-Za-z]+)/?")
_FILE = re.compile(rb"/file/bot([^/]*)/(.+)")
_TOKEN = re.compile(r"[1-9]\d{0,17}:[\w-]+", re.ASCII)
_ROUTES_KEPT = 10_000
_NOT_FOUND = ApiError(404, "Not Found")


class Call:
    """What the door remembers of a call until it is answered."""

    __slots__ = ("bot", "chat", "fault", "flags", "message_id", "method", "request", "seq", "weight")

    def __init__(self, request: Request, bot: Bot, method: Method, chat: int, seq: int, weight: int) -> None:
        self.request = request
        self.bot = bot
        self.method = method
        self.chat = chat
        self.seq = seq
        self.weight = weight
        self.fault = ""
        self.flags = 0
        self.message_id = 0


class BotApi:
    """Answers `/bot{token}/{method}` and `/file/bot{token}/{path}`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._routes: dict[bytes, tuple[Bot, Method]] = {}
        self._promises: set[asyncio.Future[Any]] = set()

    def forget(self) -> None:
        """Bots were thrown away: look them up anew."""
        self._routes.clear()

    def handle(self, request: Request) -> None:
        """Answer a call, at once or later."""
        try:
            bot, method = self._routes.get(request.target) or self._route(request.target)
        except ApiError as error:
            self._answer_stranger(request, error)
            return
        broken: ApiError | None = None
        try:
            params = read_params(request)
        except ApiError as error:
            params, broken = Params(NO_PARAMS), error
        values = params.values
        chat = parse_chat(values.get("chat_id"))
        self._world.people.note_channel(chat, values.get("chat_id"))
        weight = _weight(method, params) if method.sends else 0
        headers = request.headers
        seq = self._world.ledger.add(
            request.arrival_ns, bot.id, method.name, chat, params.text("text") or params.text("caption"),
            target=params.integer("message_id") if "message_id" in values else 0, weight=weight,
            process=headers.get(b"x-telequeue-process", b""), agent=headers.get(b"user-agent", b""),
            port=request.connection.peer_port,
        )  # fmt: skip
        call = Call(request, bot, method, chat, seq, weight)
        if broken is not None:
            self._refuse(call, broken)
        else:
            self._admit(call, params)

    # --- the steps of a call

    def _admit(self, call: Call, params: Params) -> None:
        """Faults and limits first, then the method itself, then the faults that strike after it."""
        limits = self._world.limits
        if call.method.sends and limits.active:
            wait = limits.penalty(call.bot.id, call.chat, call.request.arrival_ns)
            if wait:  # refused before any fault is drawn, so that a rule's count is spent on what it strikes
                call.fault = "penalty"
                self._refuse(call, _flood(wait))
                return
        rule, delay = self._fault(call)
        kind = rule.fault.kind if rule is not None else ""
        if kind == "reset_before":
            self._reset(call)
            return
        try:
            self._check(call, params, rule)
            result = self._run(call, params)
        except ApiError as error:
            self._defer(call, delay, self._refuse, error)
            return
        if isinstance(result, asyncio.Future):
            self._wait_for(call, result)
        elif kind == "reset_after":
            self._reset(call)
        elif kind == "hang":
            assert rule is not None
            self._defer(call, rule.fault.seconds, self._accept, result)
        elif kind == "error":
            assert rule is not None
            self._defer(call, delay, self._refuse, _server_error(rule.fault.code))
        elif delay:
            self._defer(call, delay, self._accept, result)
        else:
            self._accept(call, result)

    def _fault(self, call: Call) -> tuple[Rule | None, float]:
        """The fault that strikes this call and its latency in seconds."""
        faults = self._world.faults
        if not faults.rules:
            return None, 0.0
        rule, delay = faults.pick(call.bot.id, call.chat, call.method.name, call.bot.token)
        call.fault = rule.fault.kind if rule is not None else "latency" if delay else ""
        return rule, delay

    def _check(self, call: Call, params: Params, rule: Rule | None) -> None:
        """Everything that can refuse a call before its method runs."""
        bot, method, limits = call.bot, call.method, self._world.limits
        now = call.request.arrival_ns
        if rule is not None and rule.fault.kind == "unauthorized":
            raise ApiError(401, "Unauthorized")
        if method.needs_chat:
            require_chat(params, call.chat)
        if call.chat in bot.migrated:
            call.fault = "migrate"
            raise _migrated(bot.migrated[call.chat])
        if rule is not None:
            self._strike(call, rule.fault)
        if method.sends and limits.active and (wait := limits.admit(bot.id, call.chat, call.weight, now)):
            call.fault = "limit"
            raise _flood(wait)

    def _strike(self, call: Call, fault: Fault) -> None:
        """The refusals that can be ordered."""
        match fault.kind:
            case "blocked":
                raise ApiError(403, "Forbidden: bot was blocked by the user")
            case "chat_not_found":
                raise bad_request("chat not found")
            case "error" if not fault.taken:
                raise _server_error(fault.code)
            case "flood":
                chat = call.chat if fault.scope == "chat" else 0
                self._world.limits.penalise(call.bot.id, chat, call.request.arrival_ns, fault.retry_after)
                raise _flood(fault.retry_after)
            case "migrate":
                call.bot.migrated[call.chat] = fault.to
                raise _migrated(fault.to)

    def _run(self, call: Call, params: Params) -> Any:
        """The method. Its result is there as JSON, or promised as a future; from here on the call was taken."""
        context = Context(self._world, call.bot, call.method, params, call.chat, call.request.arrival_ns)
        try:
            result = call.method.run(context)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            _log.info("a parameter of %s is not of the form expected", call.method.name, exc_info=True)
            raise bad_request("a parameter has the wrong form") from error
        call.message_id = context.message_id
        call.flags = TAKEN
        if isinstance(result, bytes | asyncio.Future):
            return result
        if asyncio.iscoroutine(result):
            return asyncio.ensure_future(result)
        return orjson.dumps(result)

    # --- answers, at once or later

    def _accept(self, call: Call, result: bytes) -> None:
        self._world.ledger.answer(call.seq, 200, call.message_id, "", call.fault, call.flags)
        call.request.answer_ok(b'{"ok":true,"result":' + result + b"}")

    def _refuse(self, call: Call, error: ApiError) -> None:
        self._world.ledger.answer(call.seq, error.code, call.message_id, error.description, call.fault, call.flags)
        _write_error(call.request, error)

    def _reset(self, call: Call) -> None:
        self._world.ledger.answer(call.seq, 0, call.message_id, "", call.fault, call.flags)
        call.request.reset()

    def _defer(self, call: Call, delay: float | None, answer: Callable[..., None], *args: Any) -> None:
        """Answer after so many seconds (None: never), unless the client has gone by then."""
        if delay == 0:
            answer(call, *args)
            return
        self._world.ledger.answer(call.seq, 0, call.message_id, "", call.fault, call.flags)
        timer = None if delay is None else asyncio.get_running_loop().call_later(delay, answer, call, *args)

        def gone() -> None:
            self._world.ledger.client_gone(call.seq)
            if timer is not None:
                timer.cancel()

        call.request.on_gone = gone

    def _wait_for(self, call: Call, result: asyncio.Future[Any]) -> None:
        """Answer when the method's promise is kept; a client that leaves takes it back."""
        self._promises.add(result)

        def gone() -> None:
            self._world.ledger.client_gone(call.seq)
            result.cancel()

        def done(promise: asyncio.Future[Any]) -> None:
            self._promises.discard(promise)
            if promise.cancelled() or call.request.gone:
                return
            error = promise.exception()
            if error is None:
                self._accept(call, orjson.dumps(promise.result()))
            elif isinstance(error, ApiError):
                self._refuse(call, error)
            else:
                raise error

        call.request.on_gone = gone
        result.add_done_callback(done)

    # --- calls that reach no bot

    def _route(self, target: bytes) -> tuple[Bot, Method]:
        match = _PATH.fullmatch(target.partition(b"?")[0])
        if match is None:
            raise _NOT_FOUND
        bot = self._bot(match[1])
        name = match[2].decode()
        method = METHODS.get(name.lower()) or Method(name, _unknown, sends=False, needs_chat=False)
        if len(self._routes) < _ROUTES_KEPT:
            self._routes[target] = (bot, method)
        return bot, method

    def _bot(self, raw: bytes) -> Bot:
        token = unquote(raw.decode("latin-1"))
        if ":" not in token:
            raise _NOT_FOUND
        if not _TOKEN.fullmatch(token):
            raise ApiError(401, "Unauthorized: invalid token specified")
        return self._world.bot(token)

    def _answer_stranger(self, request: Request, error: ApiError) -> None:
        """A request without a bot: a file to download, or nothing we know. Neither is a call of a method."""
        match = _FILE.fullmatch(request.target.partition(b"?")[0])
        upload = self._world.files.get(match[2].decode("latin-1").rpartition("/")[2]) if match else None
        if upload is None:
            _write_error(request, error)
        else:
            request.answer(200, upload.content, "application/octet-stream")


def _unknown(_: Context) -> Any:
    raise ApiError(404, "Not Found")


def _flood(wait: int) -> ApiError:
    return ApiError(429, f"Too Many Requests: retry after {wait}", retry_after=wait)


def _migrated(to: int) -> ApiError:
    return ApiError(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=to)


def _server_error(code: int) -> ApiError:
    return ApiError(code, REASONS.get(code, "Internal Server Error"))


def _write_error(request: Request, error: ApiError) -> None:
    answer: dict[str, Any] = {"ok": False, "error_code": error.code, "description": error.description}
    if error.parameters:
        answer["parameters"] = error.parameters
    retry = f"Retry-After: {error.parameters['retry_after']}\r\n" if "retry_after" in error.parameters else ""
    request.answer(error.code, orjson.dumps(answer), headers=retry)


def _weight(method: Method, params: Params) -> int:
    """How many messages a call sends: an album or a copy of many counts each."""
    listed = {"sendMediaGroup": "media", "copyMessages": "message_ids", "forwardMessages": "message_ids"}
    name = listed.get(method.name)
    if name is None:
        return 1
    try:
        found = params.json(name)
    except ApiError:
        return 1
    return max(1, len(found)) if isinstance(found, list) else 1
