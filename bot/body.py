"""Reads a request's JSON, within a limit that holds for chunked bodies too."""

from typing import Any, Final

import orjson
from starlette.types import Receive

ARRIVED: Final = "arrived"
"""What the server keeps in the state of a request: when its first byte was read, by the clock of time.monotonic()."""


class BadBody(Exception):
    """What was posted cannot be used. `status`: 400 or 413."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


_LINGER = 8 << 20
"""Bytes beyond the limit that are read and thrown away: a client that is still writing would not see the answer."""


async def read_json(receive: Receive, limit: int) -> Any:
    """The JSON value in the body of a request of at most `limit` bytes; no more than that is kept.

    Raises BadBody.
    """
    body = await _read(receive, limit)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadBody(400, f"the body is not JSON: {error}") from None


async def _read(receive: Receive, limit: int) -> bytes | bytearray:
    kept, size, more = bytearray(), 0, True
    while more and size <= limit + _LINGER:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadBody(400, "the client went away before the end of the body")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= limit:
            kept += chunk
    if size > limit:
        raise BadBody(413, f"the body is larger than {limit} bytes")
    return kept
