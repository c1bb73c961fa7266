"""MemoryDesk: the operator's verbs within one process. The same as redis_desk.py and its scripts."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from queueing.contract import DeadLetter, DeadPage, Pause, Waiting
from queueing.limits import RateLimits
from queueing.memory_aliases import Aliases
from queueing.memory_doors import Doors
from queueing.memory_lanes import Lane
from queueing.memory_limits import EVERYTHING, Gate, HandPause
from queueing.memory_outage import Outages
from queueing.memory_records import DeadLetters, DedupKeys, Statuses
from queueing.memory_turns import Taken, Turns
from queueing.memory_why import Why
from queueing.message import Message, MessageState
from queueing.shared_budget import SharedBudget

_OPEN = (MessageState.PENDING, MessageState.SENDING, MessageState.RETRYING)


@dataclass(frozen=True, slots=True)
class Held:
    """A lease, by its token."""

    token: str
    taken: Taken

    @property
    def message(self) -> Message:
        return self.taken.message


class MemoryDesk:
    """See queueing.contract.Desk. A part of MemoryQueue, and where all that it has is kept.

    limits: what may leave this process. budget, paid_budget: what may leave all of them, per bot.
    clock:  seconds, going on while the process is stopped. wall: Unix seconds.
    """

    def __init__(
        self,
        *,
        status_ttl: float,
        limits: RateLimits,
        budget: SharedBudget | None,
        paid_budget: SharedBudget | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._doors = Doors()
        self._gate = Gate(limits, budget, paid_budget)
        self._outages = Outages()
        self._turns = Turns(self._gate, self._outages, self._end_if_over)
        self._why = Why(self._gate, self._outages, self._turns)
        self._aliases = Aliases()
        self._held: dict[str, Held] = {}
        self._statuses = Statuses(status_ttl)
        self._dead = DeadLetters()
        self._dedup = DedupKeys()

        self._woken = asyncio.Event()

    def clock(self) -> float:
        return self._clock()

    def notify(self) -> None:
        self._woken.set()

    def _end_if_over(self, message: Message) -> bool:
        """Whether it was cancelled, or has expired."""
        if self._statuses.is_cancelled(message):
            self._statuses.ended(message, MessageState.CANCELLED)
            return True
        expires = expires_at(message)
        if expires is None or expires > self._wall():
            return False
        self._statuses.ended(message, MessageState.EXPIRED)
        return True

    def _in_flight(self, lane: str) -> list[Message]:
        return [held.message for held in self._held.values() if held.taken.home.name == lane]

    async def alias(self, bot: str, chat: str, other: str) -> None:
        self._merge(f"{bot}:{chat}", f"{bot}:{other}", self.clock())
        self.notify()

    def _merge(self, name: str, other: str, now: float) -> bool:
        """Lets the one name stand for the other. → whether that was new."""
        into = self._aliases.learn(name, other)
        if into is None:
            return False
        self._gate.merge(name, into)
        self._outages.rename(name.partition(":")[0], name, into)
        self._turns.merge(name, into, now)
        return True

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return self._dead.page(limit, None).letters

    async def dead_page(self, limit: int, before: str | None = None) -> DeadPage:
        return self._dead.page(limit, before)

    async def dead_letter(self, id: str) -> DeadLetter | None:
        return self._dead.get(id)

    async def redrive(self, ids: Sequence[str], *, head: bool = False) -> int:
        now, wall = self.clock(), self._wall()
        push = self._turns.push_first if head else self._turns.push
        done = 0
        for id in reversed(ids) if head else ids:
            message = self._dead.take(id)
            if message:
                message = replace(message, accepted=wall)
                self._statuses.begin_again(message, wall)
                push(self._aliases.lane(message.bot, message.chat), message, now)
                done += 1
        self.notify()
        return done

    async def redrive_all(self, *, head: bool = False) -> int:
        return await self.redrive(list(self._dead), head=head)

    async def drop(self, ids: Sequence[str]) -> int:
        return self._forget(self._dead.take(id) for id in ids)

    async def drop_all(self) -> int:
        return await self.drop(list(self._dead))

    async def trim(self) -> int:
        return self._forget(self._dead.trim(self._wall()))

    def _forget(self, dropped: Iterable[Message | None]) -> int:
        done = 0
        for message in dropped:
            if message:
                self._statuses.forgotten(message)
                done += 1
        return done

    async def pause(self, bot: str | None = None, chat: str | None = None, reason: str = "") -> None:
        self._gate.by_hand[self._scope(bot, chat)] = HandPause(self._wall(), " ".join(reason.split()))

    async def resume(self, bot: str | None = None, chat: str | None = None) -> None:
        scope = self._scope(bot, chat)
        self._gate.by_hand.pop(scope, None)
        # Whatever waited for this is looked at again; where something else is in the way, it finds that then.
        if scope == EVERYTHING:
            self._turns.look_again_at_all()
        elif chat is None:
            self._turns.look_again(scope)
        elif lane := self._turns.get(scope):
            self._turns.look_at(lane, self.clock())
        self.notify()

    def _scope(self, bot: str | None, chat: str | None) -> str:
        """The name of what is paused, see Gate."""
        if bot is None:
            if chat is not None:
                raise ValueError("a chat is paused for a bot")
            return EVERYTHING
        return bot if chat is None else self._aliases.lane(bot, chat)

    async def paused(self, limit: int = 1000) -> Sequence[Pause]:
        now, wall = self.clock(), self._wall()
        by_hand = [_pause(scope, one.reason, since=one.since) for scope, one in self._gate.by_hand.items()]
        failed = [_pause(scope, reason, until=wall + left) for scope, (left, reason) in self._gate.pauses(now).items()]
        found = (by_hand + failed)[:limit]
        return sorted(found, key=lambda pause: (pause.until is not None, pause.bot or "", pause.chat or ""))

    async def cancel(self, id: str) -> MessageState | None:
        status = self._statuses.get(id)
        if status is None:
            return None
        if status.state not in _OPEN:
            return status.state
        if any(held.message.id == id for held in self._held.values()):
            return MessageState.SENDING
        self._statuses.cancel(id)
        lane = self._turns.get(self._aliases.lane(status.bot, status.chat))
        if lane:
            self._forget_tries(lane, id)
        self.notify()
        return MessageState.CANCELLED

    def _forget_tries(self, lane: Lane, id: str) -> None:
        """If it waited for its next try, those behind it must not."""
        for priority, queue in lane.messages.items():
            if queue[0].id == id and priority in lane.tries:
                del lane.tries[priority]
                self._turns.look_at(lane, self.clock())

    async def why(self, id: str) -> Waiting | None:
        status, now, wall = self._statuses.get(id), self.clock(), self._wall()
        if status is None or status.state not in _OPEN or any(held.message.id == id for held in self._held.values()):
            return None
        name = self._aliases.lane(status.bot, status.chat)
        if waiting := self._why.in_lane(id, name, self._in_flight(name), now, wall):
            return waiting
        send_at = self._statuses.send_at(id)
        if send_at is not None and send_at > wall:
            return Waiting("schedule", send_at, ahead=0, more=False)
        front, bulk = self._doors.before(status.bot)
        return self._why.at_a_door(id, front, bulk, self._turns.laned_bulk(status.bot))

    async def first_with(self, bot: str, dedup_key: str) -> str | None:
        return self._dedup.first(bot, dedup_key, self._wall())


def expires_at(message: Message) -> float | None:
    """Unix seconds. What was scheduled was accepted when it was due."""
    if message.ttl is None or message.accepted is None:
        return None
    return message.accepted + message.ttl


def _pause(scope: str, reason: str, *, since: float | None = None, until: float | None = None) -> Pause:
    bot, colon, chat = scope.partition(":")
    return Pause(
        bot=None if scope == EVERYTHING else bot, chat=chat if colon else None, reason=reason, since=since, until=until
    )
