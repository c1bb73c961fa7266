"""The state machine: whatever may happen to a queue, in any order, against the model of what must come of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.errors import QueueUnavailable
from queueing.limits import Rate, RateLimits
from queueing.message import Message, Priority, Uncertain
from queueing.retry import Ack, Bury, Decision, Hold, Release, Scope
from tests.queueing.entries import Entry, Grant
from tests.queueing.model import HEARTBEAT, LEASE, PRIORITIES, Model
from tests.queueing.virtual import World

LIMITS = [
    RateLimits(),
    RateLimits(bot=Rate(4), chat=Rate(1), group=Rate(2, 3)),
    RateLimits(bot=Rate(2), group=Rate(3, 2)),
    RateLimits(chat=Rate(2, 1.5), group=Rate(1, 4)),
]
BOTS, CHATS = ["1", "2"], ["1", "2", "-3"]
SCOPES = ["*", "1", "2", "1:1", "1:2", "2:-3"]

KEEP = "keep"
OUTCOMES: dict[str, Decision | None] = {
    KEEP: None,
    "sent": Ack("1"),
    "backoff": Release(2, "network", "refused", counts=True),
    "flood": Release(3, "flood", "retry after 3", scope=Scope.CHAT),
    "longer flood": Release(5, "flood", "retry after 5", scope=Scope.CHAT),
    "bot": Release(2, "unauthorized", "401", scope=Scope.BOT),
    "receiver": Release(1, "network", "502", counts=True, scope=Scope.RECEIVER),
    "blocked": Bury("blocked", "by the user"),
    "attempts": Bury("attempts", "502 (after 5 attempts)", scope=Scope.RECEIVER),
    "hold": Hold("no answer"),
    "hold, receiver": Hold("no answer", Scope.RECEIVER),
    "unsent": Release(),
}
PICK = st.integers(0, 20)
KINDS = ["plain", "plain", "plain", "ttl", "later", "key", "hold"]

TRACKED = precondition(lambda self: any(entry.message.track for entry in self.model.entries.values()))
SEVERAL = precondition(lambda self: len(self.processes) > 1)
BUSY = precondition(lambda self: any(process.leases for process in self.processes))


@dataclass
class Process:
    """One that takes messages. unanswered: what it asked, and has to ask again. old: leases that it settled or lost."""

    queue: Queue
    number: int
    leases: list[Lease] = field(default_factory=list)
    old: list[Settlement] = field(default_factory=list)
    unanswered: tuple[int, list[Settlement], list[Lease], int] | None = None
    calls: int = 0


class QueueMachine(RuleBasedStateMachine):
    world: World

    @initialize(limits=st.sampled_from(LIMITS), priority=st.sampled_from(PRIORITIES), wants=st.tuples(PICK, PICK))
    def begin(self, limits: RateLimits, priority: Priority, wants: tuple[int, int]) -> None:
        """Two messages for each chat, of which some are taken: an empty queue is soon told."""
        self.world.begin()
        self.model = Model(limits, slack=self.world.slack)
        self.numbers = 0
        self.forward = 0
        self.heard: dict[int, int] = {}
        self.known_call: dict[int, int] = {}
        self.processes = [self._new_process() for _ in range(self.world.processes)]
        for bot in BOTS:
            self.enqueue_to_all(bot=bot, priority=priority, track=True)
            self.enqueue_to_all(bot=bot, priority=Priority.NORMAL, track=False)
        for process, want in zip(self.processes, wants, strict=False):
            self._claim(process, want % 4, [], [])

    @property
    def queue(self) -> Queue:
        return self.processes[0].queue

    def _new_process(self) -> Process:
        return Process(self.world.new_process(self.model.limits), self._next())

    @property
    def now(self) -> int:
        return self.world.clock.now

    # --- messages come

    @rule(
        bot=st.sampled_from(BOTS),
        chat=st.sampled_from(CHATS),
        priority=st.sampled_from(PRIORITIES),
        track=st.booleans(),
        kind=st.sampled_from(KINDS),
        count=st.integers(1, 3),
    )
    def enqueue(self, bot: str, chat: str, priority: Priority, track: bool, kind: str, count: int) -> None:
        special: dict[str, object] = {
            "ttl": {"ttl": 4.0},
            "later": {"send_at": self.world.clock.time() + 2.5},
            "key": {"dedup_key": chat},
            "hold": {"uncertain": Uncertain.HOLD},
        }.get(kind, {})
        messages = [
            Message(bot=bot, chat=chat, body={}, id=f"m{self._next()}", priority=priority, track=track, **special)  # type: ignore[arg-type]
            for _ in range(count)
        ]
        self._accept(messages)

    @rule(bot=st.sampled_from(BOTS), priority=st.sampled_from(PRIORITIES), track=st.booleans())
    def enqueue_to_all(self, bot: str, priority: Priority, track: bool) -> None:
        messages = [
            Message(bot=bot, chat=chat, body={}, id=f"m{self._next()}", priority=priority, track=track)
            for chat in CHATS
        ]
        self._accept(messages)

    @TRACKED
    @rule(pick=PICK)
    def enqueue_again(self, pick: int) -> None:
        """A tracked id that is known is not taken again."""
        self._accept([self._pick(pick).message])

    def _next(self) -> int:
        self.numbers += 1
        return self.numbers

    def _accept(self, messages: Sequence[Message]) -> None:
        self.world.run(self.queue.enqueue(messages))
        for message in messages:
            self.model.enqueue(message, self.now)

    def _pick(self, pick: int) -> Entry:
        tracked = [entry for entry in self.model.entries.values() if entry.message.track]
        return tracked[pick % len(tracked)]

    # --- processes take them

    @rule(
        process=st.integers(0, 1),
        want=st.integers(0, 4),
        outcomes=st.lists(st.sampled_from(list(OUTCOMES)), max_size=4),
        late=st.booleans(),
        lose=st.sampled_from([None, None, None, "reply", "request"]),
    )
    def claim(self, process: int, want: int, outcomes: list[str], late: bool, lose: str | None) -> None:
        taker = self._process(process)
        decided = zip(taker.leases, outcomes, strict=False)
        settlements = [
            self._settlement(lease, decision, late) for lease, name in decided if (decision := OUTCOMES[name])
        ]
        done = {settlement.lease.token for settlement in settlements}
        held = [lease for lease in taker.leases if lease.token not in done]
        self._claim(taker, want, settlements, held, lose if self.world.processes > 1 else None, len(outcomes) % 3)

    @BUSY
    @rule(
        process=st.integers(0, 1),
        outcome=st.sampled_from(["sent", "flood", "receiver", "unsent"]),
        want=st.integers(0, 10),
    )
    def settle_all(self, process: int, outcome: str, want: int) -> None:
        """The same becomes of all that a process holds: a flood, an outage."""
        taker = self._process(process)
        settlements = [
            self._settlement(lease, decision, False) for lease in taker.leases if (decision := OUTCOMES[outcome])
        ]
        self._claim(taker, want, settlements, [])

    def _process(self, process: int) -> Process:
        return self.processes[process % len(self.processes)]

    def _settlement(self, lease: Lease, decision: Decision, late: bool) -> Settlement:
        grant = self.model.held.get(lease.lane)
        written = min(self.model.slack, self.now - grant.at) if grant and late else 0
        return Settlement(lease, decision, written / 1000)

    @BUSY
    @rule(process=st.integers(0, 1), pick=PICK)
    def forget(self, process: int, pick: int) -> None:
        """A process does not know of one of its leases, which was never sent then."""
        taker = self._process(process)
        if taker.leases and not taker.unanswered:
            forgotten = taker.leases[pick % len(taker.leases)]
            self._claim(taker, 0, [], [lease for lease in taker.leases if lease is not forgotten])
            taker.old.append(Settlement(forgotten, Ack()))

    @precondition(lambda self: any(process.old for process in self.processes))
    @rule(process=st.integers(0, 1), pick=PICK, outcome=st.sampled_from([name for name in OUTCOMES if name != KEEP]))
    def settle_again(self, process: int, pick: int, outcome: str) -> None:
        """What was settled before, or taken over: its token is stale, and changes nothing."""
        taker, decision = self._process(process), OUTCOMES[outcome]
        if taker.old and decision:
            stale = Settlement(taker.old[pick % len(taker.old)].lease, decision)
            self._claim(taker, 1, [stale], taker.leases)

    def _claim(
        self,
        taker: Process,
        want: int,
        settlements: list[Settlement],
        held: list[Lease],
        lose: str | None = None,
        ahead: int = 0,
    ) -> Claim | None:
        want, settlements, held, ahead = asked = taker.unanswered or (want, settlements, held, ahead)
        taker.unanswered = asked
        claim = None
        if lose:
            taker.queue._claim.lose = lose  # type: ignore[attr-defined]
        try:
            claim = self.world.run(taker.queue.claim(want, settlements, held, ahead))
        except QueueUnavailable:
            assert lose
        if lose != "request":
            self._judge(taker, asked, claim)
        if claim:
            known = {lease.token for lease in held if lease.token not in claim.lost}
            taker.old += [*settlements, *(Settlement(lease, Ack()) for lease in held if lease.token not in known)]
            taker.leases = [lease for lease in held if lease.token in known] + list(claim.leases)
            for lease in claim.leases:
                results = dict.fromkeys(lease.message.after, "1")
                assert dict(lease.message.results) == results, f"parents: {lease} has not their results"
            taker.unanswered = None
            taker.calls += 1
        return claim

    def _judge(
        self, taker: Process, asked: tuple[int, list[Settlement], list[Lease], int], claim: Claim | None
    ) -> None:
        """The call was carried out, whether or not it was answered."""
        answer = self.world.answer(taker.queue, claim)
        self._forgive()
        self.heard[taker.number] = self.now
        if self.known_call.get(taker.number) == taker.calls + 1:
            granted = {grant.token for grant in self.model.held.values() if self._is_of_call(grant, taker)}
            told = [token for _, token, _, _, _ in answer.grants]
            assert sorted(told) == sorted(granted), "idempotence: the same call again brought something else"
            return
        self.known_call[taker.number] = taker.calls + 1
        want, settlements, held, ahead = asked
        told_stale = [one.lease.token for one in settlements if not self._settle(taker, one)]
        assert list(answer.stale) == told_stale, "fencing: stale tokens"
        assert set(answer.lost) == self._reconcile(taker, held), "fencing: lost tokens"
        self.model.drain(self.now)
        self._note_dead(answer.dead)
        assert len(answer.grants) <= want + ahead, "claim: more than wanted"
        at_hand = {id for _, _, id, _, _ in answer.grants[want:]}
        of_bulk = {id for id, entry in self.model.entries.items() if entry.priority is Priority.BULK}
        assert not at_hand & of_bulk, "bulk is at hand"
        for lane, token, id, attempts, takeovers in answer.grants:
            self.model.grant(lane, token, id, (attempts, takeovers), (taker.number, taker.calls + 1), self.now)
        if len(answer.grants) < want and not answer.again:
            self._check_idle(taker, want + len(held))

    def _is_of_call(self, grant: Grant, taker: Process) -> bool:
        return grant.process == taker.number and grant.call == taker.calls + 1

    def _check_idle(self, taker: Process, workers: int) -> None:
        """Less was granted than wanted: then nothing more may leave."""
        mine = [grant.entry for grant in self.model.held.values() if grant.process == taker.number]
        bulk = [entry for entry in mine if entry.priority is Priority.BULK]

        def has_room(one: Entry) -> bool:
            """Bulk leaves a fifth to others, a bot half of it."""
            of_bot = [entry for entry in mine if entry.message.bot == one.message.bot]
            if one.priority is Priority.BULK and max(len(bulk) / 0.8, len({*bulk} & {*of_bot}) / 0.4) >= workers:
                return False
            return len(of_bot) < workers / 2

        # What killed two processes goes alone.
        if not any(entry.takeovers >= 2 for entry in [*mine, *self.model.of("lane")]):
            ready = [one for one in self.model.surely_ready(self.now) if has_room(one)]
            assert not ready, f"idle: {ready} may leave and does not"

    def _settle(self, taker: Process, settlement: Settlement) -> bool:
        """→ whether the lease was still its own."""
        grant = self.model.held.get(settlement.lease.lane)
        if not grant or grant.token != settlement.lease.token or grant.process != taker.number:
            return False
        decision, entry, model = settlement.decision, grant.entry, self.model
        if decision == Release():
            model.unsent(grant)
            return True
        model.departed(grant, round((settlement.written or 0) * 1000))
        is_outage = self._hear(entry, decision)
        match decision:
            case Ack():
                model.end(grant, "sent")
            case Hold():
                model.die(grant, "uncertain")
            case Bury() if not is_outage:
                model.die(grant)
            case Release(delay=delay, counts=counts) if not is_outage:
                model.give_back(grant)
                # If it was to expire first, and the clock is set back, it is tried at that time.
                entry.note_try(min(self.now + delay * 1000, entry.expires - model.ahead), counts=counts)
            case _:
                model.give_back(grant)
                entry.note_try(0)
        return True

    def _hear(self, entry: Entry, decision: Decision) -> bool:
        """What the receiver's answer, or silence, says of chat and bot. → whether it is an outage."""
        model, bot = self.model, entry.message.bot
        match decision:
            case Release(scope=Scope.MESSAGE):
                return False
            case Release(scope=Scope.RECEIVER) | Bury(scope=Scope.RECEIVER) | Hold(scope=Scope.RECEIVER):
                return model.failed(entry, self.now)
            case Release(delay=delay, scope=Scope.CHAT):
                model.flooded(entry, self.now + delay * 1000, self.now)
            case Release(delay=delay, reason=reason, scope=Scope.BOT):
                model.pause(bot, self.now + delay * 1000, reason or "")
        model.answered(bot)
        return False

    def _reconcile(self, taker: Process, held: list[Lease]) -> set[str]:
        """→ the tokens that are not the process's own."""
        told = {lease.token for lease in held}
        mine = [grant for grant in self.model.held.values() if grant.process == taker.number]
        for grant in mine:
            if grant.token not in told:
                self.model.unsent(grant)
        return told - {grant.token for grant in mine}

    def _note_dead(self, reasons: Sequence[str]) -> None:
        """What died in its lane: of poison, or with a parent."""
        if not reasons:
            return
        letters = {letter.id: letter.reason for letter in self.world.run(self.queue.dead_letters(1000))}
        fresh = [entry for entry in self.model.of("lane") if entry.message.id in letters]
        assert sorted(letters[entry.message.id] for entry in fresh) == sorted(reasons), (
            "poison: not all are dead letters"
        )
        for entry in fresh:
            if letters[entry.message.id] == "poison":
                assert entry.takeovers >= 3, f"poison: {entry} was taken over {entry.takeovers} times"
            self.model.finish(entry, "dead")
        for entry in fresh:
            if letters[entry.message.id] == "parent_dead":
                assert self.model.is_orphan(entry, self.now), f"parents: {entry} died for no reason"

    # --- processes fall silent, die and leave

    def _forgive(self) -> None:
        """If nobody was heard, silence says nothing about anyone."""
        if self.heard and self.now - max(self.heard.values()) > 2 * HEARTBEAT:
            self.heard = dict.fromkeys(self.heard, self.now)

    @SEVERAL
    @rule(process=st.integers(0, 1))
    def reap(self, process: int) -> None:
        reaped = {
            one.incarnation: (one.recovered, one.held) for one in self.world.run(self._process(process).queue.reap())
        }
        self._forgive()
        silent = {number for number, at in self.heard.items() if at + LEASE <= self.now}
        expected = {}
        for taker in self.processes:
            if taker.number in silent:
                grants = [grant for grant in self.model.held.values() if grant.process == taker.number]
                for grant in grants:
                    self.model.take_over(grant)
                held = sum(grant.entry.state == "dead" for grant in grants)
                expected[taker.queue.incarnation] = (len(grants), held)  # type: ignore[attr-defined]
                del self.heard[taker.number], self.known_call[taker.number]
        assert reaped == expected, f"lease: {reaped} taken over instead of {expected}"

    @SEVERAL
    @BUSY
    @rule(silent=st.integers(0, 1))
    def lapse(self, silent: int) -> None:
        """One process is not heard for its lease, while the other is."""
        for _ in range(3):
            self.advance(LEASE // 3)
            other = self.processes[1 - silent]
            self._claim(other, 0, [], other.leases)
        self.reap(1 - silent)

    @SEVERAL
    @rule(process=st.integers(0, 1))
    def leave(self, process: int) -> None:
        """A process ends cleanly, and a new one takes its place."""
        leaving = self._process(process)
        self._leave(leaving)
        self.processes[self.processes.index(leaving)] = self._new_process()

    def _leave(self, leaving: Process) -> None:
        self.world.run(leaving.queue.close())
        for grant in [grant for grant in self.model.held.values() if grant.process == leaving.number]:
            self.model.left_in_hand(grant, self.now)
        self.heard.pop(leaving.number, None)

    @rule(ms=st.sampled_from([1, 33, 253, 505, 1010, 1510, 2000, 3030, 7000]))
    def advance(self, ms: int) -> None:
        self.world.advance(ms)

    @precondition(lambda self: any(process.calls for process in self.processes))
    @rule(by=st.sampled_from([-60_000, -5_000, 5_000, 60_000]))
    def set_clock(self, by: int) -> None:
        """Somebody sets the server's clock; the next to call is a process that called before. Forward by no more than a
        minute in all: the keys of the logs would expire."""
        if self.forward + by > 60_000:
            return
        self.forward += max(0, by)
        caller = max(self.processes, key=lambda process: process.calls)
        self._claim(caller, 0, [], caller.leases)
        for entry in self.model.entries.values():
            self.model.has_expired(entry, self.now)
        self.world.set_clock(by)
        self.model.set_clock(by, keys=self.world.processes > 1)
        self._claim(caller, 0, [], caller.leases)
