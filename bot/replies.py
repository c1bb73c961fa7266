"""JSON answers of the web server."""

from collections.abc import Mapping

import orjson
from starlette.responses import Response


def reply(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def refuse(status: int, error: str, *, field: str | None = None, retry_after: int | None = None) -> Response:
    """{"error": …}, with the "field" that is wrong if it is one. `retry_after`: seconds, for a 503."""
    content = {"error": error} if field is None else {"error": error, "field": field}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 413:
        headers["Connection"] = "close"  # or the server would read the rest, to no end, to get at the next request
    return reply(content, status, headers)
