"""Reads a request's JSON, within a limit that holds for chunked bodies too."""

from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request


class BadBody(Exception):
    """What was posted cannot be used. `status`: 400 or 413."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


_LINGER = 8 << 20
"""Bytes beyond the limit that are read and thrown away: a client that is still writing would not see the answer."""


async def read_json(request: Request, limit: int) -> Any:
    """The JSON value in a request's body of at most `limit` bytes; no more than that is kept.

    Raises BadBody.
    """
    try:
        body = await _read(request, limit)
    except ClientDisconnect:
        raise BadBody(400, "the client went away before the end of the body") from None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadBody(400, f"the body is not JSON: {error}") from None


async def _read(request: Request, limit: int) -> bytes:
    kept, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            kept += chunk
        elif size > limit + _LINGER:
            break
    if size > limit:
        raise BadBody(413, f"the body is larger than {limit} bytes")
    return bytes(kept)
