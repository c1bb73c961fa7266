"""`telequeue broadcast`: one text to many chats."""

import json
import sys
import time
from typing import Any, TextIO

import click

from bot.terminal import ask, fail, plain, quoted, with_json, with_url

_LOOK_EVERY = 1.0
_WIDTH = 30  # of the bar, in characters


class _TextOrCommand(click.Group):
    """Its first argument is a text, unless it is a command's name; one of these as a text comes behind `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_TextOrCommand)
def broadcast() -> None:
    """Send one text to many chats: telequeue broadcast TEXT --to subscribers.

    The first argument is the text, or one of the commands; to send such a word, put -- before it. Which
    way: telequeue broadcast start --help.
    """


# A text may begin with a minus sign.
@broadcast.command(context_settings={"ignore_unknown_options": True})
@click.argument("text")
@click.option("--to", type=click.Choice(["subscribers"]), help="All who subscribed to the bot.")
@click.option("--chats", type=click.File(encoding="utf-8"), help="A file with a chat a line; -: standard input.")
@click.option("--parse-mode", type=click.Choice(["HTML", "MarkdownV2"]), help="How the text is marked up.")
@click.option("--wait", is_flag=True, help="Show how it goes on, and return when it is over.")
@with_url
@with_json
def start(
    text: str,
    to: str | None,
    chats: TextIO | None,
    parse_mode: str | None,
    wait: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Send TEXT to each of many chats, once. (The word start may be left out.)"""
    if (to is None) == (chats is None):
        raise click.UsageError("say --to subscribers, or name --chats")
    body: dict[str, Any] = {"text": text} | ({"kwargs": {"parse_mode": parse_mode}} if parse_mode else {})
    if chats is None:
        body["to"] = to
    else:
        body["chats"] = _read(chats)
        if not body["chats"]:
            raise click.UsageError("--chats: there is no chat in it")
    answer = ask(url, "/api/v1/broadcasts", body)
    if wait:
        answer = _wait(answer, url, quiet=as_json)
    if as_json:
        click.echo(json.dumps(answer))
    elif wait:
        click.echo(_line(answer))
    else:
        id = answer["id"]
        click.echo(f"{id} goes to {answer['total']} chats; follow it with: telequeue broadcast show {id}")
    if wait and (answer["status"] == "cancelled" or (answer["total"] and not answer["sent"])):
        fail(f"{answer['id']} is {answer['status']}, and {answer['sent']} of {answer['total']} were sent")


@broadcast.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@with_url
@with_json
def show(id: str, url: str | None, as_json: bool) -> None:
    """Show how far the broadcast ID is."""
    answer = ask(url, f"/api/v1/broadcasts/{quoted(id)}")
    if as_json:
        click.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        if value is not None:
            click.echo(f"{name:<12} {plain(value)}")


@broadcast.command("list")
@with_url
@with_json
def list_latest(url: str | None, as_json: bool) -> None:
    """List the broadcasts of the last 30 days, the newest first, a hundred at most."""
    answer = ask(url, "/api/v1/broadcasts")
    if as_json:
        click.echo(json.dumps(answer))
        return
    for one in answer["broadcasts"]:
        click.echo(f"{one['started_at']}  {one['id']}  {_line(one)}")


@broadcast.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@with_url
@with_json
def cancel(id: str, url: str | None, as_json: bool) -> None:
    """Cancel the broadcast ID: what has not left is not sent."""
    answer = ask(url, f"/api/v1/broadcasts/{quoted(id)}", method="DELETE")
    click.echo(json.dumps(answer) if as_json else _line(answer))


def _read(chats: TextIO) -> list[str]:
    try:
        return [name for line in chats if (name := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--chats: {error}") from None


def _wait(answer: dict[str, Any], url: str | None, *, quiet: bool) -> dict[str, Any]:
    """Asks until it is over. On a terminal a line shows how far it is, unless `quiet`."""
    shows = not quiet and sys.stderr.isatty()
    try:
        while answer["waiting"] or answer["status"] not in ("done", "cancelled"):
            if shows:
                click.echo(f"\r{_bar(answer)}\x1b[K", nl=False, err=True)
            time.sleep(_LOOK_EVERY)
            answer = ask(url, f"/api/v1/broadcasts/{quoted(answer['id'])}")
    except KeyboardInterrupt:
        fail(f"it goes on without you; to stop it: telequeue broadcast cancel {answer['id']}")
    finally:
        if shows:
            click.echo("\r\x1b[K", nl=False, err=True)
    return answer


def _bar(answer: dict[str, Any]) -> str:
    ended = answer["total"] - answer["waiting"]
    full = _WIDTH * ended // max(1, answer["total"])
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {_line(answer)}"


def _line(answer: dict[str, Any]) -> str:
    counts = [f"{answer[name]} {name}" for name in ("blocked", "failed", "cancelled", "expired") if answer[name]]
    return ", ".join([f"{answer['status']}: {answer['sent']} of {answer['total']} sent", *counts])
