"""multipart/form-data (RFC 7578) of parameters and files that come in pieces, whose length is known beforehand."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Piece = bytes | memoryview

_AT_ONCE = 512 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A file. pieces: gives its content anew at each call, `size` bytes together."""

    name: str
    filename: str
    type: str
    size: int
    pieces: Callable[[], AsyncIterator[Piece]]


def in_memory(name: str, filename: str, type: str, content: bytes) -> Part:
    """A file that is at hand."""
    return Part(name, filename, type, len(content), partial(_in_pieces, content))


async def _in_pieces(content: bytes) -> AsyncIterator[Piece]:
    view = memoryview(content)
    for start in range(0, len(content), _AT_ONCE):
        yield view[start : start + _AT_ONCE]


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

    async def pieces(self) -> AsyncIterator[Piece]:
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
