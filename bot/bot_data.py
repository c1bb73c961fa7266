"""bot_data as one run has it, and how what it changed goes together with what others wrote meanwhile.

It is stored by key (of an object: by attribute). What the process itself put there outside of any run, such as an open
database in `post_init`, is seen in its runs and never stored, unless a run changes it; a stored value goes before it.
"""

import base64
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bot.changes import Change
from bot.merging import MISSING, merge
from bot.pickling import Pickler, StateError
from queueing.inbox import Write

_DELETED: Final = b""
"""Stored for a key that a run deleted although processes put it there themselves."""

_WHOLE: Final = "whole"
"""The one key of bot_data that has neither keys nor attributes."""


class RunBotData:
    """make: makes an empty one. own: what the process put there itself. stored: what is stored, by field.

    unpicklable: what of `own` is known not to pickle, by key: to be kept from run to run, since to try takes long.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        pickler: Pickler,
        own: Any,
        stored: Mapping[str, bytes],
        unpicklable: dict[Any, Any],
    ) -> None:
        self._make = make
        self._pickler = pickler
        self._own = own
        self._stored = stored
        self._unpicklable = unpicklable
        self._value: Any = MISSING
        self._base: dict[Any, bytes] = {}
        """What each key's value was at first, pickled."""
        self._as_it_is: dict[Any, Any] = {}
        """What of the process's own does not pickle."""

    @property
    def value(self) -> Any:
        """The run's own copy."""
        if self._value is MISSING:
            self._value = self._read()
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self.value  # noqa: B018  # so that it is known what was there before
        self._value = value

    def changes(self, key: str) -> Iterator[Change]:
        """What is to be stored. Raises StateError if something cannot be."""
        if self._value is MISSING:
            return
        parts = _parts(self._value)
        for name in dict.fromkeys([*self._base, *self._as_it_is, *parts]):
            mine = parts.get(name, MISSING)
            if name in self._as_it_is and mine is self._as_it_is[name]:
                continue
            value = self._packed(name, mine)
            if value != self._base.get(name):
                yield self._change(key, name, mine, value)

    def _read(self) -> Any:
        parts: dict[Any, Any] = {}
        for name, item in _parts(self._own).items():
            packed = self._packed_own(name, item)
            if packed is None:
                self._as_it_is[name] = parts[name] = item
            else:
                self._base[name] = packed
                parts[name] = self._pickler.loads(packed, _said(name))
        for field, stored in self._stored.items():
            name = _name_of(field)
            self._as_it_is.pop(name, None)
            self._base[name] = stored
            if stored == _DELETED:
                parts.pop(name, None)
            else:
                parts[name] = self._pickler.loads(stored, _said(name))
        return _put_together(self._make, parts)

    def _packed_own(self, name: Any, item: Any) -> bytes | None:
        if item is self._unpicklable.get(name, MISSING):
            return None
        try:
            return self._pickler.dumps(item, _said(name))
        except StateError:
            self._unpicklable[name] = item
            return None

    def _packed(self, name: Any, value: Any) -> bytes | None:
        if value is MISSING:
            return _DELETED if name in _parts(self._own) else None
        return self._pickler.dumps(value, _said(name))

    def _change(self, key: str, name: Any, mine: Any, value: bytes | None) -> Change:
        field = _field_of(name)

        def unpacked(stored: bytes | None) -> Any:
            return self._pickler.loads(stored, _said(name)) if stored else MISSING

        def merged(holds: bytes | None) -> bytes | None:
            base = unpacked(self._base.get(name))
            return self._packed(name, merge(base, mine, unpacked(holds), self._pickler.same))

        return Change(Write(key, field, value, self._stored.get(field)), merged)


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    attributes = getattr(value, "__dict__", None)
    return attributes if isinstance(attributes, dict) else {_WHOLE: value}


def _put_together(make: Callable[[], Any], parts: dict[Any, Any]) -> Any:
    whole = make()
    into = _parts(whole)
    if into.keys() == {_WHOLE} and into[_WHOLE] is whole:
        return parts.get(_WHOLE, whole)
    into.clear()
    into.update(parts)
    return whole


def _field_of(name: Any) -> str:
    return f"={name}" if type(name) is str else "!" + base64.b64encode(pickle.dumps(name, 5)).decode()


def _name_of(field: str) -> Any:
    return field[1:] if field[0] == "=" else pickle.loads(base64.b64decode(field[1:]))  # noqa: S301  # our own


def _said(name: Any) -> str:
    return f"bot_data[{name!r}]"
