"""The command line, `telequeue`. Exit codes: 0 done, 1 failed, 2 wrong usage or settings."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bot.broadcast_cli import broadcast
from bot.settings import load_or_exit
from bot.terminal import ask, fail, plain, quoted, with_json, with_url


# No short options: an id or a text may begin with a minus sign, and any of its letters would be taken for one.
@click.group(context_settings={"max_content_width": 100})
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


@main.command()
@click.option(
    "--messages", type=click.IntRange(1, 200_000), default=10_000, show_default=True, help="How many to send."
)
@with_json
def bench(messages: int, as_json: bool) -> None:
    """Measure how many messages a second this machine sends.

    With WEB_CONCURRENCY processes of QUEUE_WORKERS coroutines, on an embedded Valkey and a local Telegram that are only
    there for it: your queue and your bot have no part in it.
    """
    from bot.bench import BenchFailed, measure  # not needed by the other commands
    from bot.embedded import NoServer

    settings = load_or_exit()
    try:
        figures = measure(messages, settings.web_concurrency, settings.queue_workers)
    except (BenchFailed, NoServer) as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(figures.as_json()))
    else:
        click.echo(f"{figures.rate:,.0f} messages a second: {figures.messages:,} in {figures.seconds:.2f} s")
        click.echo(
            f"{figures.processes} processes of {figures.workers} coroutines, which share this machine with Valkey"
        )
        click.echo("and with the local Telegram; no limit was in their way, and nothing was switched off.")


# A group's id begins with a minus sign; without the setting it would be taken for an option.
@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("chat")
@click.argument("text")
@click.option("--priority", type=click.Choice(["interactive", "normal", "bulk"]), help="Default: normal.")
@click.option(
    "--uncertain",
    type=click.Choice(["resend", "hold"]),
    help="What to do if nobody knows whether it arrived; default: UNCERTAIN_SENDS.",
)
@with_url
@with_json
def send(chat: str, text: str, priority: str | None, uncertain: str | None, url: str | None, as_json: bool) -> None:
    """Queue TEXT for CHAT, a number or an @name."""
    optional = {"priority": priority, "uncertain": uncertain}
    body = {"chat_id": chat, "text": text} | {name: value for name, value in optional.items() if value}
    answer = ask(url, "/api/v1/messages", body)
    failed = answer["status"] in _FAILED  # which only SYNC_MESSAGE_PROCESSING can know
    if as_json:
        click.echo(json.dumps(answer))
    elif not failed:
        click.echo(f"{answer['id']} is {answer['status']}; follow it with: telequeue status {answer['id']}")
    if failed:
        fail(_ended(answer))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@with_url
@with_json
def status(id: str, url: str | None, as_json: bool) -> None:
    """Show what became of the message ID."""
    answer = ask(url, f"/api/v1/messages/{quoted(id)}")
    if as_json:
        click.echo(json.dumps(answer))
        return
    words = {"status": _STATES.get(answer["status"], answer["status"]), "waiting": _waits(answer["waiting"])}
    for name, value in (answer | words).items():
        if value is not None:
            click.echo(f"{name:<20} {plain(value)}")


@main.command()
@with_url
@with_json
def stats(url: str | None, as_json: bool) -> None:
    """Show how much waits, and who works on it."""
    answer = ask(url, "/api/v1/queue")
    if as_json:
        click.echo(json.dumps(answer))
        return
    click.echo(f"to be sent   {_depth(answer)}")
    click.echo(f"sent so far  {answer['total_processed']}")
    if "updates" in answer:
        click.echo(f"updates      {_depth(answer['updates'])}")
    click.echo(f"workers      {answer['total_workers']}, {answer['workers_per_process']} in each process")
    for process in answer["processes"]:
        click.echo(f"  process {process['pid']:<8} {process['inflight']:>3} in hand {process['sent']:>9} sent")


def _depth(queue: dict[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in queue["by_state"].items() if count)
    oldest = "" if queue.get("oldest_age") is None else f"; the oldest waits since {queue['oldest_age']:.1f} s"
    return f"{queue['queue_depth']}{f' ({states})' if states else ''}{oldest}"


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@with_url
@with_json
def why(id: str, url: str | None, as_json: bool) -> None:
    """Show what the message ID waits for, and until about when."""
    answer = ask(url, f"/api/v1/messages/{quoted(id)}")
    if as_json:
        click.echo(json.dumps({name: answer[name] for name in ("id", "status", "waiting")}))
    else:
        waits = _waits(answer["waiting"])
        click.echo(_ended(answer) if waits is None else f"{id} is {answer['status']} and waits {waits}")


def _ended(answer: dict[str, Any]) -> str:
    """What became of a message, with the reason if it was not sent."""
    why = f": {plain(answer['error'])}" if answer["status"] in _FAILED and answer["error"] else ""
    return f"{answer['id']} is {answer['status']}{why}"


_FAILED = ("dead", "cancelled", "expired", "uncertain")

_STATES = {
    "uncertain": "uncertain: it may have arrived, and is held until you say: telequeue dead replay, or dead drop",
}

_REASONS = {
    "ahead": "for those before it",
    "bot_limit": "for its bot's limit",
    "chat_limit": "for its chat's limit",
    "door": "for a process to look at it",
    "flood": "since Telegram asked for a pause (429)",
    "outage": "for Telegram, which fails or does not answer",
    "parent": "for another message that has to end before",
    "paused": "until somebody resumes what was paused",
    "retry": "for the next try",
    "schedule": "for the time it is meant for",
    "turn": "for its turn",
    "unauthorized": "since Telegram refuses its bot's token, which worked before",
}


def _waits(waiting: dict[str, Any] | None) -> str | None:
    """For what a message waits, in words."""
    if waiting is None:
        return None
    until = f", until about {waiting['until']}" if waiting["until"] else ""
    more = "more than " if waiting["more"] else ""
    ahead = f"; {more}{waiting['ahead']} before it" if waiting["ahead"] else ""
    return f"{_REASONS.get(waiting['reason'], waiting['reason'])}{until}{ahead}"


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@with_url
@with_json
def cancel(id: str, url: str | None, as_json: bool) -> None:
    """Cancel the message ID, if it has not left."""
    answer = ask(url, f"/api/v1/messages/{quoted(id)}", method="DELETE")
    click.echo(json.dumps(answer) if as_json else f"{id} is {answer['status']}")


_bot = click.option("--bot", metavar="NUMBER", help="A bot: the number before its token's colon.")
_chat = click.option("--chat", metavar="CHAT", help="A chat, of the configured bot unless --bot names another.")


@main.command()
@_bot
@_chat
@click.option("--all", "everything", is_flag=True, help="All bots.")
@click.option("--reason", default="", help="Why; shown to whoever looks.")
@with_url
@with_json
def pause(bot: str | None, chat: str | None, everything: bool, reason: str, url: str | None, as_json: bool) -> None:
    """Let nothing leave of a chat, of a bot, or at all, until it is resumed."""
    _set_pause("pause", _scope(bot, chat, everything) | {"reason": reason}, url, as_json)


@main.command()
@_bot
@_chat
@click.option("--all", "everything", is_flag=True, help="What `pause --all` paused; pauses of a bot or chat stay.")
@with_url
@with_json
def resume(bot: str | None, chat: str | None, everything: bool, url: str | None, as_json: bool) -> None:
    """End a pause, named as it was begun."""
    _set_pause("resume", _scope(bot, chat, everything), url, as_json)


def _scope(bot: str | None, chat: str | None, everything: bool) -> dict[str, str]:
    if everything == bool(bot or chat):
        raise click.UsageError("name a --bot or a --chat, or say --all")
    return {name: value for name, value in (("bot", bot), ("chat_id", chat)) if value}


def _set_pause(verb: str, scope: dict[str, str], url: str | None, as_json: bool) -> None:
    answer = ask(url, f"/api/v1/{verb}", scope)
    if as_json:
        click.echo(json.dumps(answer))
        return
    what = f"chat {answer['chat_id']} of bot {answer['bot']}" if answer["chat_id"] else f"bot {answer['bot']}"
    state = "paused" if answer["paused"] else "not paused any more"
    click.echo(f"{what if answer['bot'] else 'everything'} is {state}")


main.add_command(broadcast)


@main.group()
def dead() -> None:
    """Look at messages that will not be sent, send them after all, or drop them."""


_updates = click.option("--updates", is_flag=True, help="Of updates that no handler could handle, instead.")


def _query(**parameters: object) -> str:
    """The query of a path; of what is None or False, nothing."""
    given = [f"{name}={quoted(str(value))}" for name, value in parameters.items() if value]
    return "?" + "&".join(given) if given else ""


def _of(updates: bool) -> str | None:
    return "updates" if updates else None


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--before", metavar="NEXT", help="Older ones: what the page before this one ended with.")
@_updates
@with_url
@with_json
def list_dead(limit: int, before: str | None, updates: bool, url: str | None, as_json: bool) -> None:
    """List dead letters, the newest first."""
    answer = ask(url, f"/api/v1/dead{_query(limit=limit, before=before, of=_of(updates))}")
    if as_json:
        click.echo(json.dumps(answer))
        return
    for letter in answer["dead"]:
        click.echo(f"{letter['died_at']}  {letter['id']}  {letter['reason']}: {plain(letter['error'])}")
    if answer["next"]:
        of = " --updates" if updates else ""
        click.echo(f"older ones: telequeue dead list{of} --limit {limit} --before {answer['next']}")


@dead.command("show", context_settings={"ignore_unknown_options": True})
@click.argument("id")
@_updates
@with_url
@with_json
def show_dead(id: str, updates: bool, url: str | None, as_json: bool) -> None:
    """Show the dead letter ID: what was to be sent, or handled, and every attempt's error."""
    answer = ask(url, f"/api/v1/dead/{quoted(id)}{_query(of=_of(updates))}")
    if as_json:
        click.echo(json.dumps(answer))
        return
    history = answer.pop("history")
    for name, value in answer.items():
        if value is not None:
            first, *traceback = str(value).split("\n") if name == "error" else [value]
            click.echo(f"{name:<20} {plain(first)}")
            for line in traceback:
                click.echo(f"{'':<20} {plain(line)}")
    for line in history:
        click.echo(f"{line['at']}  {line['reason']}: {plain(line['error'])}")


_ids = click.argument("ids", nargs=-1, metavar="[ID]...")
_everything = click.option("--all", "everything", is_flag=True, help="All that are dead now.")


@dead.command("replay", context_settings={"ignore_unknown_options": True})
@_ids
@_everything
@click.option("--head", is_flag=True, help="Before what waits for the same chat, instead of behind it.")
@_updates
@with_url
@with_json
def replay_dead(
    ids: tuple[str, ...], everything: bool, head: bool, updates: bool, url: str | None, as_json: bool
) -> None:
    """Send dead letters after all, or have dead updates handled again; they keep their ids."""
    query = _query(head="true" if head else None, of=_of(updates))
    # At the head of a lane the last to come is the first to go.
    paths = {id: f"/{quoted(id)}/replay{query}" for id in (reversed(ids) if head else ids)}
    _with_dead(paths, f"/replay{query}", "POST", "replayed", everything=everything, url=url, as_json=as_json)


@dead.command("drop", context_settings={"ignore_unknown_options": True})
@_ids
@_everything
@_updates
@with_url
@with_json
def drop_dead(ids: tuple[str, ...], everything: bool, updates: bool, url: str | None, as_json: bool) -> None:
    """Forget dead letters for good."""
    query = _query(of=_of(updates))
    paths = {id: f"/{quoted(id)}{query}" for id in ids}
    _with_dead(paths, query, "DELETE", "dropped", everything=everything, url=url, as_json=as_json)


def _with_dead(
    paths: Mapping[str, str], all_path: str, method: str, verb: str, *, everything: bool, url: str | None, as_json: bool
) -> None:
    """Calls each id's path, or the one for all, and says how many dead letters it concerned.

    An id that is not there does not keep the others waiting: what broke off in its middle can be given again.
    """
    if everything == bool(paths):
        raise click.UsageError("name an ID or more, or say --all")
    done, unknown = 0, []
    for id, path in {"": all_path}.items() if everything else paths.items():
        answer = ask(url, f"/api/v1/dead{path}", method=method, known=everything)
        if answer is None:
            unknown.append(id)
        else:
            done += answer[verb]
    click.echo(json.dumps({verb: done}) if as_json else f"{done} {verb}")
    if unknown:
        fail(f"there is no dead letter with the id {', '.join(unknown)}")
