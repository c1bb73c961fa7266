"""RedisQueue: the contract on Redis or Valkey. One method, one script; the claims of a process are numbered."""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from queueing import server_check
from queueing.address import Address
from queueing.clock import CLOCK
from queueing.connection import connect
from queueing.contract import (
    Claim,
    DeadLetter,
    Finding,
    Lease,
    MessageStatus,
    ProcessStats,
    QueueStats,
    Settlement,
    TakenOver,
)
from queueing.errors import MalformedMessage, QueueUnavailable
from queueing.keys import Keys
from queueing.limits import MARGIN, WRITE_WITHIN, RateLimits
from queueing.message import Message, MessageState, Priority, Uncertain, decode, encode, new_id
from queueing.redis_desk import RedisDesk, text_of
from queueing.redis_ends import Ends
from queueing.retry import Ack, Bury, Hold, Move, Release, Scope
from queueing.scripts import Function, Script, mapped_errors
from queueing.slots import Slots
from queueing.tasks import end
from queueing.turns import Turn
from queueing.waiting import Waiting

DRAIN_MOST = 100
"""Elements one claim takes from the front door: at about 10 µs each, the script stays near a millisecond (measured)."""

_OF_A_GRANT = 6
"""Values that lua/claim.lua returns of each: lane, token, attempts, take-overs, entry, results of its parents."""

_BELL_TIMEOUT = 20
"""Seconds a doorbell waits; it is asked again at once. Only bounds how long a dead connection goes unnoticed."""

_STATS_SAMPLE = 100
"""Lanes of each kind that `stats` looks at before it extrapolates."""


class RedisQueue(RedisDesk):
    """See queueing.contract.Queue and, for the operator's verbs, RedisDesk.

    lease_seconds: after how many seconds of silence a process is presumed dead.
    status_ttl:    seconds for which the status of a message is kept after it ended.
    queue_max:     messages that may wait before `enqueue` refuses.
    default_bot:   the bot of elements that name none.
    limits:        what may leave.
    ttl:           seconds after which a message that brings no ttl expires; None: never.
    uncertain:     what becomes of messages that a dead process held, and that say nothing themselves.
    timeout:       seconds for which an answer of the server is awaited.
    name:          the list that is the front door; all other keys derive from it.
    looks, slots:  shared by processes of this machine that have this queue: one of those that are idle looks in time,
                   and one asks for what is due.
    """

    backend = "redis"
    _drain_most = DRAIN_MOST

    def __init__(
        self,
        redis_url: str,
        *,
        workers: int = 10,
        lease_seconds: float = 15.0,
        status_ttl: float = 86_400.0,
        queue_max: int = 5_000_000,
        default_bot: str | None = None,
        limits: RateLimits = RateLimits(),  # noqa: B008  frozen
        ttl: float | None = None,
        uncertain: Uncertain = Uncertain.RESEND,
        timeout: float = 5.0,
        name: str = "telegram_messages",
        looks: Turn | None = None,
        slots: Slots | None = None,
    ) -> None:
        self._url = redis_url
        self._lease_seconds = lease_seconds
        self._status_ttl = status_ttl
        self._queue_max = queue_max
        self._default_bot = default_bot or ""
        self._limits = limits
        # A single chat's limit may be set for another of its names, which only the server knows.
        self._all_limited = bool(limits.chats) or limits.limit_all
        self._uncertain = uncertain
        self._timeout = timeout
        super().__init__(Keys(name), _limits_arg(limits), "" if ttl is None else str(_ms(ttl)))
        self.incarnation = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._about = json.dumps({"pid": os.getpid(), "workers": workers})
        self._claim, self._enqueue = Function("claim"), Function("enqueue")
        self._reap, self._leave = Function("reap"), Script("leave")
        self._alias, self._stats = Script("alias"), Script("stats")
        self._cancel_group = Script("cancel_group")
        self._call = 0
        self._asked: float | None = None
        self._expires = 0.0
        self._unreadable: list[tuple[str, str, str]] = []
        self._waiting = Waiting(self._is_any_work, lease_seconds / 5, looks, slots)
        self._doorbell: asyncio.Task[None] | None = None
        self._ends = Ends(self._connect, self._keys.ends)

    async def start(self) -> None:
        # A claim is repeated by its caller, who knows that it is the same one: no second try behind its back.
        self._redis = self._connect(Retry(NoBackoff(), 0))
        # These scripts and commands may run twice: they carry an operation id, only read, or set the same again.
        self._patient = self._connect(Retry(ExponentialBackoff(cap=0.5, base=0.05), 3))
        self._bell = self._connect(Retry(NoBackoff(), 0), _BELL_TIMEOUT + self._timeout)
        self._doorbell = asyncio.create_task(self._hear_the_bell(), name="doorbell")
        self._ends.start()

    def _connect(self, retry: Retry, answer_timeout: float | None = None) -> "Redis":
        return connect(
            self._url,
            retry=retry,
            timeout=self._timeout,
            answer_timeout=answer_timeout,
            key=self._keys.front,
            name="telequeue",
        )

    async def enqueue(self, messages: Sequence[Message]) -> None:
        args: list[str | bytes | int] = [new_id(), self._queue_max, 1, len(messages)]
        for message in messages:
            args += door_args(message)
        await self._enqueue.run(self._patient, self._keys.front, args)

    async def register(self, bot: str, credential: str) -> None:
        with mapped_errors():
            async with self._patient.pipeline(transaction=True) as pipeline:
                pipeline.hset(self._keys.tokens, bot, credential)
                pipeline.hdel(self._keys.new_tokens, bot)
                await pipeline.execute()

    async def offer(self, bot: str, credential: str) -> None:
        with mapped_errors():
            if await self._patient.hget(self._keys.tokens, bot) != credential.encode():
                await self._patient.hset(self._keys.new_tokens, bot, credential)

    async def proven(self, bot: str) -> bool:
        with mapped_errors():
            return bool(await self._patient.hexists(self._keys.tokens, bot))

    async def credentials(self, bot: str) -> Sequence[str]:
        with mapped_errors():
            async with self._patient.pipeline(transaction=True) as pipeline:
                pipeline.hget(self._keys.tokens, bot)
                pipeline.hget(self._keys.new_tokens, bot)
                return [token.decode() for token in await pipeline.execute() if token]

    async def claim(
        self,
        want: int,
        settlements: Sequence[Settlement] = (),
        held: Sequence[Lease] = (),
        ahead: int = 0,
        at_hand: int = 0,
    ) -> Claim:
        """See the contract. After an error the next call has the same number, and must have the same arguments."""
        call, unreadable, started = self._call + 1, self._unreadable, self.clock()
        # What an unanswered call was granted is as old as that call, and is granted to its repetition.
        self._asked = asked = started if self._asked is None else self._asked
        if self._uncertain is Uncertain.HOLD:
            ahead = 0  # a message at hand that was not even begun would wait for a person
        args = self._claim_args(call, want, held, ahead, at_hand)
        for settlement in settlements:
            args += _settlement_args(settlement)
        for lane, token, error in unreadable:
            args += ["bury", lane, token, "", "malformed", error, Scope.MESSAGE, "", ""]
        self._waiting.asks(want)
        reply = await self._claim.run(self._redis, self._keys.front, args)

        self._call, self._asked, self._unreadable = call, None, []
        self._expires = started + self._lease_seconds
        next_due = None if reply[4] < 0 else reply[4] / 1000
        starts = range(0, len(reply[0]), _OF_A_GRANT)
        self._waiting.told(want, len(starts), next_due, holds_any=bool(held))
        leases = [lease for i in starts if (lease := self._lease(*reply[0][i : i + _OF_A_GRANT], asked=asked))]
        told = [text.decode(errors="replace") for text in reply[3]]
        buried = list(zip(told[::2], told[1::2], strict=True)) + [("malformed", error) for _, _, error in unreadable]
        return Claim(
            leases=leases,
            stale=[token.decode() for token in reply[1]],
            lost=[token.decode() for token in reply[2]],
            buried=buried,
            next_due=next_due,
            more=reply[5] > 0 or bool(self._unreadable),
            kept=[token.decode() for token in reply[6]],
            jumped=reply[7] / 1000,
            limited={scope: times for scope, times in zip(_LIMITED, reply[8:], strict=True) if times},
        )

    def _claim_args(
        self, call: int, want: int, held: Sequence[Lease], ahead: int, at_hand: int
    ) -> list[str | bytes | int]:
        return [
            self.incarnation,
            call,
            _ms(self._lease_seconds),
            _ms(self._lease_seconds / 5),
            want,
            self._drain_most,
            self._default_bot,
            self._about,
            _ms(self._status_ttl),
            self._limits_arg,
            _ms(self.clock()),
            self._ttl_arg,
            len(held),
            ahead,
            at_hand,
            *(lease.token for lease in held),
        ]

    def _lease(
        self, place: bytes, number: bytes, attempts: int, takeovers: int, entry: bytes, results: Any, *, asked: float
    ) -> Lease | None:
        """The lease in a grant; None, and the next call buries it, if its element is no message after all."""
        lane, token = place.decode(), number.decode()
        header, _, element = entry.partition(b"\n")
        name, _, accepted = header.decode().split(" ")[:3]
        bot, _, chat = lane.partition(":")
        try:
            message = decode(element, bot=bot, chat=chat, id=name, accepted=int(accepted) / 1000)
        except MalformedMessage as error:
            self._unreadable.append((lane, token, str(error)))
            return None
        if results:
            texts = [text.decode() for text in results]
            message = message.changed(results=dict(zip(texts[::2], texts[1::2], strict=True)))
        limited = self._all_limited or self._limits.limits(chat, paid=message.paid)
        write_by = asked + WRITE_WITHIN if limited else None
        return Lease(token, lane, message, attempts, takeovers, granted_at=asked, write_by=write_by)

    def clock(self) -> float:
        return time.clock_gettime(CLOCK)

    def remaining(self) -> float:
        return self._expires - self.clock()

    def notify(self) -> None:
        self._waiting.notify()

    async def wait(self, timeout: float, due: float | None = None) -> None:
        await self._waiting.wait(timeout, due)

    async def _is_any_work(self) -> bool:
        """Costs a tenth of a claim, and at rest there is none."""
        try:
            with mapped_errors():
                return bool(await self._redis.exists(*self._keys.work))
        except QueueUnavailable:
            return True  # claim says what is wrong

    async def _hear_the_bell(self) -> None:
        """Waits at the front door while this process waits. What it moves to the hand-off list belongs to nobody."""
        while True:
            await self._waiting.begun.wait()
            try:
                with mapped_errors():
                    if await self._bell.blmove(self._keys.front, self._keys.handoff, _BELL_TIMEOUT, "LEFT", "RIGHT"):
                        self._waiting.notify()
            except QueueUnavailable:
                await asyncio.sleep(0.25)  # claim says what is wrong; here it is enough not to spin

    async def alias(self, bot: str, chat: str, other: str) -> None:
        await self._alias.run(self._patient, self._keys.front, [bot, chat, other, self._limits_arg])

    async def reap(self) -> Sequence[TakenOver]:
        args: list[str | bytes | int] = [_ms(self._lease_seconds), _ms(self._lease_seconds / 5), self._limits_arg]
        reply = await self._reap.run(
            self._patient, self._keys.front, [*args, self._uncertain, self.incarnation, _ms(self.clock())]
        )
        return [TakenOver(reply[i].decode(), *reply[i + 1 : i + 3]) for i in range(0, len(reply), 3)]

    async def status(self, id: str) -> MessageStatus | None:
        with mapped_errors():
            fields = await self._patient.hgetall(self._keys.status(id))
        if not fields:
            return None
        text = {text_of(name): text_of(value) for name, value in fields.items()}
        return MessageStatus(
            id=id,
            state=MessageState(text["status"]),
            bot=text.get("bot", ""),
            chat=text.get("chat", ""),
            created_at=int(text.get("created_at", 0)) / 1000,
            sent_at=int(text["sent_at"]) / 1000 if "sent_at" in text else None,
            attempts=int(text.get("attempts", 0)),
            result=text.get("result") or None,
            error=text.get("error"),
            reason=text.get("reason"),
        )

    def hear_ends(self, told: Callable[[str], None]) -> None:
        self._ends.hear(told)

    async def group(self, name: str) -> Mapping[str, int]:
        with mapped_errors():
            fields = await self._patient.hgetall(self._keys.group(name))
        counts = {text_of(field): int(count) for field, count in fields.items()}
        return {field: count for field, count in counts.items() if not field.startswith("#")}

    async def cancel_group(self, name: str) -> None:
        await self._cancel_group.run(self._patient, self._keys.front, [name])

    async def stats(self) -> QueueStats:
        reply = await self._stats.run(self._patient, self._keys.front, [_STATS_SAMPLE])
        doors, laned, waiting, dead, oldest, sent, now, known, scheduled = reply
        processes = [self._process(*known[i : i + 3]) for i in range(0, len(known), 3)]
        inflight = sum(process.inflight for process in processes)
        return QueueStats(
            ready=doors + max(0, laned - waiting - inflight),
            waiting=waiting,
            scheduled=scheduled,
            inflight=inflight,
            dead=dead,
            oldest_age=None if oldest < 0 else max(0.0, (now - oldest) / 1000),
            processed=sent,
            processes=processes,
        )

    def _process(self, name: bytes, deadline: int, held: Sequence[bytes]) -> ProcessStats:
        fields = dict(zip(held[::2], held[1::2], strict=True))
        about = json.loads(fields.get(b"#about", b"{}"))
        return ProcessStats(
            incarnation=name.decode(),
            pid=about.get("pid", 0),
            workers=about.get("workers", 0),
            inflight=sum(not field.startswith(b"#") for field in fields),
            sent=int(fields.get(b"#sent", 0)),
            seen=max(0.0, self._lease_seconds - deadline / 1000),
        )

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return (await self.dead_page(limit)).letters

    async def check(self) -> Sequence[Finding]:
        with mapped_errors():
            facts = await server_check.ask(self._patient)
        return server_check.judge(facts, as_cluster=Address.parse(self._url).kind == "cluster")

    async def close(self) -> None:
        await end(self._doorbell)
        await self._bell.aclose()  # first: it would still take a bell that is meant for others
        await self._ends.close()
        # If the server is away, its leases end by themselves.
        with contextlib.suppress(QueueUnavailable):
            await self._leave.run(self._redis, self._keys.front, [self.incarnation, self._limits_arg])
        for client in (self._redis, self._patient):
            await client.aclose()


_LIMITED = ("chat", "group", "bot")
"""The limits in the order in which lua/claim.lua counts refusals."""

_ARGUMENTS = 5
"""Of a settlement in lua/claim.lua, after verb, lane, token and time of writing; what a verb does not need is empty."""


_UNTRIED = Release()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def door_args(message: Message) -> list[str | bytes | int]:
    """See lua/door.lua."""
    element = encode(message)[1:]
    marks = "t" if message.track or message.awaited else ""
    marks += "v" if message.provisional else "o" if message.also else ""
    if marks or message.dedup_key:
        return [element, *marked_args(message, marks)]
    return [element, "b", message.bot] if _is_for_bulk(message) else [element, ""]


def marked_args(message: Message, marks: str) -> list[str | bytes | int]:
    """Likewise, after the element, of a message that has these marks."""
    door, send_at = "b" if _is_for_bulk(message) else "n", _ms(message.send_at or 0)
    return ["m", message.id, marks, message.bot, message.chat, door, send_at, message.dedup_key or ""]


def _is_for_bulk(message: Message) -> bool:
    """Whether it comes to the bulk door. What is for later must not stand behind a backlog until then."""
    return message.priority is Priority.BULK and message.send_at is None


def lines_of(text: str) -> str:
    """An error may have more lines, for whoever looks at the dead letter; the first says it all."""
    first, *more = text.split("\n")
    return "\n".join([_one_line(first), *(line.rstrip().encode(errors="replace").decode() for line in more)])


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).encode(errors="replace").decode()


def _limits_arg(limits: RateLimits) -> str:
    """See lua/limits.lua: "bot 30 1010.000 paid … =-1001234 5 60010.000", periods in ms, the margin included."""
    rates = {"bot": limits.bot, "paid": limits.paid, "chat": limits.chat, "group": limits.group}
    rates |= {f"={chat}": rate for chat, rate in limits.chats.items()}
    return " ".join(f"{name} {rate.count} {(rate.period + MARGIN) * 1000:.3f}" for name, rate in rates.items())


def _settlement_args(settlement: Settlement) -> list[str | int]:
    lease, decision = settlement.lease, settlement.decision
    nothing = settlement.written is None or decision == _UNTRIED
    written = "" if nothing else _ms(settlement.written or 0.0)
    match decision:
        case Ack(result, chat):
            return ["ack", lease.lane, lease.token, written, result or "", chat or "", "", "", ""]
        case Release(delay, reason, error, counts, _, scope):
            rest = ["release", str(_ms(delay)), str(int(counts)), scope, reason or "", _one_line(error)]
        case Bury(reason, error, _, scope):
            rest = ["bury", reason, lines_of(error), scope]
        case Hold(error, scope):
            rest = ["hold", _one_line(error), scope]
        case Move(chat, error):
            rest = ["move", chat, _one_line(error)]
    verb, *arguments = rest
    return [verb, lease.lane, lease.token, written, *arguments, *[""] * (_ARGUMENTS - len(arguments))]
