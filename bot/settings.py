"""Settings: every variable of the environment and of `.env`, checked once, with errors that a person can act on.

Names, defaults and meanings for the reader of a configuration stand in .env.example; a test holds the two together.
"""

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Literal, NoReturn, Self
from urllib.parse import quote, unquote

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bot import setting_values as values
from monitoring.logs import mask
from queueing.limits import Rate, RateLimits
from queueing.message import Uncertain

OWN_BOT = "bot.handlers:add_handlers"
TELEGRAM = "https://api.telegram.org"
_SHOWN = 80  # characters of a bad value that an error repeats
_SYNC_LIMITS, _SYNC_MOST = 5.0, 30.0
"""Of SYNC_MESSAGE_PROCESSING, in seconds: what limits make a message wait in good health (1 s for a private chat, 3 s
for a group, on average) beyond SEND_TIMEOUT; and the most that a client, or a proxy before it, is asked to wait."""
_REDIS_PARTS = ("redis_host", "redis_port", "redis_password", "redis_db")


class SettingsError(Exception):
    """A variable is wrong. `str()` is one line for each: its name, its value (masked if secret), what is expected."""


class Settings(BaseSettings):
    """What the operator decided. Durations are seconds. A secret does not show in its repr."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    telegram_token: Annotated[SecretStr | None, values.parsed(values.token)] = None
    telegram_api_url: Annotated[str, values.parsed(values.web_url)] = TELEGRAM
    webhook_url: Annotated[str | None, values.parsed(values.web_url)] = None
    webhook_secret: Annotated[SecretStr | None, values.parsed(values.webhook_secret)] = None
    allowed_updates: Annotated[tuple[str, ...] | None, NoDecode, values.parsed(values.update_types)] = None
    bot_app: Annotated[str, values.parsed(values.bot_app)] = OWN_BOT
    wait_for_sends: Annotated[bool, values.parsed(values.boolean)] = False
    chat_api_url: Annotated[str | None, values.parsed(values.web_url)] = None
    chat_api_key: Annotated[SecretStr | None, values.parsed(values.visible)] = None
    chat_model: Annotated[str | None, values.parsed(values.visible)] = None
    admin_chat_ids: Annotated[tuple[int, ...], NoDecode, values.parsed(values.chat_ids)] = ()
    bind: Annotated[str, values.parsed(values.bind)] = "127.0.0.1:8000"
    web_concurrency: Annotated[int, values.whole(1, 1000)] = 6
    queue_workers: Annotated[int, values.whole(1, 1000)] = 10
    use_redis_queue: Annotated[bool, values.parsed(values.boolean)] = False
    redis_queue_percent: Annotated[int, values.whole(0, 100)] = 100
    redis_url: Annotated[SecretStr | None, values.parsed(values.redis_url)] = None
    redis_host: Annotated[str, values.parsed(values.host)] = "localhost"
    redis_port: Annotated[int, values.whole(1, 65535)] = 6379
    redis_password: Annotated[SecretStr | None, values.AS_IT_IS] = None
    redis_db: Annotated[int, values.whole(0, 99999)] = 0
    redis_timeout: Annotated[float, values.parsed(values.seconds_or_duration)] = 5.0
    rate_global: Annotated[Rate, NoDecode, values.parsed(values.rate)] = Rate(30, 1.0)
    rate_chat: Annotated[Rate, NoDecode, values.parsed(values.rate)] = Rate(1, 1.0)
    rate_group: Annotated[Rate, NoDecode, values.parsed(values.rate)] = Rate(20, 60.0)
    rate_paid: Annotated[Rate, NoDecode, values.parsed(values.rate)] = Rate(1000, 1.0)
    rate_chats: Annotated[Mapping[str, Rate], NoDecode, values.parsed(values.chat_rates)] = {}
    max_attempts: Annotated[int, values.whole(1, 1000)] = 5
    retry_base: values.Duration = 1.0
    retry_max: values.Duration = 300.0
    # Nothing ties these two: heartbeats keep the lease of a send that takes longer, as an upload may.
    lease_seconds: Annotated[float, values.parsed(values.lease)] = 15.0
    send_timeout: values.Duration = 10.0
    uncertain_sends: Annotated[Uncertain, values.one_of("resend", "hold")] = Uncertain.RESEND
    queue_max: Annotated[int, values.whole(1, 10**9)] = 5_000_000
    updates_max: Annotated[int, values.whole(1, 10**9)] = 100_000
    message_ttl: values.Duration | None = None
    status_ttl: values.Duration = 24 * 3600.0
    sync_message_processing: Annotated[bool, values.parsed(values.boolean)] = False
    api_keys: Annotated[Mapping[str, SecretStr], NoDecode, values.parsed(values.api_keys)] = {}
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        values.one_of("debug", "info", "warning", "error", "critical"),
    ] = "info"
    log_format: Annotated[Literal["console", "json"], values.one_of("console", "json")] = "console"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        both = [name.upper() for name in _REDIS_PARTS if name in self.model_fields_set]
        if self.redis_url and both:
            raise ValueError(f"REDIS_URL is set, and {', '.join(both)} too: expected either the URL or its parts")
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("WEBHOOK_SECRET is not set: expected with WEBHOOK_URL, 1 to 256 of A-Z a-z 0-9 _ -")
        if self.webhook_url and self.telegram_api_url == TELEGRAM and not self.webhook_url.startswith("https://"):
            raise ValueError(f"WEBHOOK_URL={self.webhook_url!r}: expected https://…, Telegram calls no other")
        if self.chat_api_url and not self.chat_model:
            raise ValueError("CHAT_MODEL is not set: expected with CHAT_API_URL, the name of a model that it has")
        if self.use_redis_queue and 0 < self.redis_queue_percent < 100:
            self._can_be_divided()
        return self

    def _can_be_divided(self) -> None:
        """Between two queues, each of which holds its own part whatever the other does."""
        for name in ("rate_global", "rate_paid", "queue_workers"):
            value = getattr(self, name, None)
            if (value.count if isinstance(value, Rate) else value) == 1:
                what = f"REDIS_QUEUE_PERCENT={self.redis_queue_percent} divides {name.upper()}, which is 1"
                raise ValueError(f"{what}: expected 2 at least, or a REDIS_QUEUE_PERCENT of 0 or 100")

    @property
    def shared_percent(self) -> int:
        """The share of chats that use the shared queue: 0 if it is not used at all."""
        return self.redis_queue_percent if self.use_redis_queue else 0

    @property
    def redis_dsn(self) -> str:
        """The URL of the server, whichever way it was given. Holds the password: not to be shown."""
        if self.redis_url:
            return self.redis_url.get_secret_value()
        password = self.redis_password.get_secret_value() if self.redis_password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        user = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{user}{host}:{self.redis_port}/{self.redis_db}"

    @property
    def sync_wait(self) -> float:
        """Seconds for which the HTTP API waits for a message to end; 0: it does not wait."""
        return min(self.send_timeout + _SYNC_LIMITS, _SYNC_MOST) if self.sync_message_processing else 0.0

    @property
    def limits(self) -> RateLimits:
        """What may leave, for all processes together."""
        return RateLimits(self.rate_global, self.rate_chat, self.rate_group, self.rate_paid, self.rate_chats)

    @property
    def names_redis(self) -> bool:
        """Whether the operator said anywhere which server to use."""
        return bool(self.model_fields_set & {"redis_url", *_REDIS_PARTS})

    @property
    def bot_id(self) -> str | None:
        """The number before the token's colon: what may be shown of it."""
        return self.telegram_token.get_secret_value().partition(":")[0] if self.telegram_token else None

    @property
    def address(self) -> tuple[str, int]:
        """Host (an IPv6 address without brackets) and port to listen on."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)


def load_settings() -> Settings:
    """Reads the environment and, below it, `.env` in the working directory. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [_line(item["loc"], item["msg"], item.get("input")) for item in error.errors(include_url=False)]
    except (OSError, UnicodeDecodeError) as error:
        lines = [f".env cannot be read: {error}"]
    raise SettingsError("\n".join(lines)) from None


def load_or_exit() -> Settings:
    """As load_settings; a bad value ends the program with its line on standard error and exit code 2."""
    try:
        return load_settings()
    except SettingsError as error:
        exit_with(str(error))


def exit_with(reason: str) -> NoReturn:
    """Ends the program because of its configuration: the reason on standard error, exit code 2."""
    for line in reason.splitlines():
        print(f"telequeue: {line}", file=sys.stderr)  # noqa: T201  before there is a log
    sys.exit(2)


def _line(loc: tuple[int | str, ...], message: str, value: object) -> str:
    expected = message.removeprefix("Value error, ")
    if not loc:
        return expected
    name = str(loc[0])
    return f"{name.upper()}={_shown(name, value)}: expected {expected}"


def _shown(name: str, value: object) -> str:
    if name in ("telegram_token", "webhook_secret", "redis_password", "api_keys", "chat_api_key"):
        return "***"
    text = str(value)
    if name == "redis_url" and "@" in text:
        # What is wrong may be the very place where the password ends: nothing before the last @ is safe to show.
        text = f"{text.partition('://')[0]}://***@{text.rpartition('@')[2]}" if "://" in text else "***"
    if name == "redis_url":
        text = re.sub(r"\?.*", "?***", text)  # an option may be a password, too
    return repr(mask(unquote(text) if "%3A" in text else text)[:_SHOWN])
