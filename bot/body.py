"""Reads a request's JSON, within a limit that holds for chunked bodies too."""

from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request


class BadBody(Exception):
    """What was posted cannot be used. `status`: 400 or 413."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


async def read_json(request: Request, limit: int) -> Any:
    """The JSON value in a request's body of at most `limit` bytes; what goes beyond is not read.

    Raises BadBody.
    """
    too_large = BadBody(413, f"the body is larger than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
    except ClientDisconnect:
        raise BadBody(400, "the client went away before the end of the body") from None
    try:
        return orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise BadBody(400, f"the body is not JSON: {error}") from None
