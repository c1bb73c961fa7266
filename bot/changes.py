"""Change: a field of the store that a run changed, and what becomes of it if others have written it meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass

from queueing.inbox import Write


@dataclass(frozen=True, slots=True)
class Change:
    """merged: what is to be stored if the field holds this by now. Either may be None: nothing."""

    write: Write
    merged: Callable[[bytes | None], bytes | None]
