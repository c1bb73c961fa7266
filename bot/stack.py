"""`telequeue up`: the queue's server, a local Telegram where no token is set, and gunicorn, as one."""

import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from bot import embedded
from bot.children import Child
from bot.client import Unreachable, base_url, call
from bot.lock import Lock
from bot.settings import Settings
from bot.stopping import graceful_seconds
from monitoring.logs import mask

DATA = ".telequeue"
PLAYGROUND_TOKEN = "8081:playground"  # noqa: S105  opens nothing but the stand-in on this machine
_PLAYGROUND_PORT = 8081
_PLAYGROUND_CHAT = 1001  # the stand-in's first chat, open from the start
CONFIG = Path(__file__).parent.parent / "gunicorn.conf.py"
_GUNICORN = "gunicorn"
_USAGE = 2  # the exit code for what is wrong with the settings
_PATIENCE = 5.0  # seconds after which a start that takes long says what it waits for
_GUNICORN_LIMIT = 20.0  # seconds over its own limit that gunicorn gets to stop
_PLAYGROUND_LIMIT = 10.0  # seconds
_SERVER_LIMIT = 60.0  # seconds; the server may have much to write
_TICK = 0.05


class StackError(Exception):
    """The stack cannot start, or cannot go on; str() is one line."""


class Refused(StackError):
    """The settings are wrong, and gunicorn has said so."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came while it was starting."""


class Stack:
    """All that `up` runs. Data and locks are in `directory`."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._alone = Lock(directory / "up.lock")
        self._held_by_children = Lock(directory / "children.lock")
        self._children: list[tuple[Child, float]] = []
        # Not said, it is the shared queue: here it costs nobody the trouble of setting up a server.
        self._shared = settings.use_redis_queue or "use_redis_queue" not in settings.model_fields_set
        self._metrics = directory / "metrics"
        self._environ = {
            **os.environ,
            "WEB_CONCURRENCY": str(settings.web_concurrency),
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics),
        }
        self._server: Child | None = None
        self._redis_port: int | None = None
        self._chat_page: str | None = None
        self._interrupts = 0

    def run(self) -> int:
        """Starts, waits for the end, stops. Returns the exit code: 0 after Ctrl-C or SIGTERM, 1 when it went wrong, 2
        when the settings are wrong."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        try:
            self._take_directory()
            self._require_address()
            self._start_server()
            self._start_playground()
            self._start_gunicorn()
            self._await_ready()
            self._welcome()
            self._watch()
        except Interrupted:
            self._stop()
            return 0
        except Refused:
            self._stop()
            return _USAGE
        except (StackError, embedded.NoServer) as error:
            _say(click.style(f"telequeue: {error}", fg="red"), err=True)
            self._stop()
            return 1

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupts += 1

    def _take_directory(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._directory.chmod(0o700)  # one of an earlier run too: the server's data in it holds tokens
            if not self._alone.take():
                raise StackError(f"already running in this directory (process {self._alone.holder()})")
            free = self._held_by_children.take()
        except OSError as error:
            raise StackError(f"{error.filename or self._directory}: {error.strerror}") from None
        if not free:
            _say("What an earlier run left is still finishing its sends …")
            if not self._wait(self._held_by_children.take, self._gunicorn_limit):
                raise StackError("processes of an earlier run do not end: look for gunicorn and valkey-server")
        shutil.rmtree(self._metrics, ignore_errors=True)  # of a run that was killed

    def _require_address(self) -> None:
        host, port = self._settings.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                reason = error.strerror or str(error)
                reason = f"BIND={self._settings.bind}: {reason.lower()}; stop what is there, or choose another address"
                raise StackError(reason) from None

    def _start_server(self) -> None:
        settings = self._settings
        if not self._shared:
            _say("Queue     within each process (USE_REDIS_QUEUE=false): what waits is kept at a clean stop")
            return
        self._environ["USE_REDIS_QUEUE"] = "true"
        if settings.names_redis:
            _say(f"Queue     {mask(settings.redis_dsn)}{self._share}")
            return
        binary = embedded.find_server()
        port = embedded.free_port(embedded.DEFAULT_PORT)
        self._redis_port = port
        self._server = embedded.start_server(binary, self._directory, port, keep=[self._held_by_children.number])
        self._children.append((self._server, _SERVER_LIMIT))
        self._environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        where = f"{Path(binary).name} on 127.0.0.1:{port}, data in {self._directory.name}/"
        if port != embedded.DEFAULT_PORT:
            where += f" ({embedded.DEFAULT_PORT} is taken)"
        _say(f"Queue     {where}{self._share}")
        if not self._wait(lambda: embedded.is_up(port), _PATIENCE):
            _say("          it reads the queue that was left …")
            self._wait(lambda: embedded.is_up(port))

    @property
    def _share(self) -> str:
        percent = self._settings.redis_queue_percent
        return "" if percent == 100 else f", for {percent} % of the chats; for the others within each process"

    def _start_playground(self) -> None:
        if self._settings.telegram_token is not None:
            _say(f"Telegram  {self._settings.telegram_api_url}, bot {self._settings.bot_id}")
            return
        port = embedded.free_port(_PLAYGROUND_PORT)
        address = f"127.0.0.1:{port}"
        # -P: not a bot.py of somebody's bot in the working directory
        command = [sys.executable, "-P", "-m", "bot.playground", "--bind", address, "--token", PLAYGROUND_TOKEN]
        child = Child("the playground", command, keep=[self._held_by_children.number], silent=True)
        self._children.append((child, _PLAYGROUND_LIMIT))
        self._wait(lambda: embedded.is_open(port))
        url = f"http://{address}"
        self._chat_page = url
        self._environ |= {
            "TELEGRAM_TOKEN": PLAYGROUND_TOKEN,
            "TELEGRAM_API_URL": url,
            "WEBHOOK_URL": base_url(self._settings),
            "WEBHOOK_SECRET": secrets.token_urlsafe(24),
            # Where the processes of a bot keep what they share without Redis. Each stand-in's bot is one of its own,
            # with the token of all: in the machine's directory, only the first of two would ever get an update.
            "TMPDIR": str(self._directory),
        }
        _say("Telegram  a local stand-in, since TELEGRAM_TOKEN is not set")

    def _start_gunicorn(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "--config", str(CONFIG)]
        child = Child(_GUNICORN, command, environ=self._environ, keep=[self._held_by_children.number])
        self._children.append((child, self._gunicorn_limit))
        _say(f"Bot       {self._settings.web_concurrency} processes on {self._settings.bind}")

    def _await_ready(self) -> None:
        if self._wait(lambda: not self._findings(), _PATIENCE):
            return
        _say(click.style(f"Not ready yet: {'; '.join(self._findings())}. Waiting …", fg="yellow"))
        self._wait(lambda: not self._findings())

    def _findings(self) -> list[str]:
        """What /health/ready finds wrong, in its words."""
        try:
            status, report = call(base_url(self._settings), "/health/ready")
        except Unreachable as error:
            return [str(error)]
        if status == 200:
            return []
        checks = report.get("checks", {})
        return [f"{name}: {finding}" for name, finding in checks.items() if finding != "ok"] or [str(report)]

    def _welcome(self) -> None:
        chat = str(_PLAYGROUND_CHAT) if self._chat_page else "CHAT_ID"
        base = base_url(self._settings)
        _say("")
        if self._chat_page:
            _say(f"  Talk to the bot     {click.style(self._chat_page + '/', bold=True)}")
        else:
            _say("  Talk to the bot     in Telegram")
        _say(f"  Its health          {click.style(base + '/health', bold=True)}")
        _say(f"  Push a message      {_telequeue()} send {chat} hello")
        if self._redis_port:
            port = "" if self._redis_port == embedded.DEFAULT_PORT else f" -p {self._redis_port}"
            element = f'{{"chat_id":{chat},"text":"hello"}}'
            _say(f"  or, as any program  {embedded.client_command()}{port} RPUSH telegram_messages '{element}'")
        _say(f"  Stop                Ctrl-C{'; nothing is lost' if self._shared else ''}")
        _say("")

    def _watch(self) -> NoReturn:
        while True:
            self._wait(lambda: False)

    def _wait(self, condition: Callable[[], bool], limit: float | None = None) -> bool:
        """Whether the condition came to hold within `limit` seconds (None: for ever).

        Raises Interrupted, and StackError if a child ends meanwhile: none of them may.
        """
        deadline = None if limit is None else time.monotonic() + limit
        while deadline is None or time.monotonic() < deadline:
            if self._interrupts:
                raise Interrupted
            for child, _ in self._children:
                if child.exit_code is not None:
                    if child.name == _GUNICORN and child.exit_code == _USAGE:
                        raise Refused
                    raise StackError(self._obituary(child))
            if condition():
                return True
            time.sleep(_TICK)
        return False

    def _obituary(self, child: Child) -> str:
        code = child.exit_code or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = embedded.last_words(self._directory) if child is self._server else ""
        return f"{child.name} {how}{': ' + words if words else ''}; everything is stopped"

    @property
    def _gunicorn_limit(self) -> float:
        return graceful_seconds(self._settings) + _GUNICORN_LIMIT

    def _stop(self) -> None:
        """Ends the children in the reverse order: each may need those before it until its end."""
        if not self._children:
            return
        before = self._interrupts
        _say("\nStopping: sends under way are finished first; Ctrl-C again hurries …")
        for child, limit in reversed(self._children):
            child.send(signal.SIGTERM)
            deadline = time.monotonic() + limit
            while child.exit_code is None and time.monotonic() < deadline:
                if self._interrupts > before:
                    # to gunicorn this means two more seconds; the others don't take long anyway
                    child.send(signal.SIGINT)
                    before = self._interrupts
                time.sleep(_TICK)
            child.kill()
        _say("Stopped. What was not sent yet is kept for the next start." if self._shared else "Stopped.")


def _telequeue() -> str:
    program = Path(sys.argv[0])
    with suppress(ValueError):
        return str(program.relative_to(Path.cwd()))
    return str(program)


def _say(line: str, *, err: bool = False) -> None:
    # The terminal may be gone (that is one way to be stopped); there is still work to do.
    with suppress(OSError):
        click.echo(line, err=err)
