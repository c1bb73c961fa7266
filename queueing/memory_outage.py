"""The receiver's own troubles, within one process: the same as lua/outage.lua. Times: seconds on one clock."""

import math
from dataclasses import dataclass, field

OUTAGE_CHATS = 3
"""Distinct chats that fail in a row, nothing getting through between them."""
OUTAGE_FIRST = 1.0
"""Seconds of the first pause; each probe that fails doubles it, up to OUTAGE_MOST."""
OUTAGE_MOST = 30.0
PROBE_WITHIN = 20.0
"""Seconds without a second probe, if the first is never heard of again."""
FAILING_KEPT = 60.0
"""Seconds after the last failure for which those before it are counted."""


@dataclass(slots=True)
class _Trouble:
    """failing: lanes whose sends failed since anything got through. level: 0 while it is no outage."""

    failing: set[str] = field(default_factory=set)
    last: float = -math.inf
    level: int = 0
    probe_at: float = -math.inf
    probe: str | None = None


class Outages:
    """Of each bot, by its name."""

    def __init__(self) -> None:
        self._troubles: dict[str, _Trouble] = {}

    def probe_at(self, bot: str) -> float:
        """When the next probe may go out; -inf: there is no outage."""
        trouble = self._troubles.get(bot)
        return trouble.probe_at if trouble else -math.inf

    def answered(self, bot: str) -> bool:
        """The receiver answered for this bot, whatever it said. → whether an outage ended."""
        trouble = self._troubles.pop(bot, None)
        return trouble is not None and trouble.level > 0

    def failed(self, bot: str, lane: str, now: float) -> bool:
        """A send failed as in an outage. → whether it is one: then no attempt is spent."""
        trouble = self._troubles.setdefault(bot, _Trouble())
        if now - trouble.last > FAILING_KEPT:
            trouble.failing.clear()
        trouble.failing.add(lane)
        trouble.last = now
        if not trouble.level and len(trouble.failing) < OUTAGE_CHATS:
            return False
        # Others that were under way when it began say nothing new; a failed probe does.
        if not trouble.level or trouble.probe == lane:
            trouble.level += 1
            trouble.probe = None
            trouble.probe_at = now + min(OUTAGE_MOST, OUTAGE_FIRST * 2.0 ** min(trouble.level - 1, 10))
        return True

    def granted(self, bot: str, lane: str, now: float) -> None:
        """A grant while there is an outage is its probe: the only one until it is heard of."""
        trouble = self._troubles.get(bot)
        if trouble and trouble.level:
            trouble.probe, trouble.probe_at = lane, now + PROBE_WITHIN

    def end_probe(self, bot: str, lane: str, now: float) -> bool:
        """A lane's turn is over. → whether it was the probe, unheard of: then another may go out at once."""
        trouble = self._troubles.get(bot)
        if not trouble or trouble.probe != lane:
            return False
        trouble.probe, trouble.probe_at = None, now
        return True

    def rename(self, bot: str, lane: str, into: str) -> None:
        """Two lanes are one."""
        trouble = self._troubles.get(bot)
        if trouble and lane in trouble.failing:
            trouble.failing.discard(lane)
            trouble.failing.add(into)
        if trouble and trouble.probe == lane:
            trouble.probe = into
