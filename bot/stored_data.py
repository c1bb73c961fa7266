"""StoredData: user_data or chat_data as one run has it.

What is stored of the update's own users and chats comes with the run, and becomes objects when somebody looks at it.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from bot.changes import Change
from bot.merging import merge
from bot.pickling import Pickler, StateError
from queueing.inbox import Write


class StoredData(MutableMapping[int, Any]):
    """By the id of the user or chat. Raises StateError for those that are not loaded; nothing else can tell what they
    have. As in PTB, those loaded have an empty one when they are asked for and have none.

    kind:   "user_data" or "chat_data".
    make:   makes an empty one.
    stored: what is stored of each that is loaded; None: nothing.
    """

    def __init__(
        self, kind: str, make: Callable[[], Any], pickler: Pickler, stored: Mapping[int, bytes | None], why_not: str
    ) -> None:
        self._kind = kind
        self._make = make
        self._pickler = pickler
        self._stored = stored
        self._why_not = why_not
        self._values: dict[int, Any] = {}
        self._made: dict[int, bytes] = {}
        self._dropped: set[int] = set()
        self._closed = False

    def close(self) -> None:
        """Refuses what comes after the run: it would be lost."""
        self._closed = True

    def __getitem__(self, id: int) -> Any:
        self._check(id)
        if id not in self._values:
            self._values[id] = self._read(id)
        return self._values[id]

    def __setitem__(self, id: int, value: Any) -> None:
        self._check(id)
        self._values[id] = value

    def __delitem__(self, id: int) -> None:
        self._check(id)
        self._values.pop(id, None)
        self._dropped.add(id)

    def __contains__(self, id: object) -> bool:
        self._check(id)
        return id in self._values or (self._stored[id] is not None and id not in self._dropped)  # type: ignore[index]

    def __iter__(self) -> Iterator[int]:
        return iter([id for id in self._stored if id in self])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def changes(self, key: str) -> Iterator[Change]:
        """What is to be stored. Raises StateError if something cannot be."""
        for id, stored in self._stored.items():
            if id in self._values or id in self._dropped:
                value = self._to_store(id)
                if value != stored and not (stored is None and value == self._made.get(id)):
                    yield self._change(Write(key, self._field(id), value, stored), id)

    def _check(self, id: object) -> None:
        if self._closed:
            raise StateError(
                f"{self._kind} is used after its update has ended, when it is not stored any more; "
                "a task that needs it belongs to the update: application.create_task(…, update=update)"
            )
        if id not in self._stored:
            raise StateError(f"{self._name(id)} is not loaded: {self._why_not}")

    def _name(self, id: object) -> str:
        return f"{self._kind} of {id}"

    def _field(self, id: int) -> str:
        return field_of(self._kind, id)

    def _read(self, id: int) -> Any:
        stored = self._stored[id]
        if stored is not None and id not in self._dropped:
            return self._pickler.loads(stored, self._name(id))
        value = self._make()
        self._made[id] = self._pickler.dumps(value, self._name(id))
        return value

    def _to_store(self, id: int) -> bytes | None:
        return self._packed(self._values[id], id) if id in self._values else None

    def _packed(self, value: Any, id: int) -> bytes | None:
        """The value as it is stored: an empty one is not."""
        packed = self._pickler.dumps(value, self._name(id))
        return None if packed == self._pickler.dumps(self._make(), self._name(id)) else packed

    def _change(self, write: Write, id: int) -> Change:
        def unpacked(stored: bytes | None) -> Any:
            return self._make() if stored is None else self._pickler.loads(stored, self._name(id))

        def merged(holds: bytes | None) -> bytes | None:
            mine = self._values[id] if id in self._values else self._make()
            return self._packed(merge(unpacked(self._stored[id]), mine, unpacked(holds), self._pickler.same), id)

        return Change(write, merged)


def field_of(kind: str, id: int) -> str:
    """The field that holds it: "user 42", "chat -100"."""
    return f"{kind.removesuffix('_data')} {id}"
