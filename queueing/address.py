"""Where the queue's server is: one server, or a primary that Sentinels or the nodes of a cluster know."""

import re
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import parse_qsl, urlencode

_URL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]+)(?P<path>/[^?#]*)?"
    r"(?:\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::([0-9]{1,5}))?", re.ASCII)
_PATH = {
    "sentinel": re.compile(r"/(?P<service>[\w.-]+)(?:/(?P<db>[0-9]{1,5})?)?", re.ASCII),
    "cluster": re.compile(r"(?:/0?)?"),
}
_PORT = {"sentinel": 26379, "cluster": 6379}
_OF_SENTINELS = ("sentinel_username", "sentinel_password")

FORMS = (
    "redis://[[user]:password@]host[:port][/number], redis+sentinel://…host,host/service[/number] or "
    "redis+cluster://…host,host (rediss for TLS)"
)
"""What can be written, in words for whoever wrote something else."""


@dataclass(frozen=True, slots=True)
class Address:
    """kind:     `server`, or who knows the primary: `sentinel`, `cluster`.
    url:      a server's URL in the form redis-py reads: of the server itself or, but for the host, of the primary.
    hosts:    (host, port) of those who know the primary.
    service:  the name under which Sentinels know it.
    sentinel: user name and password for the Sentinels themselves, by redis-py's names.
    """

    kind: Literal["server", "sentinel", "cluster"]
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError for a Sentinel's or a cluster's URL that is none; leaves a server's to redis-py."""
        if "+" not in url.partition("://")[0]:
            return cls("server", url)
        found = _URL.fullmatch(url)
        kind: Literal["sentinel", "cluster"] = "cluster"
        if found and found["kind"].lower() == "sentinel":
            kind = "sentinel"
        path = _PATH[kind].fullmatch(found["path"] or "") if found else None
        if found is None or path is None:
            raise ValueError(FORMS)
        hosts = tuple(_host(text, _PORT[kind]) for text in found["hosts"].split(","))
        options = parse_qsl(found["query"] or "", keep_blank_values=True)
        if kind == "cluster" and dict(options).get("db", "0") != "0":
            raise ValueError(FORMS)  # a cluster has one database
        of_sentinels = {name: value for name, value in options if kind == "sentinel" and name in _OF_SENTINELS}
        others = urlencode([(name, value) for name, value in options if name not in of_sentinels])
        parts = path.groupdict()
        return cls(
            kind,
            f"{found['scheme']}://{found['user'] or ''}primary/{parts.get('db') or 0}{'?' if others else ''}{others}",
            hosts,
            parts.get("service") or "",
            tuple((name.removeprefix("sentinel_"), value) for name, value in of_sentinels.items()),
        )


def _host(text: str, port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    number = int(found[2] or port) if found else 0
    if found is None or not 1 <= number <= 65535:
        raise ValueError(FORMS)
    return found[1].strip("[]"), number
