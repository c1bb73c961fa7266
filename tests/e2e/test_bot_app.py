"""BOT_APP: a module of somebody's own, in its own directory, on six processes; and what is said where it is bad."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bot.chat_server import chat_server
from tests.conftest import wait_until
from tests.e2e.conftest import BIN, CHECKOUT, TOKEN, Stack
from tests.e2e.talk import Talk

Eventually = Callable[..., Awaitable[None]]

BOT_MODULE = """
import os
from prometheus_client import Counter
from telegram import Update
from telegram.ext import ApplicationBuilder, CommandHandler

from helpers.words import GREETING

GREETED = Counter("greeted", "Those who were greeted")


async def hello(update: Update, context) -> None:
    GREETED.inc()
    await update.message.reply_text(f"{GREETING}, I am {context.bot_data['pid']}")


async def post_init(application) -> None:
    application.bot_data["pid"] = os.getpid()
    print("init", os.getpid(), application.running, flush=True)


async def post_stop(application) -> None:
    print("stop", os.getpid(), application.running, flush=True)


async def post_shutdown(application) -> None:
    print("shutdown", os.getpid(), application.running, flush=True)


async def setup(builder: ApplicationBuilder):
    builder.concurrent_updates(True).token("1:not-this-one")
    application = builder.post_init(post_init).post_stop(post_stop).post_shutdown(post_shutdown).build()
    application.add_handler(CommandHandler("hello", hello))
    return application


def broken(application) -> None:
    raise RuntimeError("a mistake of mine")
"""


def write_bot(directory: Path) -> Path:
    project = directory / "project"
    (project / "helpers").mkdir(parents=True)
    (project / "my_bot.py").write_text(BOT_MODULE)
    (project / "helpers" / "words.py").write_text("GREETING = 'Hello'\n")
    (project / "bot.py").write_text("raise RuntimeError('this is not the bot that telequeue consists of')\n")
    return project


async def test_a_bot_in_a_directory_of_its_own(stack: Stack, tmp_path: Path, eventually: Eventually) -> None:
    stack.cwd = write_bot(tmp_path)
    await stack.start_bot(BOT_APP="my_bot:setup")
    await eventually(lambda: stack.log().count("init ") == 6, "post_init in each process")
    talk = Talk(stack, 42)
    for _ in range(8):
        await talk.say("/hello")
    await talk.hears(*[r"Hello, I am \d+"] * 8)
    assert "greeted_total" in await stack.metrics()
    assert stack.log().count("builder.concurrent_updates() of BOT_APP changes nothing") == 1
    assert "not-this-one" not in stack.log()
    assert stack.master is not None
    stack.master.terminate()
    assert await asyncio.to_thread(stack.master.wait, 30) == 0
    log = stack.log()
    for what in ("init", "stop", "shutdown"):
        assert log.count(f"{what} ") == 6, log
        assert log.count(f"{what} ") == log.count(f"{' False'}") // 3


async def test_a_bot_that_relies_on_the_results_of_its_texts(stack: Stack) -> None:
    await stack.start_bot(BOT_APP="tests.e2e.bots.menus:setup", WAIT_FOR_SENDS="true")
    talk = Talk(stack, 42)
    await talk.open()
    for word in ("Soup", "Cake"):
        await talk.say(f"/start {word}")
        await talk.hears(f"The menu {word}.")
    await talk.press("Soup")
    await talk.hears("It was Soup.", "Message is not modified.*")
    await talk.press("Cake")
    await talk.hears("It was Cake.", "Message is not modified.*")


@pytest.mark.parametrize("shared", ["true", "false"])
async def test_handlers_that_wait_while_all_processes_end_do_not_take_it_for_a_refusal(
    stack: Stack, shared: str, eventually: Eventually
) -> None:
    processes = "6" if shared == "true" else "1"
    await stack.start_bot(
        BOT_APP="tests.e2e.bots.photo:setup", USE_REDIS_QUEUE=shared, WEB_CONCURRENCY=processes, RATE_CHAT="1/1s"
    )
    talk = Talk(stack, 42)
    await stack.fault(kind="flood", chat=42, retry_after=2, count=1)
    await talk.say("/photo")

    async def refused() -> bool:
        return (await stack.get("/playground/faults", stack.telegram))[0]["fired"] == 1

    await eventually(refused, "the photo to wait")
    for process in (await stack.queue())["processes"]:
        os.kill(process["pid"], signal.SIGTERM)
    await talk.hears("A photo.", "There it is.")
    await stack.ready(int(processes))
    await talk.hears_nothing_more()


def fails(stack: Stack, **environ: str) -> tuple[int, str]:
    """The exit code of gunicorn and what it says."""
    given = {
        "TELEGRAM_TOKEN": TOKEN,
        "TELEGRAM_API_URL": stack.telegram,
        "BIND": stack.url.removeprefix("http://"),
        "WEB_CONCURRENCY": "2",
        "PATH": os.environ["PATH"],
    }
    command = [str(BIN / "gunicorn"), "--config", str(CHECKOUT / "gunicorn.conf.py")]
    ended = subprocess.run(
        command, cwd=stack.cwd, env=given | environ, capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stderr


async def test_a_bot_that_is_not_there(stack: Stack, tmp_path: Path) -> None:
    stack.cwd = write_bot(tmp_path)
    code, said = await asyncio.to_thread(fails, stack, BOT_APP="my_bott:setup")
    where = stack.cwd
    assert said == f"telequeue: BOT_APP='my_bott:setup': there is no module my_bott, neither in {where} nor installed\n"
    assert code == 2
    code, said = await asyncio.to_thread(fails, stack, BOT_APP="bot:setup")
    assert "a module of yours needs another name" in said
    assert (code, said.count("\n")) == (2, 1)


async def test_a_function_that_raises_ends_it_all_once(stack: Stack, tmp_path: Path) -> None:
    stack.cwd = write_bot(tmp_path)
    code, said = await asyncio.to_thread(fails, stack, BOT_APP="my_bot:broken")
    assert code == 3
    assert "BOT_APP's function raised RuntimeError: a mistake of mine" in said
    assert "my_bot.py" in said
    assert said.count("Worker failed to boot") == 1


async def test_a_process_that_is_replaced_is_tried_again(stack: Stack, tmp_path: Path, eventually: Eventually) -> None:
    """The others go on, while whatever its function needs is away."""
    stack.cwd = tmp_path
    (tmp_path / "fickle.py").write_text(
        "from pathlib import Path\n"
        "def setup(application):\n"
        "    if Path('away').exists():\n"
        "        raise ConnectionError('my database is away')\n"
    )
    await stack.start_bot(BOT_APP="fickle:setup")
    (tmp_path / "away").touch()
    os.kill((await stack.queue())["processes"][0]["pid"], signal.SIGKILL)
    await eventually(lambda: stack.log().count("ConnectionError: my database is away") >= 4, "two tries")
    (tmp_path / "away").unlink()
    await stack.ready()


async def test_our_own_bot_with_a_chat_backend(stack: Stack) -> None:
    async with chat_server() as server:
        await stack.start_bot(CHAT_API_URL=server.url, CHAT_MODEL="small", CHAT_API_KEY="sk-of-the-tests")
        talk = Talk(stack, 42)
        await talk.say("/help")
        await talk.hears(r"(?s).*I answer any other text.*")
        await talk.say("how are you?")

        async def answered() -> bool:
            calls = (await stack.get("/playground/ledger?chat=42", stack.telegram))["calls"]
            said = [call["text"] for call in calls if call["status"] == 200]
            return said[-1] == "You said how are you?."

        await wait_until(answered, "the answer")
        assert server.keys == ["Bearer sk-of-the-tests"]
        await wait_until(lambda: shown_commands(stack), "the commands to be set")
        assert "sk-of-the-tests" not in stack.log()


async def test_an_answer_survives_its_process(stack: Stack) -> None:
    """The update is handled again, elsewhere: the same message grows on, and the answer comes once."""
    async with chat_server() as server:
        words = [f"word{n} " for n in range(24)]
        server.answer, server.pause = (lambda question: words), 0.25
        await stack.start_bot(CHAT_API_URL=server.url, CHAT_MODEL="small", RATE_CHAT="1/1s", RATE_GLOBAL="30/1s")
        pids = {process["pid"] for process in (await stack.queue())["processes"]}
        talk = Talk(stack, 42)
        await talk.say("at length, please")
        await wait_until(lambda: edits(stack, 2), "two pieces of the answer")
        os.kill(holder(server.peers[-1], pids), signal.SIGKILL)

        async def answered() -> bool:
            return [call["text"] for call in await taken(stack, "editMessageText")][-1] == "".join(words).strip()

        await wait_until(answered, "the answer", timeout=40)
        assert len(server.asked) == 2
        assert [call["text"] for call in await taken(stack, "sendMessage")] == ["…"]
        edited = {call["target_message_id"] for call in await taken(stack, "editMessageText")}
        assert len(edited) == 1
        await stack.ready()


def holder(port: int, pids: set[int]) -> int:
    """Which of the processes has the local end of a connection, as /proc knows it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (socket,) = (f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[9] != "0")
    (pid,) = (pid for pid in pids if socket in {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()})
    return pid


async def taken(stack: Stack, method: str) -> list[dict[str, Any]]:
    calls = (await stack.get(f"/playground/ledger?chat=42&method={method}", stack.telegram))["calls"]
    return [call for call in calls if call["status"] == 200]


async def edits(stack: Stack, count: int) -> bool:
    return len(await taken(stack, "editMessageText")) >= count


async def shown_commands(stack: Stack) -> bool:
    calls = (await stack.get("/playground/ledger?method=setMyCommands", stack.telegram))["calls"]
    return len(calls) == 1
