"""multipart/form-data (RFC 7578) of parameters and files that come in pieces, whose length is known beforehand."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A file. pieces: gives its content anew at each call, `size` bytes together."""

    name: str
    filename: str
    type: str
    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


class Form:
    """A body of parameters of JSON's types, and files; `size`: its length in bytes."""

    def __init__(self, parameters: Mapping[str, Any], parts: Sequence[Part]) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._fields = "".join(_field(boundary, name, value) for name, value in parameters.items()).encode(
            errors="replace"
        )
        self._parts = [(_head(boundary, part).encode(errors="replace"), part) for part in parts]
        self._end = f"--{boundary}--\r\n".encode()
        files = sum(len(head) + part.size + len(b"\r\n") for head, part in self._parts)
        self.size = len(self._fields) + files + len(self._end)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body. The first piece is there at once."""
        yield self._fields
        for head, part in self._parts:
            yield head
            async for piece in part.pieces():
                yield piece
            yield b"\r\n"
        yield self._end


def _field(boundary: str, name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{text}\r\n'


def _head(boundary: str, part: Part) -> str:
    names = f'name="{_quoted(part.name)}"; filename="{_quoted(part.filename)}"'
    return f"--{boundary}\r\nContent-Disposition: form-data; {names}\r\nContent-Type: {part.type}\r\n\r\n"


def _quoted(name: str) -> str:
    """As browsers do it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
