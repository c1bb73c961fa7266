"""The application of PTB that a process runs: made as BOT_APP likes it, with a bot whose sends are queued.

BOT_APP may say all about its application that PTB's builder can say; what telequeue decides is passed over, with a line
in the log. What PTB calls in run_polling() and run_webhook() only (post_init, post_stop, post_shutdown) is called here.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from telegram._utils.defaultvalue import DefaultValue  # how PTB's builder keeps what nobody has said
from telegram.error import TelegramError
from telegram.ext import Application, ApplicationBuilder, BasePersistence, ExtBot, JobQueue

from bot.bot_app import BotApp, wants_builder
from bot.intake import IntakeApplication
from bot.patience import pause_after
from bot.queued_bot import QueuedBot
from bot.services import Services
from bot.stateful import AnyApplication

_logger = logging.getLogger(__name__)


class BotAppFailed(Exception):
    """BOT_APP's function did not do what it is there for. Its cause is what it raised."""


class TelequeueApplication(IntakeApplication):
    """PTB's Application as telequeue runs it. telequeue: what its handlers may use beyond PTB."""

    telequeue: Services

    def run_polling(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError("telequeue runs the application: BOT_APP's function adds handlers, and returns")

    run_webhook = run_polling


@dataclass(frozen=True, slots=True)
class Parts:
    """What telequeue gives an application.

    make_bot:  called with what the builder was told: defaults, arbitrary_callback_data, private_key and its password.
    shared:    state and jobs are those of all processes: `persistence` and `job_queue`, or none, instead of the bot's.
    """

    make_bot: Callable[..., QueuedBot]
    services: Services
    shared: bool
    persistence: BasePersistence[Any, Any, Any] | None = None
    job_queue: JobQueue[Any] | None = None


class Builder(ApplicationBuilder[Any, Any, Any, Any, Any, Any]):
    """PTB's ApplicationBuilder.

    built: the application that it built last. ignored: the methods that were called in vain, and why.
    """

    __slots__ = ("_parts", "built", "ignored")

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        self._updater = None
        self._application_class = TelequeueApplication
        self.built: TelequeueApplication | None = None
        self.ignored: dict[str, str] = {}

    def build(self) -> TelequeueApplication:
        """As PTB's."""
        if self._parts.shared:
            self._share()
        application = cast(TelequeueApplication, super().build())
        application.telequeue = self._parts.services
        self.built = application
        return application

    def application_class(
        self,
        application_class: type[AnyApplication],
        kwargs: dict[str, object] | None = None,
    ) -> "Builder":
        """As PTB's. What the class overrides comes before ours."""
        if not issubclass(TelequeueApplication, application_class):
            both = (application_class, TelequeueApplication)
            self._application_class = type(application_class.__name__, both, {})
        self._application_kwargs = kwargs or {}
        return self

    def bot(self, bot: object) -> NoReturn:
        raise ValueError("builder.bot(): telequeue brings the bot, whose sends go through the queue")

    def _share(self) -> None:
        """Puts what all processes share in the place of what would be each one's own."""
        if not isinstance(self._persistence, DefaultValue):
            self.ignored["persistence"] = "the state of all processes is kept in Redis"
        if not isinstance(self._job_queue, DefaultValue):
            self.ignored["job_queue"] = "jobs belong to all processes"
        self._persistence = self._parts.persistence or DefaultValue(None)
        self._job_queue = self._parts.job_queue

    def _build_ext_bot(self) -> ExtBot[Any]:
        said = {
            name: DefaultValue.get_value(getattr(self, f"_{name}"))
            for name in ("defaults", "arbitrary_callback_data", "private_key", "private_key_password")
        }
        return self._parts.make_bot(**said)


_DECIDED = {
    "token": "TELEGRAM_TOKEN says which bot it is",
    "base_url": "TELEGRAM_API_URL says where Telegram is",
    "base_file_url": "TELEGRAM_API_URL says where Telegram is",
    "local_mode": "telequeue knows of no such server",
    "rate_limiter": "RATE_GLOBAL, RATE_CHAT and RATE_GROUP hold for all processes together",
    "concurrent_updates": "updates of a chat are handled one at a time, of many chats at once",
    "updater": "telequeue receives the updates",
    "update_queue": "telequeue receives the updates",
}
_DECIDED |= dict.fromkeys(
    (
        f"{prefix}{name}"
        for prefix in ("", "get_updates_")
        for name in (
            *("request", "connection_pool_size", "proxy", "socket_options", "http_version"),
            *("connect_timeout", "read_timeout", "write_timeout", "pool_timeout"),
        )
    ),
    "telequeue has an HTTP client of its own; SEND_TIMEOUT is its timeout",
)
_DECIDED["media_write_timeout"] = _DECIDED["request"]


def _decided(name: str, why: str) -> Callable[..., Builder]:
    def passed_over(self: Builder, *_args: object, **_kwargs: object) -> Builder:
        self.ignored[name] = why
        return self

    passed_over.__name__ = name
    return passed_over


for _name, _why in _DECIDED.items():
    setattr(Builder, _name, _decided(_name, _why))


async def make_application(function: BotApp, builder: Builder) -> TelequeueApplication:
    """The application, with the bot's handlers. Raises BotAppFailed."""
    if not wants_builder(function):
        application = builder.build()
        await _call(function, application)
        return application
    result = await _call(function, builder)
    application = builder.built or builder.build()
    if isinstance(result, Application) and result is not application:
        raise BotAppFailed("BOT_APP's function returned an application that its builder did not build")
    return application


async def _call(function: BotApp, argument: object) -> object:
    try:
        result = function(argument)
        return await result if inspect.isawaitable(result) else result
    except Exception as error:
        raise BotAppFailed(f"BOT_APP's function raised {type(error).__name__}: {error}") from error


class Hooks:
    """Calls post_init, post_stop and post_shutdown. problem: why post_init did not end well yet, in words."""

    def __init__(self, application: AnyApplication) -> None:
        self.problem: str | None = None
        self._application = application
        self._begun = False

    async def post_init(self) -> None:
        """Returns when it ended well: the application handles nothing before. It may need a server that is away."""
        callback, failures = self._application.post_init, 0
        self._begun = True
        while callback is not None:
            try:
                await callback(self._application)
                break
            except Exception as error:  # noqa: BLE001  a bot's own code
                failures += 1
                seconds = pause_after(error if isinstance(error, TelegramError) else TelegramError(""), failures)
                self._tell(error, seconds)
            await asyncio.sleep(seconds)
        self.problem = None

    async def post_stop(self) -> None:
        await self._last("post_stop")

    async def post_shutdown(self) -> None:
        if self._begun:  # else there is nothing yet that it could end
            await self._last("post_shutdown")

    def _tell(self, error: Exception, seconds: float) -> None:
        problem = f"the bot's post_init fails: {type(error).__name__}: {error}"
        if problem != self.problem:
            _logger.error("the bot's post_init failed; next try in %.1f s", seconds, exc_info=error)
        self.problem = problem

    async def _last(self, name: str) -> None:
        callback = getattr(self._application, name)
        try:
            if callback is not None:
                await callback(self._application)
        except Exception:  # a bot's own code must not keep the rest from ending
            _logger.exception("the bot's %s failed", name)
