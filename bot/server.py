"""What gunicorn is told to be here: its settings, its log, its processes. gunicorn.conf.py names these."""

import asyncio
import atexit
import contextlib
import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from socket import AF_INET, AF_INET6, socket
from types import FrameType
from typing import Any

import structlog
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from uvicorn import Config, Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from bot.bot_app import find
from bot.children import end_with_parent
from bot.http import Http
from bot.lock import Lock
from bot.settings import Settings, SettingsError, exit_with, load_settings
from bot.stopping import LAST_REQUESTS
from bot.turns import Turns
from monitoring.logs import mask
from queueing import scripts
from queueing.turns import aligned

_TICK = 3.0  # seconds; gunicorn is told as often that the process is alive, at most

_BOOT_AGAIN = 1.0  # seconds between two tries of a process that cannot start

_LOADED_LATE = (
    "encodings.idna",  # by the first connection
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)

_log = structlog.get_logger(__name__)
_running: Settings | None = None
_turns = Turns()
_metrics: str | None = None


def settings_of_master() -> Settings:
    """The settings to start or to reload with.

    At a start a bad value ends the program with one line and exit code 2. At a reload (SIGHUP) it is logged, and what
    has been running goes on: a slip in `.env` must not take a working service down.
    """
    global _running, _turns
    try:
        settings = load_settings()
        if settings.telegram_token is None:
            raise SettingsError(
                "TELEGRAM_TOKEN is not set: expected the bot's token; "
                "without one, `telequeue up` runs against a local Telegram stand-in"
            )
        _require_host(settings)
        _require_bot(settings)
    except SettingsError as error:
        if _running is None:
            exit_with(str(error))
        _log.error("reload refused, the settings stay as they were", reason=str(error))
        return _running
    if _running is not None:
        _log.info("reloading: new processes take over, the old ones finish what they have in hand")
    _running, _turns = settings, Turns()  # of those that are forked from now on: the old ones may have another server
    return settings


def _require_bot(settings: Settings) -> None:
    """Imports the bot, for all processes. Raises SettingsError where that cannot be done."""
    # Its modules may have metrics of their own: prometheus_client looks for the directory when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_directory()
    from monitoring.pids import count_without_asking

    count_without_asking()
    find(settings.bot_app)


def _require_host(settings: Settings) -> None:
    """Raises SettingsError where nobody can listen on BIND's host. Its port may be taken, by a master before us."""
    host, _ = settings.address
    with socket(AF_INET6 if ":" in host else AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            reason = f"expected an address of this machine ({(error.strerror or str(error)).lower()})"
            raise SettingsError(f"BIND={settings.bind!r}: {reason}") from None


def metrics_directory() -> str:
    """A fresh directory of this master for prometheus_client, removed when it exits; the same again at a reload.

    Files of an earlier run would be added to the counters of this one. Where PROMETHEUS_MULTIPROC_DIR is set,
    the directory is made inside.
    """
    global _metrics
    if _metrics is None:
        parent = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)
        _metrics = tempfile.mkdtemp(prefix="telequeue-metrics-", dir=parent)
        atexit.register(_remove, _metrics, os.getpid())
    return _metrics


def _remove(directory: str, master: int) -> None:
    # the processes inherit the wish to do this, but only the master's end is the end
    if os.getpid() == master:
        shutil.rmtree(directory, ignore_errors=True)


def before_fork() -> None:
    """Loads, once for all processes, what each would load by itself. And takes all that there is from the garbage
    collector, which would write to it in each process, and so leave each with a copy of its own."""
    for name in _LOADED_LATE:
        import_module(name)
    scripts.read_all()
    gc.freeze()
    gc.enable()


def announce(settings: Settings) -> None:
    """Logs, once for all processes, which bot and which queue this is."""
    queue = _described(settings)
    _log.info("starting", bot=settings.bot_id, queue=queue, processes=settings.web_concurrency, bind=settings.bind)


def _described(settings: Settings) -> str:
    server, percent = mask(settings.redis_dsn), settings.redis_queue_percent
    if not settings.use_redis_queue:
        return "in-process"
    if percent == 0:
        return f"in-process; nothing is sent of what {server} holds (REDIS_QUEUE_PERCENT=0)"
    return server if percent == 100 else f"{server} for {percent} % of the chats, in-process for the others"


class Log(Logger):  # type: ignore[misc]
    """gunicorn's lines, sent where all others go."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.loglevel = logging.getLogger().level
        self._access_log_enabled = False

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        # Who boots and who exits is of interest to whoever debugs; what went wrong comes as a warning or an error.
        self.error_log.debug(msg, *args, **kwargs)


class Draining(Server):
    """uvicorn's server. While requests end, its process already leaves the lead to others.

    mark: a file that is there as soon as one process of this master has started. From then on, one that cannot start
    takes nothing down with it: the others go on, and gunicorn tries again.
    """

    mark: Path | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._signalled = asyncio.Event()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # with gunicorn's code for what ends the master, too
            if not self.mark:
                raise
            if self.mark.exists():
                await asyncio.sleep(_BOOT_AGAIN)
                sys.exit(1)
            if _is_new(self.mark.with_name("failed")):
                raise
            # A second one with that code would interrupt the master in its end.
            while not self.should_exit:  # noqa: ASYNC110  set by uvicorn's handler of signals, without an event
                await asyncio.sleep(0.05)
            sys.exit(0)
        if self.mark:
            self.mark.touch()

    async def main_loop(self) -> None:
        """The parent's, which looks ten times a second whether it is to end, is most of what an idle process does."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(aligned(_TICK)):
                    await self._signalled.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop:
            self._loop.call_soon_threadsafe(self._signalled.set)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        runtime = self.lifespan.state.get("runtime")  # none if it could not start
        stepping_down = asyncio.create_task(runtime.step_down()) if runtime else None
        await super().shutdown(sockets)
        if stepping_down:
            await stepping_down


def _is_new(path: Path) -> bool:
    """Makes the file; whether it was not there."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Process(UvicornWorker):  # type: ignore[misc]
    """One of the processes: uvicorn under gunicorn."""

    CONFIG_KWARGS = {  # noqa: RUF012  the parent's own name and form
        "loop": "uvloop",
        "http": Http,
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        # The API judges by the peer's real address and by X-Forwarded-For as it came.
        "proxy_headers": False,
        "timeout_graceful_shutdown": LAST_REQUESTS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        logger = logging.getLogger("uvicorn.error")
        level = logger.level
        super().__init__(*args, **kwargs)
        # The parent gives it gunicorn's handlers, of which there are none, and gunicorn's level.
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(level)

    def init_process(self) -> None:
        # Without its master a process would keep the address, and nobody would replace it.
        end_with_parent(signal.SIGTERM)
        if os.getppid() != self.ppid:
            sys.exit(0)
        super().init_process()

    def load_wsgi(self) -> None:
        # With the settings that the master has checked: a process that is replaced while somebody edits `.env` must
        # neither fail nor differ from its siblings.
        from bot.web import create_app  # imported only after PROMETHEUS_MULTIPROC_DIR is set

        self.wsgi = create_app(_running, Lock(Path(metrics_directory()) / "voice.lock"), _turns)

    async def _serve(self) -> None:
        # The parent's, but for the class of the server.
        self.config.app = self.wsgi
        server = Draining(self.config)
        server.mark = Path(metrics_directory()) / "started"
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def handle_exit(self, _number: int, _frame: FrameType | None) -> None:
        """SIGQUIT, which gunicorn sends when it is interrupted: drain, as for SIGTERM. uvicorn would ignore it."""
        os.kill(os.getpid(), signal.SIGTERM)
