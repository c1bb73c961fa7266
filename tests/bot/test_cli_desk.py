"""The operator's commands, against the whole application with the shared queue."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from bot.cli import main
from bot.playground import Playground
from bot.playground.faults import Fault
from queueing.limits import OFF
from queueing.message import Message
from tests.bot.handled import started_inbox
from tests.bot.served import BOT, ROOT, application, sent_texts, settings_for
from tests.conftest import wait_until

Run = Callable[..., Awaitable[str]]
TOO_LONG = "x" * 5000


@pytest.fixture
async def client(playground: Playground, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with application(settings_for(playground.url, redis_url, rate_chat=OFF)) as client:
        yield client


@pytest.fixture
def run(client: httpx.AsyncClient, tmp_path: Path) -> Run:
    return runs(client, tmp_path)


def runs(client: httpx.AsyncClient, tmp_path: Path) -> Run:
    """Runs `telequeue` with arguments: its standard output or, with another exit `code` expected, its error."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "BIND": f"127.0.0.1:{client.base_url.port}"}

    async def run(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-c", "from bot.cli import main; main(prog_name='telequeue')", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == code, errors.decode()
        return (errors if code else output).decode()

    return run


async def send(client: httpx.AsyncClient, text: str) -> str:
    return str((await client.post("/api/v1/messages", json={"chat_id": 42, "text": text})).json()["id"])


async def told(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    return dict((await client.get(f"/api/v1/messages/{id}")).json())


async def becomes(client: httpx.AsyncClient, id: str, status: str) -> None:
    async def arrived() -> bool:
        return bool((await told(client, id))["status"] == status)

    await wait_until(arrived, f"{id} to be {status}")


async def test_dead_letters(run: Run, client: httpx.AsyncClient) -> None:
    ids = [await send(client, TOO_LONG) for _ in range(2)]
    for id in ids:
        await becomes(client, id, "dead")
    listed = (await run("dead", "list", "--limit", "1")).splitlines()
    assert re.fullmatch(rf"\S+Z  {ids[1]}  bad_request: .*too long.*", listed[0])
    assert re.fullmatch(rf"{ids[1]} is dead: .*too long.*\n", await run("why", ids[1]))
    older = re.fullmatch(r"older ones: telequeue (dead list --limit 1 --before \S+)", listed[1])
    assert older
    assert ids[0] in await run(*older[1].split(" "))
    assert [letter["id"] for letter in json.loads(await run("dead", "list", "--json"))["dead"]] == ids[::-1]
    shown = await run("dead", "show", ids[0])
    assert re.search(r"^reason +bad_request$", shown, re.MULTILINE)
    assert re.search(r"^\S+Z  bad_request: .*too long", shown, re.MULTILINE)
    assert json.loads(await run("dead", "show", ids[0], "--json"))["id"] == ids[0]

    await run("pause", "--all")
    assert await run("dead", "replay", "--head", *ids) == "2 replayed\n"
    assert (await told(client, ids[0]))["waiting"]["ahead"] == 0
    assert (await told(client, ids[1]))["waiting"]["ahead"] == 1
    await run("resume", "--all")
    for id in ids:
        await becomes(client, id, "dead")
    assert json.loads(await run("dead", "replay", "--all", "--json")) == {"replayed": 2}
    for id in ids:
        await becomes(client, id, "dead")
    assert await run("dead", "drop", ids[0]) == "1 dropped\n"
    assert f"no dead letter with the id {ids[0]}\n" in await run("dead", "drop", *ids, code=1)
    assert await run("dead", "list") == ""
    assert await run("dead", "drop", "--all") == "0 dropped\n"
    assert await run("dead", "list") == ""
    assert "no dead letter" in await run("dead", "show", ids[0], code=1)


async def test_dead_updates_are_counted_listed_shown_replayed_and_dropped(run: Run, redis_url: str) -> None:
    async with started_inbox(redis_url) as inbox:
        odd = {"update": {"update_id": 5, "message": {"chat": "nonsense"}}}
        await inbox.enqueue([Message(bot=BOT, chat="42", id=f"u{number}", body=odd) for number in (1, 2)])

    async def counted() -> bool:
        return re.search(r"^updates +0 \(2 dead\)$", await run("stats"), re.MULTILINE) is not None

    await wait_until(counted, "both to be dead letters")
    assert await run("dead", "list") == ""
    first = await run("dead", "list", "--updates", "--limit", "1")
    older = re.search(r"^older ones: telequeue (dead list --updates --limit 1 --before \S+)$", first, re.MULTILINE)
    assert older
    ids = [line.split()[1] for line in (first + await run(*older[1].split(" "))).splitlines() if "malformed" in line]
    assert sorted(ids) == ["u1", "u2"]
    assert re.search(r"^reason +malformed$", await run("dead", "show", "--updates", "u1"), re.MULTILINE)
    assert "no dead letter" in await run("dead", "show", "u1", code=1)
    assert await run("dead", "drop", "--updates", "u1") == "1 dropped\n"
    assert await run("dead", "replay", "--updates", "u2") == "1 replayed\n"
    await wait_until(lambda: run("dead", "list", "--updates"), "the replayed to be dead again")
    assert await run("dead", "drop", "--updates", "--all") == "1 dropped\n"


async def test_a_send_that_is_told_of_its_failure_has_failed(
    playground: Playground, redis_url: str, tmp_path: Path
) -> None:
    async with application(settings_for(playground.url, redis_url, sync_message_processing=True)) as client:
        run = runs(client, tmp_path)
        assert "is sent" in await run("send", "42", "hello")
        assert "is dead: " in (said := await run("send", "42", TOO_LONG, code=1))
        assert "too long" in said


async def test_what_any_program_pushed_leaves_the_terminal_alone(run: Run, redis: Redis) -> None:
    await redis.rpush("telegram_messages", "\x1b]0;title\x07 \x9b2J\nno JSON")

    async def listed() -> list[str]:
        return (await run("dead", "list")).split()

    await wait_until(listed, "the dead letter")
    shown = await run("dead", "show", (await listed())[1])
    assert re.search(r"^element +\\x1b\]0;title\\x07 \\x9b2J\\x0ano JSON$", shown, re.MULTILINE)


async def test_a_message_held_in_doubt_waits_for_a_person(
    run: Run, client: httpx.AsyncClient, playground: Playground
) -> None:
    playground.world.faults.add(Fault(kind="reset_after", method="sendMessage", count=1), None)
    sent = json.loads(await run("send", "42", "perhaps", "--uncertain", "hold", "--json"))
    await becomes(client, sent["id"], "uncertain")
    assert re.search(r"^status +uncertain: it may have arrived", await run("status", sent["id"]), re.MULTILINE)
    assert re.match(rf"\S+Z  {sent['id']}  uncertain: ", await run("dead", "list"))
    again = json.loads(await run("send", "42", "twice", "--uncertain", "resend", "--json"))
    await becomes(client, again["id"], "sent")
    assert await run("dead", "replay", sent["id"]) == "1 replayed\n"
    await becomes(client, sent["id"], "sent")
    assert sent_texts(playground) == ["perhaps", "twice", "perhaps"]


async def test_pause_why_cancel_resume(run: Run, client: httpx.AsyncClient, playground: Playground) -> None:
    assert await run("pause", "--chat", "42", "--reason", "wait") == f"chat 42 of bot {BOT} is paused\n"
    ids = [await send(client, text) for text in ("a", "b")]

    async def explained() -> bool:
        return bool((await told(client, ids[1]))["waiting"]["reason"] == "paused")

    await wait_until(explained, "the message to be looked at")
    assert json.loads(await run("why", ids[1], "--json"))["waiting"]["reason"] == "paused"
    assert await run("why", ids[1]) == (
        f"{ids[1]} is pending and waits until somebody resumes what was paused; 1 before it\n"
    )
    assert await run("cancel", ids[0]) == f"{ids[0]} is cancelled\n"
    assert await run("resume", "--chat", "42") == f"chat 42 of bot {BOT} is not paused any more\n"
    await becomes(client, ids[1], "sent")
    assert await run("why", ids[1]) == f"{ids[1]} is sent\n"
    assert sent_texts(playground) == ["b"]
    assert "too late" in await run("cancel", ids[1], code=1)


async def test_why_tells_of_a_refused_token_in_words(
    run: Run, client: httpx.AsyncClient, playground: Playground
) -> None:
    await becomes(client, await send(client, "it works"), "sent")
    playground.world.faults.add(Fault(kind="unauthorized", bot=int(BOT)), None)
    id = await send(client, "not any more")

    async def explained() -> bool:
        waiting = (await told(client, id))["waiting"]
        return bool(waiting and waiting["reason"] == "unauthorized")

    await wait_until(explained, "the token to be refused")
    assert "since Telegram refuses its bot's token" in await run("why", id)


async def test_what_can_be_paused(run: Run, redis: Redis) -> None:
    assert await run("pause", "--chat", "-2001", "--bot", "7") == "chat -2001 of bot 7 is paused\n"
    assert await run("pause", "--bot", "7") == "bot 7 is paused\n"
    assert json.loads(await run("pause", "--all", "--json")) == {"bot": None, "chat_id": None, "paused": True}
    assert sorted(await redis.hkeys("{telegram_messages}:paused")) == ["hand *", "hand 7", "hand 7:-2001"]
    assert await run("resume", "--all") == "everything is not paused any more\n"
    assert await run("resume", "--bot", "7") == "bot 7 is not paused any more\n"
    assert await redis.hkeys("{telegram_messages}:paused") == ["hand 7:-2001"]


WRONG = [
    ("pause",),
    ("pause", "--all", "--bot", "7"),
    ("resume",),
    ("dead", "drop"),
    ("dead", "drop", "--all", "x"),
    ("dead", "replay"),
    ("dead", "show"),
    ("dead", "list", "--limit", "0"),
    ("dead", "fly"),
    ("why",),
    ("cancel",),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(main, arguments, prog_name="telequeue")
    assert ended.exit_code == 2
    assert "Usage: telequeue" in ended.stderr


def usage(*arguments: str) -> str:
    ended = CliRunner().invoke(main, [*arguments, "--help"], prog_name="telequeue")
    assert ended.exit_code == 0
    assert f"Usage: {' '.join(('telequeue', *arguments))}" in ended.stdout
    return ended.stdout


def test_help() -> None:
    for command in ("why", "cancel", "pause", "resume", "dead"):
        assert usage(command)
        assert re.search(rf"^  {command} ", usage(), re.MULTILINE)
    for command in ("list", "show", "replay", "drop"):
        assert usage("dead", command)
        assert re.search(rf"^  {command} ", usage("dead"), re.MULTILINE)
