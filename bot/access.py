"""Who may use the HTTP API: who knows a key of API_KEYS or, when none is set, programs on this machine."""

import hmac
import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

LOCAL = "local"
"""The name of a client that needs no key."""


class Access:
    """keys: a name → the key of that client. Empty: loopback only."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {name: key.encode() for name, key in keys.items()}

    def client(self, request: Request) -> str | None:
        """The name of the client, or None if it may not be served."""
        if not self._keys:
            return LOCAL if _is_local(request) else None
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if scheme.lower() == "bearer" else b""
        # All keys are compared, so that the time says nothing about which one comes close.
        names = [name for name, known in self._keys.items() if hmac.compare_digest(given, known)]
        return names[0] if names else None


def _is_local(request: Request) -> bool:
    """A peer on this machine, that speaks for nobody else and came by this machine's own name.

    A reverse proxy on the same machine is a loopback peer too: it gives itself away by its headers or by the Host. So
    does a web page of somebody else's that makes a browser here post to us: by the Host, or by its Origin.
    """
    headers = request.headers
    if "x-forwarded-for" in headers or "forwarded" in headers or not _origin_is_local(headers):
        return False
    return request.client is not None and _is_loopback(request.client.host) and _host_is_local(headers)


def _host_is_local(headers: Headers) -> bool:
    return _is_loopback(_hostname(f"//{headers.get('host', '')}"))


def _origin_is_local(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is None or _is_loopback(_hostname(origin))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
