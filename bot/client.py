"""A client of our own HTTP API, for the command line."""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from bot.settings import Settings

TIMEOUT = 15.0
"""Seconds in which an answer has to come."""


class Unreachable(Exception):
    """Nobody answers, or no telequeue does; str() is one line."""


class TooSlow(Unreachable):
    """No answer came in time: something does run there."""


def base_url(settings: Settings) -> str:
    """Where our own server listens, as seen from this machine."""
    host, port = settings.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  the address of all is none to call
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def first_key(settings: Settings) -> str | None:
    """Any of API_KEYS will do."""
    return next((key.get_secret_value() for key in settings.api_keys.values()), None)


def call(
    base: str,
    path: str,
    *,
    body: object = None,
    key: str | None = None,
    method: str | None = None,
    timeout: float = TIMEOUT,
) -> tuple[int, Any]:
    """GET, POST with a body, or another method → (status, the JSON of the answer). Raises Unreachable.

    An answer that is no success is an answer, too: {"error": "in words"}.
    """
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, headers, method=method)  # noqa: S310  click checked that it is http(s)
    # No proxy: this is nearly always loopback, and the API takes proxied requests for strangers.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        code, content = _exchange(opener, request, timeout)
    except HTTPException:  # no HTTP, or an answer that broke off
        raise Unreachable(f"{base} answers, but not as telequeue does") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            raise TooSlow(f"{base} did not answer within {timeout:g} s") from None
        raise Unreachable(f"{base} does not answer ({getattr(reason, 'strerror', None) or reason})") from None
    return code, _json(base, content)


def _exchange(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, timeout: float
) -> tuple[int, bytes]:
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _json(base: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise Unreachable(f"{base} answers, but not as telequeue does") from None
