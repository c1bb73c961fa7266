"""The state machine's other half: the operator's verbs, what can be seen of a message, and the end, at which everything
that was accepted must be accounted for."""

import sys

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from queueing.contract import Settlement
from queueing.retry import Ack
from tests.queueing.entries import Entry
from tests.queueing.machine import BOTS, CHATS, PICK, SCOPES, TRACKED
from tests.queueing.machine_family import FamilyMachine
from tests.queueing.virtual import World

WAITS = ("door", "later", "lane")


def _scope(scope: str) -> tuple[str | None, str | None]:
    bot, _, chat = scope.partition(":")
    return (None if bot == "*" else bot), chat or None


class WholeMachine(FamilyMachine):
    # --- the operator's verbs

    @precondition(lambda self: not self.model.hand)
    @rule(scope=st.sampled_from(SCOPES))
    def pause(self, scope: str) -> None:
        self.world.run(self.queue.pause(*_scope(scope), reason="a test"))
        self.model.hand.add(self.model.names.get(scope, scope))

    @precondition(lambda self: self.model.hand)
    @rule(scope=st.sampled_from(SCOPES))
    def resume(self, scope: str) -> None:
        self.world.run(self.queue.resume(*_scope(scope)))
        self.model.hand.discard(self.model.names.get(scope, scope))

    @TRACKED
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        entry = self._pick(pick)
        told = self.world.run(self.queue.cancel(entry.message.id))
        if entry.state in WAITS and (told != "expired" or not self._has_expired(entry)):
            assert told == "cancelled", f"cancel: {entry} is {told}"
            self.model.finish(entry, "cancelled")
        else:
            self._check_state(entry, told)

    @precondition(lambda self: self.model.of("dead"))
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), head=st.booleans())
    def redrive(self, picks: list[int], head: bool) -> None:
        chosen = self._dead(picks)
        done = self.world.run(self.queue.redrive([entry.message.id for entry in chosen], head=head))
        assert done == len(chosen), "redrive: not all of them were there"
        self.model.events += 1
        for entry in reversed(chosen) if head else chosen:
            self.model.redrive(entry, self.now, head=head)

    @precondition(lambda self: self.model.of("dead"))
    @rule(head=st.booleans())
    def redrive_all(self, head: bool) -> None:
        count = self.model.count("dead")
        letters = self.world.run(self.queue.dead_page(1000)).letters[::-1]
        assert self.world.run(self.queue.redrive_all(head=head)) == count == len(letters), "redrive: not all"
        self.model.events += 1
        for letter in reversed(letters) if head else letters:
            self.model.redrive(self.model.entries[letter.id], self.now, head=head)

    @precondition(lambda self: self.model.of("dead"))
    @rule(picks=st.lists(PICK, min_size=1, max_size=2))
    def drop(self, picks: list[int]) -> None:
        chosen = self._dead(picks)
        ids = [entry.message.id for entry in chosen]
        assert self.world.run(self.queue.drop(ids)) == len(ids), "drop: not all of them were there"
        assert self.world.run(self.queue.drop(ids)) == 0, "drop: what is gone was there"
        for entry in chosen:
            entry.state = "gone"

    @rule(bot=st.sampled_from(BOTS), chats=st.permutations(CHATS))
    def alias(self, bot: str, chats: list[str]) -> None:
        chat, other = f"{bot}:{chats[0]}", f"{bot}:{chats[1]}"
        if self.model.can_alias(chat, other, self.now):
            self.world.run(self.queue.alias(bot, chats[0], chats[1]))
            self.model.alias(chat, other)

    def _dead(self, picks: list[int]) -> list[Entry]:
        dead = self.model.of("dead")
        return list(dict.fromkeys(dead[pick % len(dead)] for pick in picks))

    # --- what can be seen

    @TRACKED
    @rule(pick=PICK)
    def look(self, pick: int) -> None:
        entry = self._pick(pick)
        self._look_at(entry)
        self._ask_why(entry)
        self._check_stats()

    def _look_at(self, entry: Entry) -> None:
        status = self.world.run(self.queue.status(entry.message.id))
        assert status, f"status: {entry} has none"
        self._check_state(entry, status.state)
        if entry.tried and entry.state in ("lane", "held") and status.state != "expired":
            assert status.attempts == entry.attempts, f"attempts: {entry} has {entry.attempts}"

    def _check_state(self, entry: Entry, told: str | None) -> None:
        expected = entry.status if entry.state in ("dead", "gone", *WAITS) else entry.state
        if entry.state == "held":
            expected = "sending"
        if entry.state in WAITS and told == "expired" and self._has_expired(entry):
            expected = told
        assert told == expected, f"status: {entry} should be {expected}, and is {told}"

    def _ask_why(self, entry: Entry) -> None:
        waiting = self.world.run(self.queue.why(entry.message.id))
        if entry.state not in WAITS:
            assert waiting is None, f"why: {entry} waits for {waiting}"
        elif waiting is None:
            assert self._has_expired(entry), f"why: {entry} is said not to wait"
        elif not self._has_expired(entry):
            assert self.model.justifies(entry, waiting.reason, self.now), f"why: {entry} waits for {waiting}"
            if entry.state == "lane":
                least, most = self.model.ahead_of(entry, self.now)
                assert least <= waiting.ahead <= most, f"why: {waiting.ahead} before {entry}, not {least} to {most}"
            assert waiting.until is None or waiting.until >= self.world.clock.time(), (
                f"why: until a time that passed: {waiting}"
            )

    def _has_expired(self, entry: Entry) -> bool:
        return self.model.has_expired(entry, self.now)

    def _check_stats(self) -> None:
        stats = self.world.run(self.queue.stats())
        model = self.model
        assert stats.inflight == len(model.held), "stats: in flight"
        assert stats.dead == model.count("dead"), "stats: dead"
        assert stats.processed == model.sent, "stats: processed"
        # What was cancelled or has expired is taken away when it becomes the head.
        most = model.count("cancelled", "held", *WAITS)
        least = model.count("held") + sum(not self._has_expired(entry) for entry in model.of(*WAITS))
        assert least <= stats.depth <= most, f"stats: {stats.depth} messages instead of {least} to {most}"

    # --- the end

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else something failed before
            self._drain_to_the_end()
            self._account_for_everything()
            self.model.check_windows()
            for process in self.processes:
                self.world.run(process.queue.close())

    def _drain_to_the_end(self) -> None:
        """Every pause is ended, every message sent that may be; within a bounded number of calls."""
        for scope in list(self.model.hand):
            self.resume(scope)
        while len(self.processes) > 1:
            self._leave_for_good()
        taker, settlements = self.processes[0], list[Settlement]()
        for _ in range(50 + 10 * len(self.model.entries)):
            if taker.unanswered:
                self._claim(taker, 0, [], [])
            settlements = [Settlement(lease, Ack("1")) for lease in taker.leases]
            claim = self._claim(taker, 10, settlements, [])
            assert claim
            if not claim.leases and not claim.more:
                if claim.next_due is None:
                    break
                self.world.advance(max(1, round(claim.next_due * 1000)))
        self._check_stats()

    def _leave_for_good(self) -> None:
        leaving = self.processes[-1]
        self._leave(leaving)
        self.processes.remove(leaving)

    def _account_for_everything(self) -> None:
        """Nothing is lost: each message is in exactly one state at the end."""
        for entry in self.model.of(*WAITS, "held"):
            assert self._has_expired(entry), f"nothing lost: {entry} was never sent"
            self.model.finish(entry, "expired")
        for entry in self.model.entries.values():
            if entry.message.track:
                self._look_at(entry)
        dead = {letter.id for letter in self.world.run(self.queue.dead_letters(1000))}
        assert dead == {entry.message.id for entry in self.model.of("dead")}, "nothing lost: dead letters"
        assert self.world.run(self.queue.stats()).depth == 0, "nothing lost: something is left over"


def run_machine(world: World, *, examples: int, steps: int = 40, shrink: bool = True) -> None:
    """Plays so many examples. They are the same each time, so that a failure replays."""
    machine = type("Machine", (WholeMachine,), {"world": world})
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
