"""Messages that are counted together, within one process."""

import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from queueing.contract import GROUP_DAYS


@dataclass(slots=True)
class _Group:
    """changed: on a clock that nobody sets."""

    counts: Counter[str] = field(default_factory=Counter)
    cancelled: bool = False
    changed: float = 0.0


class Groups:
    """By their names, the one that changed last at the end."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, _Group] = OrderedDict()

    def count(self, name: str, field: str, by: int = 1) -> None:
        self._changed(name).counts[field] += by

    def counts(self, name: str) -> Mapping[str, int]:
        group = self._groups.get(name)
        return {field: many for field, many in group.counts.items() if many > 0} if group else {}

    def cancel(self, name: str) -> None:
        self._changed(name).cancelled = True

    def is_cancelled(self, name: str) -> bool:
        return name in self._groups and self._groups[name].cancelled

    def _changed(self, name: str) -> _Group:
        now = time.monotonic()
        while self._groups and next(iter(self._groups.values())).changed < now - GROUP_DAYS * 86_400:
            self._groups.popitem(last=False)
        group = self._groups.setdefault(name, _Group())
        group.changed = now
        self._groups.move_to_end(name)
        return group
