"""`telequeue broadcast`, against the whole application with the shared queue."""

import asyncio
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from bot.cli import main
from bot.playground import Playground
from bot.playground.faults import Fault
from queueing.limits import OFF
from tests.bot.served import BOT, ROOT, application, sent_texts, settings_for

Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def client(playground: Playground, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with application(settings_for(playground.url, redis_url, rate_chat=OFF, rate_global=OFF)) as client:
        yield client


@pytest.fixture
def run(client: httpx.AsyncClient, tmp_path: Path) -> Run:
    """Runs `telequeue broadcast`: its standard output or, with another exit `code` expected, its standard error."""

    async def run(*arguments: str, code: int = 0, stdin: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            *command(*arguments),
            cwd=tmp_path,
            env=environ(client),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate(stdin.encode())
        assert process.returncode == code, errors.decode()
        return (errors if code else output).decode()

    return run


def command(*arguments: str) -> list[str]:
    start = "from bot.cli import main; main(prog_name='telequeue')"
    return [sys.executable, "-c", start, "broadcast", *arguments]


def environ(client: httpx.AsyncClient) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "BIND": f"127.0.0.1:{client.base_url.port}"}


async def test_to_the_chats_of_a_file(run: Run, playground: Playground, tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("1\n\n 2 \n@news\n1\n")
    assert await run("-hello", "--chats", "chats", "--wait") == "done: 3 of 3 sent\n"
    assert sent_texts(playground) == ["-hello"] * 3
    begun = await run("--chats", "-", "--parse-mode", "HTML", "<b>hi</b>", stdin="5\n-6\n")
    found = re.fullmatch(r"(\S+) goes to 2 chats; follow it with: telequeue broadcast show \1\n", begun)
    assert found
    assert re.search(r"^total +2$", await run("show", found[1]), re.MULTILINE)
    assert json.loads(await run("show", found[1], "--json"))["text"] == "<b>hi</b>"
    listed = (await run("list")).splitlines()
    assert len(listed) == 2
    assert found[1] in listed[0]
    assert len(json.loads(await run("list", "--json"))["broadcasts"]) == 2


async def test_to_all_subscribers_of_whom_some_are_gone(run: Run, playground: Playground, redis: Redis) -> None:
    await redis.sadd(f"{{telegram_messages}}:subscribers:{BOT}", 1, 2, 3)
    playground.world.faults.add(Fault(kind="blocked", chat=2), 2)
    ended = json.loads(await run("hello", "--to", "subscribers", "--wait", "--json"))
    assert (ended["status"], ended["sent"], ended["blocked"]) == ("done", 2, 1)
    assert await run("--wait", "--to", "subscribers", "--", "show") == "done: 2 of 2 sent\n", "a text like a command"


async def test_cancel(run: Run, client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/pause", json={"bot": BOT})
    begun = json.loads(await run("hello", "--chats", "-", "--json", stdin="1\n2\n"))
    waiting = asyncio.create_task(run("again", "--chats", "-", "--wait", code=1, stdin="3\n"))
    assert re.fullmatch(r"cancelled: 0 of 2 sent.*\n", await run("cancel", begun["id"]))

    async def another() -> str | None:
        listed = json.loads(await run("list", "--json"))["broadcasts"]
        return next((one["id"] for one in listed if one["text"] == "again"), None)

    while not (id := await another()):
        assert not waiting.done()
    await run("cancel", id)
    await client.post("/api/v1/resume", json={"bot": BOT})
    assert "is cancelled, and 0 of 1 were sent" in await waiting
    assert "no broadcast with this id" in await run("cancel", "unheard-of", code=1)
    assert "no broadcast with this id" in await run("show", "unheard-of", code=1)


async def test_a_terminal_sees_how_it_goes_on(client: httpx.AsyncClient, tmp_path: Path) -> None:
    await client.post("/api/v1/pause", json={"bot": BOT, "chat_id": 2})
    (tmp_path / "chats").write_text("1\n2\n")
    terminal, other = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command("hello", "--chats", "chats", "--wait"), cwd=tmp_path, env=environ(client), stderr=other, stdout=other
    )
    os.close(other)
    shown = ""
    while "50" not in shown and "1 of 2 sent" not in shown:
        shown += (await asyncio.to_thread(os.read, terminal, 1000)).decode()
    assert re.search(r"\[#{15}\.{15}\] (sending|spreading): 1 of 2 sent", shown)
    await client.post("/api/v1/resume", json={"bot": BOT, "chat_id": 2})
    while "done: 2 of 2 sent" not in shown:
        shown += (await asyncio.to_thread(os.read, terminal, 1000)).decode()
    assert await process.wait() == 0
    os.close(terminal)


WRONG = [(), ("hello",), ("hello", "--to", "all"), ("hello", "--chats", "no-such-file"), ("show",), ("cancel",)]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(main, ["broadcast", *arguments], prog_name="telequeue")
    assert ended.exit_code == 2
    assert "Usage: telequeue broadcast" in ended.stderr


def test_help() -> None:
    for arguments in ([], ["start"], ["show"], ["list"], ["cancel"]):
        ended = CliRunner().invoke(main, ["broadcast", *arguments, "--help"], prog_name="telequeue")
        assert ended.exit_code == 0
        assert "Usage: telequeue broadcast" in ended.stdout
