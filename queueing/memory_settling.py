"""What becomes of a lease, within one process: the same as what lua/claim.lua settles."""

from collections.abc import Sequence

from msgspec import structs

from queueing.contract import Settlement
from queueing.limits import WRITE_AT_ONCE
from queueing.memory_desk import Held, MemoryDesk, expires_at
from queueing.message import MessageState
from queueing.retry import Ack, Bury, Decision, Hold, Move, Release, Scope

MOVE_AGAIN = 1.0
"""Seconds before a message is tried that is sent to and fro."""

_HISTORY_KEPT = 40
"""Tries of a head that are kept; the oldest go first. It is about what the scripts keep."""


class MemorySettling(MemoryDesk):
    """A part of MemoryQueue. processed: acknowledged since the start."""

    _processed = 0

    def _settle(self, settlements: Sequence[Settlement], now: float) -> tuple[list[str], list[str]]:
        """→ the tokens of leases that were no longer ours, of which nothing is changed, and of those that stay after
        all, because there is an outage."""
        stale, kept = [], []
        for settlement in settlements:
            token = settlement.lease.token
            held = self._held.pop(token, None)
            if held is None:
                stale.append(token)
                continue
            written = settlement.written is not None and settlement.decision != Release()
            if not written:
                self._take_back(held)
            elif settlement.written is not None and settlement.written > WRITE_AT_ONCE:
                self._note_late(held, settlement.written)
            if self._decide(held, settlement.decision, now, written=written):
                kept.append(token)
            self._end_turn(held, now)
        return stale, kept

    def _decide(self, held: Held, decision: Decision, now: float, *, written: bool) -> bool:
        """→ whether it was to be buried, and stays."""
        match decision:
            case Ack(result, chat):
                self._ack(held, result, chat, now)
            case Release() as release:
                self._release(held, release, now)
            case Bury(_, error, _, Scope.RECEIVER) if self._is_outage(held, now):
                # Its attempts ran out in an outage: that is not its fault.
                self._stay(held, Release(0.0, "outage", error), now)
                return True
            case Bury(reason, error, _, scope):
                if written and scope is not Scope.RECEIVER:
                    self._note_answer(held)
                self._bury(held, reason, error)
                self._statuses.ended(held.message, MessageState.DEAD, error, reason)
                self._note_end(held.message, MessageState.DEAD, reason)
            case Hold(error, scope):
                if scope is Scope.RECEIVER:
                    self._is_outage(held, now)
                else:
                    self._note_answer(held)
                self._bury(held, "uncertain", error)
                self._statuses.held(held.message, error)
                self._note_end(held.message, MessageState.UNCERTAIN, "uncertain")
            case Move(chat, error):
                if written:
                    self._note_answer(held)
                self._move(held, chat, error, now)
        return False

    def _ack(self, held: Held, result: str | None, chat: str | None, now: float) -> None:
        self._processed += 1
        self._statuses.sent(held.message, result, self._wall())
        self._note_end(held.message, MessageState.SENT, result)
        self._note_answer(held)
        self._turns.end(held.taken)
        if chat is not None:
            lane = held.taken.home
            self._merge(lane.name, f"{lane.bot}:{chat}", now)

    def _release(self, held: Held, release: Release, now: float) -> None:
        lane, until, reason = held.taken.home, now + release.delay, release.reason
        if reason is None:
            self._turns.give_back(held.taken)
            self._statuses.mark(held.message, MessageState.PENDING)
            return
        match release.scope:
            case Scope.RECEIVER if self._is_outage(held, now):
                release = structs.replace(release, delay=0.0, counts=False)
            case Scope.CHAT:
                self._note_answer(held)
                self._gate.flooded(lane.name, lane.bot, until, now)
            case Scope.BOT:
                self._note_answer(held)
                self._gate.pause(lane.bot, until, reason)
        self._stay(held, release, now)

    def _stay(self, held: Held, release: Release, now: float) -> None:
        """It stays its lane's head, and what was tried is noted."""
        tries, expires = held.taken.tries, expires_at(held.message)
        tries.attempts += release.counts
        tries.until = now + release.delay
        if expires is not None:
            # One that expires first holds its lane no longer than that.
            tries.until = min(tries.until, now + expires - self._wall())
        tries.history.append({"at": self._wall(), "reason": release.reason, "error": release.error})
        del tries.history[:-_HISTORY_KEPT]
        self._statuses.note_try(held.message, tries.attempts, release.error)
        self._turns.give_back(held.taken)

    def _bury(self, held: Held, reason: str, error: str) -> None:
        self._dead.add(held.message, reason, error, held.taken.tries.history, self._wall())
        self._turns.end(held.taken)

    def _move(self, held: Held, chat: str, error: str, now: float) -> None:
        """Two chats that are said to have moved to each other would send it to and fro: that counts as an attempt."""
        name, other = held.taken.home.name, f"{held.message.bot}:{chat}"
        to_and_fro = self._aliases.resolve(other) == name
        delay = MOVE_AGAIN if to_and_fro else 0.0
        self._merge(name, other, now)
        self._stay(held, Release(delay, "migrated", error, counts=to_and_fro), now)

    def _is_outage(self, held: Held, now: float) -> bool:
        """Of a send that failed as in one."""
        lane = held.taken.home
        failed = self._outages.failed(lane.bot, lane.name, now)
        self._turns.look_again(lane.bot)  # the next probe may be due earlier than it was
        return failed

    def _note_answer(self, held: Held) -> None:
        if self._outages.answered(held.message.bot):
            self._turns.look_again(held.message.bot)

    def _take_back(self, held: Held) -> None:
        """It did not leave: it costs nothing of any limit."""
        lane = held.taken.home
        self._gate.take_back(lane.name, lane.bot, held.taken.granted, paid=held.message.paid)
        self._turns.look_again(lane.bot)

    def _note_late(self, held: Held, written: float) -> None:
        """Its last byte was written so many seconds after its grant."""
        lane, granted = held.taken.home, held.taken.granted
        self._gate.left_late(lane.name, lane.bot, granted, granted + written, paid=held.message.paid)

    def _end_turn(self, held: Held, now: float) -> None:
        """The lane had its turn, and waits for the next."""
        lane = held.taken.home
        if self._outages.end_probe(lane.bot, lane.name, now):
            self._turns.look_again(lane.bot)
        lane.served = now
        self._turns.look_at(lane, now)

    def _undo(self, held: Held, now: float) -> None:
        """As if it had not been granted."""
        self._take_back(held)
        self._turns.give_back(held.taken)
        self._statuses.mark(held.message, MessageState.PENDING)
        self._end_turn(held, now)
