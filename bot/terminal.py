"""What the commands of the command line have in common: how they ask the HTTP API, and how they end."""

import re
import sys
from typing import Any, NoReturn

import click

from bot.client import TIMEOUT, TooSlow, Unreachable, base_url, call, first_key
from bot.settings import load_or_exit

with_url = click.option("--url", metavar="URL", help="Where telequeue answers; default: BIND of the settings.")
with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the HTTP API answers.")


def plain(value: object) -> str:
    """One line, without what would move a terminal's cursor or change its title: any program may have pushed it."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", str(value))


def quoted(id: str) -> str:
    from urllib.parse import quote

    return quote(id, safe="")


def ask(url: str | None, path: str, body: object = None, *, method: str | None = None, known: bool = True) -> Any:
    """The answer of the HTTP API to a GET, to a POST if there is a body, or to another method.

    One that is no success ends the program: its words on standard error, exit code 1. known: a 404 is none; else None.
    """
    settings = load_or_exit()
    if url is not None and not _is_url(url):
        raise click.UsageError("--url: expected http://host:port")
    try:
        base = (url or base_url(settings)).rstrip("/")
        # So that the server's own words for "the queue does not answer" arrive, or what it waits for.
        seconds = settings.redis_timeout + TIMEOUT + settings.sync_wait
        code, answer = call(base, path, body=body, key=first_key(settings), method=method, timeout=seconds)
    except TooSlow as error:
        fail(str(error))
    except Unreachable as error:
        fail(f"{error}; is it running? `telequeue up` starts it, BIND or --url says where it is")
    if code == 401:
        fail("the key was not accepted: API_KEYS here must hold one of the server's")
    if not isinstance(answer, dict) or (code >= 400 and "error" not in answer):
        fail(f"what answers there is no telequeue (HTTP status {code})")
    if code == 404 and not known:
        return None
    if code >= 400:
        fail(answer["error"])
    return answer


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:
        return False
    return bool(re.fullmatch("https?://[!-~]+", text) and host and port != 0)


def fail(reason: str) -> NoReturn:
    click.secho(f"telequeue: {reason}", fg="red", err=True)
    sys.exit(1)
