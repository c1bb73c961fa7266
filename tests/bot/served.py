"""The whole application in this process behind a real uvicorn, and gunicorn with several processes, for tests."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from bot.http import Http
from bot.playground import Config, Playground, start_playground
from bot.playground.people import Deed, perform
from bot.settings import Settings
from bot.web import create_app
from tests.conftest import free_port, wait_until

ROOT = Path(__file__).parents[2]
TOKEN = "123456:a-token-of-tests"
BOT = "123456"
SECRET = "a-secret"
SECRET_HEADER = {"X-Telegram-Bot-Api-Secret-Token": SECRET}


@asynccontextmanager
async def telegram(token: str = TOKEN) -> AsyncIterator[Playground]:
    """The stand-in, which repeats failed webhook calls a hundred times as fast as Telegram."""
    running = await start_playground(config=Config(token=token, retry_speed=100.0))
    try:
        yield running
    finally:
        await running.close()


def settings_for(telegram_url: str, redis_url: str | None = None, **more: Any) -> Settings:
    given = {"telegram_token": TOKEN, "telegram_api_url": telegram_url, "use_redis_queue": redis_url is not None}
    if redis_url is not None:
        given["redis_url"] = redis_url
    return Settings(_env_file=None, **{**given, **more})


@asynccontextmanager
async def listening(app: ASGIApp, port: int = 0, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """The app behind a real server on loopback, and a client of it."""
    config = uvicorn.Config(
        app, port=port, http=Http, log_config=None, proxy_headers=False, ws="none", root_path=root_path
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        serving = asyncio.create_task(server.serve([listener]))
        await wait_until(lambda: server.started or serving.done(), "uvicorn to start")
        if serving.done():
            serving.result()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def application(settings: Settings, port: int = 0) -> AsyncIterator[httpx.AsyncClient]:
    """The whole application, ready."""
    async with listening(create_app(settings), port) as client:

        async def ready() -> bool:
            return (await client.get("/health/ready")).status_code == 200

        await wait_until(ready, "the application to be ready")
        yield client


class Gunicorn:
    """Real processes, as production has them. `log`: the file that their lines go to."""

    def __init__(
        self, directory: Path, telegram_url: str, redis_url: str | None, *, processes: int, **more: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "gunicorn.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(directory),
            "TELEGRAM_TOKEN": TOKEN,
            "TELEGRAM_API_URL": telegram_url,
            "BIND": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": str(processes),
            **({"USE_REDIS_QUEUE": "true", "REDIS_URL": redis_url} if redis_url else {"USE_REDIS_QUEUE": "false"}),
            **more,
        }

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "gunicorn")]
        with self.log.open("ab") as log:
            self.master = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def stop(self) -> None:
        self.master.terminate()
        self.master.wait(timeout=60)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@asynccontextmanager
async def processes(gunicorn: Gunicorn) -> AsyncIterator[httpx.AsyncClient]:
    """Gunicorn, started, ready and stopped in the end; and a client of it."""
    gunicorn.start()
    try:
        async with httpx.AsyncClient(base_url=gunicorn.url, timeout=20) as client:

            async def ready() -> bool:
                assert gunicorn.master.poll() is None, gunicorn.log.read_text()
                try:
                    return (await client.get("/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(ready, "gunicorn to be ready", timeout=60)
            yield client
    finally:
        await asyncio.to_thread(gunicorn.stop)


def metric(text: str, name: str, **labels: str) -> float | None:
    """A sample of a page of metrics; None if it isn't there."""
    wanted = "".join(f'(?=.*{key}="{value}")' for key, value in labels.items())
    found = re.search(rf"^telequeue_{name}(?:{{{wanted}[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def say(playground: Playground, chat: int, text: str, *, user: int = 0) -> int:
    """Somebody writes to the bot; returns the update's id."""
    bot = playground.world.bots[int(BOT)]
    return perform(playground.world, bot, Deed(chat=chat, user=user, text=text)).update_id


def sent_texts(playground: Playground, chat: int | None = None) -> list[str]:
    """The texts that arrived at Telegram, in order."""
    return [call.text for call in playground.world.ledger.select(method="sendMessage", chat=chat)]


def calls(playground: Playground, method: str) -> int:
    """How often a method was called."""
    return sum(1 for _ in playground.world.ledger.select(method=method))
