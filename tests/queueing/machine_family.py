"""The state machine's messages that wait for others: `provisional` ones, and those that are `after` them."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from queueing.message import Message, Priority
from tests.queueing.entries import Entry
from tests.queueing.machine import BOTS, CHATS, PICK, PRIORITIES, QueueMachine

PROVISIONAL = precondition(lambda self: self._provisional())


class FamilyMachine(QueueMachine):
    def _provisional(self) -> list[Entry]:
        return [entry for entry in self.model.entries.values() if entry.message.provisional]

    @rule(
        bot=st.sampled_from(BOTS),
        chat=st.sampled_from(CHATS),
        priority=st.sampled_from(PRIORITIES),
        track=st.booleans(),
        ttl=st.sampled_from([None, None, 4.0]),
        children=st.lists(st.tuples(st.sampled_from(CHATS), st.sampled_from(PRIORITIES)), max_size=2),
    )
    def enqueue_family(
        self,
        bot: str,
        chat: str,
        priority: Priority,
        track: bool,
        ttl: float | None,
        children: list[tuple[str, Priority]],
    ) -> None:
        """A message, and others that come after it, in its lane and elsewhere."""
        parent = self._message(bot, chat, priority, track=track, provisional=True, ttl=ttl)
        rest = [self._message(bot, to, its, track=not track, after=(parent.id,)) for to, its in children]
        self._accept([parent, *rest])

    @PROVISIONAL
    @rule(
        chat=st.sampled_from(CHATS),
        priority=st.sampled_from(PRIORITIES),
        provisional=st.booleans(),
        ttl=st.sampled_from([None, None, 4.0]),
        picks=st.lists(PICK, min_size=1, max_size=2),
    )
    def enqueue_child(
        self, chat: str, priority: Priority, provisional: bool, ttl: float | None, picks: list[int]
    ) -> None:
        """One after some that were accepted before, whatever has become of them."""
        parents = self._provisional()
        after = tuple(dict.fromkeys(parents[pick % len(parents)].message.id for pick in picks))
        bot = self.model.entries[after[0]].message.bot
        self._accept([self._message(bot, chat, priority, track=True, provisional=provisional, after=after, ttl=ttl)])

    @PROVISIONAL
    @rule(pick=PICK)
    def enqueue_provisional_again(self, pick: int) -> None:
        """Its id is taken once."""
        parents = self._provisional()
        self._accept([parents[pick % len(parents)].message])

    def _message(self, bot: str, chat: str, priority: Priority, **fields: object) -> Message:
        return Message(bot=bot, chat=chat, body={}, id=f"m{self._next()}", priority=priority, **fields)  # type: ignore[arg-type]
