"""Three-way merge: what one run changed, applied to what others have written since it read.

Of two changes that cannot both be kept, the one that is merged (`mine`) wins, as the later one does in one process.
"""

import copy
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

MISSING: Final[Any] = object()
"""No value: the key was not there, or was deleted."""

LARGEST_STEP: Final = 1_000_000
"""Numbers count as counted up or down if they changed by less. Ids and times are set, not counted."""

Same = Callable[[Any, Any], bool]


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, as far as they tell."""
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001  # an __eq__ of anybody's own class, or one that does not answer with a bool
        return False


def merge(base: Any, mine: Any, theirs: Any, same: Same = equal) -> Any:
    """What is to be stored, if it was `base` when we read it, is `mine` now, and others have made it `theirs`; each may
    be MISSING, and so may be the result. Changes nothing of what it is given. same: whether two values are equal."""
    if same(mine, base):
        return theirs
    if same(theirs, base):
        return mine
    if mine is MISSING or theirs is MISSING:
        return mine
    if _is_number(mine) and _is_number(theirs):
        return _numbers(base, mine, theirs)
    if type(mine) is not type(theirs):
        return mine
    if isinstance(mine, dict):
        return _dicts(base if isinstance(base, dict) else {}, mine, theirs, same)
    if isinstance(mine, set | frozenset):
        return _sets(base if isinstance(base, set | frozenset) else frozenset(), mine, theirs)
    if type(mine) is list:
        return _lists(base if isinstance(base, list) else [], mine, theirs, same)
    if type(base) is type(mine) and _has_attributes(mine):
        return _objects(base, mine, theirs, same)
    return mine


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _numbers(base: Any, mine: Any, theirs: Any) -> Any:
    """A number that was not there was 0."""
    step = mine - (base if _is_number(base) else 0)
    return theirs + step if abs(step) < LARGEST_STEP else mine


def _dicts(base: dict[Any, Any], mine: dict[Any, Any], theirs: dict[Any, Any], same: Same) -> dict[Any, Any]:
    merged = copy.copy(theirs)
    for key in [*theirs, *(key for key in mine if key not in theirs)]:
        value = merge(base.get(key, MISSING), mine.get(key, MISSING), theirs.get(key, MISSING), same)
        if value is not MISSING:
            merged[key] = value
        else:
            merged.pop(key, None)
    return merged


def _sets(base: Any, mine: Any, theirs: Any) -> Any:
    return (theirs | (mine - base)) - (base - mine)


def _lists(base: list[Any], mine: list[Any], theirs: list[Any], same: Same) -> list[Any]:
    length = len(base)
    if same(mine[:length], base):
        return theirs + mine[length:]
    if same(theirs[:length], base):
        return mine + theirs[length:]
    return mine


def _has_attributes(value: Any) -> bool:
    """Whether it is an object that keeps what it holds in attributes, to be set by anybody."""
    free: Any = object.__setattr__
    if type(value).__setattr__ is not free or isinstance(value, type | Enum) or callable(value):
        return False
    return isinstance(getattr(value, "__dict__", None), dict)


def _objects(base: Any, mine: Any, theirs: Any, same: Same) -> Any:
    merged = copy.copy(theirs)
    attributes = _dicts(vars(base), vars(mine), vars(theirs), same)
    vars(merged).clear()
    vars(merged).update(attributes)
    return merged
