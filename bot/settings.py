"""Settings: every variable of the environment and of `.env`, checked once, with errors that a person can act on.

Names, defaults and meanings for the reader of a configuration stand in .env.example; a test holds the two together.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NoReturn, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BeforeValidator, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from monitoring.logs import mask
from queueing.address import FORMS, Address
from queueing.errors import MalformedMessage
from queueing.limits import OFF, Rate, RateLimits
from queueing.message import Uncertain, canonical_chat

OWN_BOT = "bot.handlers:add_handlers"
TELEGRAM = "https://api.telegram.org"
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 365 * 24 * 3600.0  # no duration here means more than a year; beyond it is a slip of a digit
_SHOWN = 80  # characters of a bad value that an error repeats
_SYNC_LIMITS, _SYNC_MOST = 5.0, 30.0
"""Of SYNC_MESSAGE_PROCESSING, in seconds: what limits make a message wait in good health (1 s for a private chat, 3 s
for a group, on average) beyond SEND_TIMEOUT; and the most that a client, or a proxy before it, is asked to wait."""
_REDIS_PARTS = ("redis_host", "redis_port", "redis_password", "redis_db")


class SettingsError(Exception):
    """A variable is wrong. `str()` is one line for each: its name, its value (masked if secret), what is expected."""


def _parse(parse: Callable[[str], Any]) -> BeforeValidator:
    # Values given by name in code have their type already; only text from outside is parsed.
    return BeforeValidator(lambda value: parse(_encodable(value).strip()) if isinstance(value, str) else value)


def _encodable(text: str) -> str:
    # Bytes of the environment that are no UTF-8 come as lone surrogates, which nothing can send or print.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("text in UTF-8") from None
    return text


def parse_duration(text: str) -> float:
    """Seconds in `200ms`, `1.5s`, `5m` or `24h`. Raises ValueError, which says what is expected."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0.0 < seconds <= _LONGEST:
        raise ValueError("a duration above zero, such as 200ms, 1s, 5m or 24h")
    return seconds


def _seconds_or_duration(text: str) -> float:
    # Settings of this name are plain seconds in most other programs.
    return parse_duration(text + "s" if text.replace(".", "", 1).isdigit() else text)


def _rate(text: str) -> Rate:
    found = re.fullmatch(r"([0-9]{1,6})/([0-9.]+(?:ms|s|m|h))", text)
    if text.lower() == "off":
        return OFF
    try:
        rate = Rate(int(found[1]), parse_duration(found[2])) if found else OFF
    except ValueError:
        rate = OFF
    if not rate.count:
        raise ValueError("messages/duration, such as 30/1s or 20/60s, or off")
    return rate


_CHATS_MOST = 100  # each call of each process to the store carries them all


def _chat_rates(text: str) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    try:
        for item in text.split(","):
            name, _, rate = item.strip().partition("=")
            chat = canonical_chat(name)
            if chat in rates:
                raise ValueError
            rates[chat] = _rate(rate)
        if len(rates) > _CHATS_MOST:
            raise ValueError
    except (ValueError, MalformedMessage):
        raise ValueError(
            f"chat=rate, separated by commas, such as -1001234=5/60s,@news=off: at most {_CHATS_MOST} chats, each once"
        ) from None
    return rates


def _lease(text: str) -> float:
    # A sender writes nothing in a lease's last second, so less than two would leave it no time.
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text) and 2 <= float(text) <= 3600:
        return float(text)
    raise ValueError("a plain number of seconds from 2 to 3600")


def _whole(low: int, high: int) -> BeforeValidator:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,12}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")

    return _parse(parse)


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("true or false")
    return words[text.lower()]


def _one_of(*words: str) -> BeforeValidator:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return _parse(parse)


def _token(text: str) -> str:
    if not re.fullmatch(r"[0-9]+:[\w-]+", text, re.ASCII):
        raise ValueError("a bot token as @BotFather gives it: digits, a colon, and letters, digits, _ or -")
    return text


def _webhook_secret(text: str) -> str:
    # The alphabet and the length are those of setWebhook's secret_token in the Bot API.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", text):
        raise ValueError("1 to 256 of the characters A-Z a-z 0-9 _ -")
    return text


def _web_url(text: str) -> str:
    expected = "a URL such as https://bot.example.org, without a user, a query or a fragment"
    try:
        parts = urlsplit(text)
        bad_port = parts.port == 0
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or bad_port or re.search(r"[\s@?#]", text):
        raise ValueError(expected)
    return text.rstrip("/")


def _bot_app(text: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", text):
        raise ValueError("package.module:function, such as my_bot:add_handlers")
    return text


def _visible(text: str) -> str:
    # As a header of HTTP can hold it.
    if not re.fullmatch(r"[!-~]{1,1000}", text):
        raise ValueError("letters, digits and signs of ASCII, without spaces")
    return text


def _bind(text: str) -> str:
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):([0-9]{1,5})", text, re.ASCII)
    if not found or not 1 <= int(found[2]) <= 65535:
        raise ValueError("host:port, such as 127.0.0.1:8000 or [::1]:8000")
    return text


def _redis_url(text: str) -> str:
    expected = (
        f"{FORMS}; a password with special characters is percent-encoded here, or given plainly as REDIS_PASSWORD with "
        "REDIS_HOST; and of redis-py's options after a ? those of TLS (ssl_…) and of the connection"
    )
    try:
        url = Address.parse(text).url
        parts = urlsplit(url)
        bad_port = parts.port == 0
    except ValueError:
        raise ValueError(expected) from None
    number = re.fullmatch(r"/?[0-9]{0,5}", parts.path)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or bad_port or not number or parts.fragment:
        raise ValueError(expected)
    if parts.query and not _makes_a_client(url, parts.query):
        raise ValueError(expected)
    return text


# Those whose values are numbers or plain words; others, such as `retry`, are objects that a URL cannot hold, and
# `decode_responses` would have the queue read other types than it expects.
_REDIS_OPTION = re.compile(
    "ssl_[a-z_]+|db|protocol|client_name|health_check_interval|max_connections|socket_keepalive|"
    "socket_timeout|socket_connect_timeout"
)


def _makes_a_client(url: str, query: str) -> bool:
    """Whether redis-py can do something with the options of a URL. Nothing is connected to."""
    from redis.asyncio import Redis  # a tenth of a second that only such a URL costs

    if not all(_REDIS_OPTION.fullmatch(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        return False
    try:
        Redis.from_url(url).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001  whatever the constructors of its parts say to a strange value
        return False
    return True


def _password(value: object) -> object:
    return _encodable(value) if isinstance(value, str) else value


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:-]+", text, re.ASCII):
        raise ValueError("the name or the address of a host")
    return text


def _api_keys(text: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for number, item in enumerate(text.split(","), 1):
        name, equals, key = item.strip().partition("=")
        if not equals:
            name, key = f"key{number}", name
        # Nothing but `=` after the first one is a base64 key without a name: ambiguous, so it is asked for one.
        if not re.fullmatch(r"[\w.-]+", name) or not re.fullmatch(r"[!-~]+", key) or not key.strip("=") or name in keys:
            raise ValueError("key or name=key, separated by commas, each name once; a key that contains = needs a name")
        keys[name] = key
    return keys


def _chat_ids(text: str) -> tuple[int, ...]:
    ids = [item.strip() for item in text.split(",")]
    if not all(re.fullmatch(r"-?[0-9]{1,16}", id) for id in ids):
        raise ValueError("ids of chats, whole numbers, separated by commas, such as 42,-1001234")
    return tuple(dict.fromkeys(map(int, ids)))


def _update_types(text: str) -> tuple[str, ...] | None:
    if text.lower() == "all":
        return None
    from telegram.constants import UpdateType  # half a second that only this variable costs

    asked = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(asked) <= set(UpdateType):
        raise ValueError("all, or update types of the Bot API separated by commas, such as message,callback_query")
    return asked


Duration = Annotated[float, _parse(parse_duration)]


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

    telegram_token: Annotated[SecretStr | None, _parse(_token)] = None
    telegram_api_url: Annotated[str, _parse(_web_url)] = TELEGRAM
    webhook_url: Annotated[str | None, _parse(_web_url)] = None
    webhook_secret: Annotated[SecretStr | None, _parse(_webhook_secret)] = None
    allowed_updates: Annotated[tuple[str, ...] | None, NoDecode, _parse(_update_types)] = None
    bot_app: Annotated[str, _parse(_bot_app)] = OWN_BOT
    wait_for_sends: Annotated[bool, _parse(_boolean)] = False
    chat_api_url: Annotated[str | None, _parse(_web_url)] = None
    chat_api_key: Annotated[SecretStr | None, _parse(_visible)] = None
    chat_model: Annotated[str | None, _parse(_visible)] = None
    admin_chat_ids: Annotated[tuple[int, ...], NoDecode, _parse(_chat_ids)] = ()
    bind: Annotated[str, _parse(_bind)] = "127.0.0.1:8000"
    web_concurrency: Annotated[int, _whole(1, 1000)] = 6
    queue_workers: Annotated[int, _whole(1, 1000)] = 10
    use_redis_queue: Annotated[bool, _parse(_boolean)] = False
    redis_queue_percent: Annotated[int, _whole(0, 100)] = 100
    redis_url: Annotated[SecretStr | None, _parse(_redis_url)] = None
    redis_host: Annotated[str, _parse(_host)] = "localhost"
    redis_port: Annotated[int, _whole(1, 65535)] = 6379
    # As it is: a password may begin or end with a space.
    redis_password: Annotated[SecretStr | None, BeforeValidator(_password)] = None
    redis_db: Annotated[int, _whole(0, 99999)] = 0
    redis_timeout: Annotated[float, _parse(_seconds_or_duration)] = 5.0
    rate_global: Annotated[Rate, NoDecode, _parse(_rate)] = Rate(30, 1.0)
    rate_chat: Annotated[Rate, NoDecode, _parse(_rate)] = Rate(1, 1.0)
    rate_group: Annotated[Rate, NoDecode, _parse(_rate)] = Rate(20, 60.0)
    rate_paid: Annotated[Rate, NoDecode, _parse(_rate)] = Rate(1000, 1.0)
    rate_chats: Annotated[Mapping[str, Rate], NoDecode, _parse(_chat_rates)] = {}
    max_attempts: Annotated[int, _whole(1, 1000)] = 5
    retry_base: Duration = 1.0
    retry_max: Duration = 300.0
    # Nothing ties these two: heartbeats keep the lease of a send that takes longer, as an upload may.
    lease_seconds: Annotated[float, _parse(_lease)] = 15.0
    send_timeout: Duration = 10.0
    uncertain_sends: Annotated[Uncertain, _one_of("resend", "hold")] = Uncertain.RESEND
    queue_max: Annotated[int, _whole(1, 10**9)] = 5_000_000
    updates_max: Annotated[int, _whole(1, 10**9)] = 100_000
    message_ttl: Duration | None = None
    status_ttl: Duration = 24 * 3600.0
    sync_message_processing: Annotated[bool, _parse(_boolean)] = False
    api_keys: Annotated[Mapping[str, SecretStr], NoDecode, _parse(_api_keys)] = {}
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        _one_of("debug", "info", "warning", "error", "critical"),
    ] = "info"
    log_format: Annotated[Literal["console", "json"], _one_of("console", "json")] = "console"

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
