"""Those that a message waits for, within one process: the same as lua/open.lua and lua/parents.lua, but for `also`."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from queueing.message import Message

KEPT_SECONDS = 30 * 86_400.0

KEPT = 100_000
"""Of those that ended, kept at most: memory is all there is. The oldest go first."""


@dataclass(slots=True)
class _Open:
    """A provisional message that has not ended. message: as it came into a lane; None: it did not yet.
    lanes: those whose heads wait for it."""

    message: Message | None = None
    lanes: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with a message's parents. waits_for: one that has not ended. wrong: what is wrong, if one was not
    sent. results: of all of them, if they were."""

    waits_for: str | None = None
    wrong: str | None = None
    results: Mapping[str, str] = field(default_factory=dict)


class Parents:
    """Of provisional messages, by their ids. woken: lanes whose heads need not wait any more. Times: Unix seconds."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._ended: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.woken: set[str] = set()

    def knows(self, id: str) -> bool:
        return id in self._open or id in self._ended

    def begin(self, message: Message) -> None:
        """From now on others may wait for it; also once more, after it was dead."""
        if message.provisional:
            self._open.setdefault(message.id, _Open())
            self._ended.pop(message.id, None)

    def placed(self, message: Message) -> None:
        """It is in a lane, where those that wait for it may stand before it."""
        if message.provisional:
            its = self._open.setdefault(message.id, _Open())
            its.message = message
            self.woken |= its.lanes

    def place_of(self, id: str) -> Message | None:
        """The message, once it is in a lane."""
        return self._open[id].message if id in self._open else None

    def wait(self, id: str, lane: str) -> None:
        self._open[id].lanes.add(lane)

    def wake_all(self) -> None:
        for its in self._open.values():
            self.woken |= its.lanes

    def end(self, message: Message, what: str, now: float) -> None:
        """what: "=" and its result, or "!" and its state."""
        if message.provisional:
            its = self._open.pop(message.id, None)
            self.woken |= its.lanes if its else set()
            while self._ended and next(iter(self._ended.values()))[1] <= now:
                self._ended.popitem(last=False)
            self.keep(message.id, what, now + KEPT_SECONDS)

    def keep(self, id: str, what: str, until: float) -> None:
        self._ended[id] = (what, until)
        while len(self._ended) > KEPT:
            self._ended.popitem(last=False)

    def use(self, message: Message, now: float) -> None:
        """What came of those that it is after leaves with it, and is kept for as long again."""
        for id in message.after:
            if ended := self._ended.pop(id, None):
                self.keep(id, ended[0], now + KEPT_SECONDS)

    def ended(self, now: float) -> Iterator[tuple[str, str, float]]:
        """Id, what came of it, and until when that is kept."""
        return ((id, what, until) for id, (what, until) in self._ended.items() if until > now)

    def of(self, message: Message) -> Standing:
        waits_for, results = None, {}
        for id in message.after:
            what, _ = self._ended.get(id, ("", 0.0))
            if not what and id in self._open and id != message.id:
                waits_for = waits_for or id
            elif not what.startswith("="):
                became = what.removeprefix("!") or "not known"
                return Standing(wrong=f"message {id}, which had to be sent before it, is {became}")
            elif len(what) > 1:
                results[id] = what[1:]
        return Standing(waits_for, results={} if waits_for else results)
