"""RunLocal: a mapping that is another one in each run.

PTB keeps conversations and keyboards in dicts of the process. Runs of one process go on at the same time, each with
what was loaded for it and nothing else, and nothing stays when a run has ended: so each has dicts of its own instead.
"""

from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Locals:
    """What one run has in each RunLocal, by the RunLocal's id. ended: the run has, and nothing of it is stored any
    more; tasks of it that go on are as outside of any run."""

    dicts: dict[int, dict[Any, Any]] = field(default_factory=dict)
    ended: bool = False


_LOCALS: Final[ContextVar[Locals | None]] = ContextVar("run_locals", default=None)


def current_locals() -> Locals | None:
    """Those of the run that the caller is part of."""
    locals = _LOCALS.get()
    return None if locals is None or locals.ended else locals


def set_locals(locals: Locals | None) -> None:
    """Makes the caller, and the tasks that it starts from now on, part of the run that has these."""
    _LOCALS.set(locals)


class RunLocal(MutableMapping[K, V]):
    """outside: what it is where there is no run."""

    def __init__(self, outside: MutableMapping[K, V]) -> None:
        self._outside = outside

    def of(self, locals: Locals) -> dict[K, V]:
        """What it is in the run that has these."""
        return locals.dicts.setdefault(id(self), {})

    @property
    def _here(self) -> MutableMapping[K, V]:
        locals = current_locals()
        return self._outside if locals is None else self.of(locals)

    def __getitem__(self, key: K) -> V:
        return self._here[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._here[key] = value

    def __delitem__(self, key: K) -> None:
        del self._here[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._here)

    def __len__(self) -> int:
        return len(self._here)
