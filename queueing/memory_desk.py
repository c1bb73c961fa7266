"""MemoryDesk: the operator's verbs within one process. The same as redis_desk.py and its scripts."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from queueing.contract import DeadLetter, DeadPage, Pause, Waiting
from queueing.limits import RateLimits
from queueing.memory_aliases import Aliases
from queueing.memory_doors import Doors
from queueing.memory_groups import Groups
from queueing.memory_lanes import Lane
from queueing.memory_limits import EVERYTHING, Gate, HandPause
from queueing.memory_outage import Outages
from queueing.memory_parents import Parents
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
        self._turns = Turns(self._gate, self._outages, self._end_if_over, self._held_up, self._is_too_early)
        self._parents = Parents()
        self._groups = Groups()
        self._told: list[Callable[[str], None]] = []
        self._buried: list[tuple[str, str]] = []
        self._why = Why(self._gate, self._outages, self._turns, self._waits)
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

    def _over(self, message: Message) -> MessageState | None:
        """CANCELLED or EXPIRED, if it is not to be sent any more."""
        recalled = message.group is not None and self._groups.is_cancelled(message.group)
        if recalled or self._statuses.is_cancelled(message):
            return MessageState.CANCELLED
        expires = expires_at(message)
        return None if expires is None or expires > self._wall() else MessageState.EXPIRED

    def _end_if_over(self, message: Message) -> bool:
        """Whether it was cancelled, or has expired, or dies with a message that was not sent."""
        if state := self._over(message):
            self._statuses.ended(message, state)
            self._note_end(message, state)
            return True
        wrong = self._parents.of(message).wrong if message.after else None
        if wrong is None:
            return False
        self._buried.append(("parent_dead", wrong))
        self._dead.add(message, "parent_dead", wrong, (), self._wall())
        self._statuses.ended(message, MessageState.DEAD, wrong, "parent_dead")
        self._note_end(message, MessageState.DEAD, "parent_dead")
        return True

    def _note_end(self, message: Message, state: MessageState, detail: str | None = None) -> None:
        """A message has left. detail: of one that was sent, its result; of a dead one, the reason."""
        sent = state is MessageState.SENT
        self._parents.end(message, f"={detail or ''}" if sent else f"!{state}", self._wall())
        if message.group is not None:
            self._groups.count(message.group, f"dead:{detail}" if detail is not None and not sent else state.value)
        if message.awaited:
            for told in self._told:
                told(message.id)

    def _waits(self, message: Message) -> str | None:
        """The id of a message that it waits for."""
        return self._parents.of(message).waits_for if message.after and not self._over(message) else None

    def _held_up(self, message: Message, lane: Lane) -> float:
        """Until when a head waits for others, on the queue's clock; -inf: it does not."""
        id = self._waits(message)
        if id is None:
            return -math.inf
        self._parents.wait(id, lane.name)
        expires = expires_at(message)
        return math.inf if expires is None else self.clock() + expires - self._wall()

    def _is_too_early(self, message: Message, lane: Lane) -> bool:
        """Whether the head of a lane waits for one that stands behind it: it was sent again, or for later."""
        id = self._waits(message)
        other = self._parents.place_of(id) if id else None
        if other is None or other.priority is not message.priority:
            return False
        return self._aliases.lane(other.bot, other.chat) == lane.name

    def _look_at_woken(self, now: float) -> bool:
        """Lanes whose heads need not wait any more. → whether there were any."""
        woken, self._parents.woken = self._parents.woken, set()
        for name in woken:
            if lane := self._turns.get(self._aliases.resolve(name)):
                self._turns.look_at(lane, now)
        return bool(woken)

    def hear_ends(self, told: Callable[[str], None]) -> None:
        self._told.append(told)

    async def group(self, name: str) -> Mapping[str, int]:
        return self._groups.counts(name)

    async def cancel_group(self, name: str) -> None:
        self._groups.cancel(name)
        self._parents.wake_all()
        self.notify()

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
            letter, message = self._dead.get(id), self._dead.take(id)
            if letter and message:
                message = message.changed(accepted=wall)
                self._statuses.begin_again(message, wall)
                self._parents.begin(message)
                self._parents.placed(message)
                if message.group is not None:
                    self._groups.count(message.group, f"dead:{letter.reason}", -1)
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
        """If it waited for its next try, or another message, those behind it must not."""
        for priority, queue in lane.messages.items():
            if queue[0].id == id:
                lane.tries.pop(priority, None)
                self._turns.look_at(lane, self.clock())
                return

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
