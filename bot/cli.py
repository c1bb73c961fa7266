"""The command line, `telequeue`. Exit codes: 0 done, 1 failed, 2 wrong usage or settings."""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from bot.client import Unreachable, base_url, call, first_key
from bot.settings import load_or_exit

_url = click.option("--url", metavar="URL", help="Where telequeue answers; default: BIND of the settings.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the HTTP API answers.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="telequeue", message="%(prog)s %(version)s")
def main() -> None:
    """A Telegram bot whose processes share one queue.

    Settings come from the environment and from .env in the working directory; .env.example explains them.
    """


@main.command()
def up() -> None:
    """Run everything on this machine, until Ctrl-C.

    An embedded Valkey unless REDIS_URL or REDIS_HOST names a server, a local Telegram with a chat page unless
    TELEGRAM_TOKEN is set, and the bot's processes. Data is kept in .telequeue/ of the working directory.
    """
    from bot.stack import DATA, Stack  # not needed by the other commands

    sys.exit(Stack(load_or_exit(), Path.cwd() / DATA).run())


# A group's id begins with a minus sign; without the setting it would be taken for an option.
@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("chat")
@click.argument("text")
@click.option("--priority", type=click.Choice(["interactive", "normal", "bulk"]), help="Default: normal.")
@_url
@_as_json
def send(chat: str, text: str, priority: str | None, url: str | None, as_json: bool) -> None:
    """Queue TEXT for CHAT, a number or an @name."""
    body = {"chat_id": chat, "text": text} | ({"priority": priority} if priority else {})
    answer = _ask(url, "/api/v1/messages", body)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(f"{answer['id']} is {answer['status']}; follow it with: telequeue status {answer['id']}")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@_url
@_as_json
def status(id: str, url: str | None, as_json: bool) -> None:
    """Show what became of the message ID."""
    answer = _ask(url, f"/api/v1/messages/{_quoted(id)}")
    if as_json:
        click.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        if value is not None:
            click.echo(f"{name:<20} {value}")


@main.command()
@_url
@_as_json
def stats(url: str | None, as_json: bool) -> None:
    """Show how much waits, and who works on it."""
    answer = _ask(url, "/api/v1/queue")
    if as_json:
        click.echo(json.dumps(answer))
        return
    states = ", ".join(f"{count} {state}" for state, count in answer["by_state"].items() if count)
    oldest = "" if answer.get("oldest_age") is None else f"; the oldest waits since {answer['oldest_age']:.1f} s"
    click.echo(f"to be sent   {answer['queue_depth']}{f' ({states})' if states else ''}{oldest}")
    click.echo(f"sent so far  {answer['total_processed']}")
    click.echo(f"workers      {answer['total_workers']}, {answer['workers_per_process']} in each process")
    for process in answer["processes"]:
        click.echo(f"  process {process['pid']:<8} {process['inflight']:>3} in hand {process['sent']:>9} sent")


def _quoted(id: str) -> str:
    from urllib.parse import quote

    return quote(id, safe="")


def _ask(url: str | None, path: str, body: object = None) -> Any:
    """The answer of the HTTP API. One that is no success ends the program: its words on standard error, exit code 1."""
    settings = load_or_exit()
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.UsageError("--url: expected http://host:port")
    try:
        code, answer = call((url or base_url(settings)).rstrip("/"), path, body=body, key=first_key(settings))
    except Unreachable as error:
        _fail(f"{error}; is it running? `telequeue up` starts it, BIND or --url says where it is")
    if code == 401:
        _fail("the key was not accepted: API_KEYS here must hold one of the server's")
    if not isinstance(answer, dict) or (code >= 400 and "error" not in answer):
        _fail(f"what answers there is no telequeue (HTTP status {code})")
    if code >= 400:
        _fail(answer["error"])
    return answer


def _fail(reason: str) -> NoReturn:
    click.secho(f"telequeue: {reason}", fg="red", err=True)
    sys.exit(1)
