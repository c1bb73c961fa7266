"""What the text of a setting must look like: each function reads one kind of value, and raises ValueError, which says
what is expected."""

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator

from queueing.address import FORMS, Address
from queueing.errors import MalformedMessage
from queueing.limits import OFF, Rate
from queueing.message import canonical_chat

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 365 * 24 * 3600.0  # no duration here means more than a year; beyond it is a slip of a digit


def parsed(read: Callable[[str], Any]) -> BeforeValidator:
    """For the annotation of a setting that `read` reads, without the white space around it."""
    # Values given by name in code have their type already; only text from outside is parsed.
    return BeforeValidator(lambda value: read(_encodable(value).strip()) if isinstance(value, str) else value)


def _encodable(text: str) -> str:
    # Bytes of the environment that are no UTF-8 come as lone surrogates, which nothing can send or print.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("text in UTF-8") from None
    return text


AS_IT_IS = BeforeValidator(lambda value: _encodable(value) if isinstance(value, str) else value)
"""For a password, which may begin or end with a space."""


def duration(text: str) -> float:
    """Seconds in `200ms`, `1.5s`, `5m` or `24h`. Raises ValueError, which says what is expected."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0.0 < seconds <= _LONGEST:
        raise ValueError("a duration above zero, such as 200ms, 1s, 5m or 24h")
    return seconds


Duration = Annotated[float, parsed(duration)]


def seconds_or_duration(text: str) -> float:
    # Settings of this name are plain seconds in most other programs.
    return duration(text + "s" if text.replace(".", "", 1).isdigit() else text)


def rate(text: str) -> Rate:
    found = re.fullmatch(r"([0-9]{1,6})/([0-9.]+(?:ms|s|m|h))", text)
    if text.lower() == "off":
        return OFF
    try:
        read = Rate(int(found[1]), duration(found[2])) if found else OFF
    except ValueError:
        read = OFF
    if not read.count:
        raise ValueError("messages/duration, such as 30/1s or 20/60s, or off")
    return read


_CHATS_MOST = 100  # each call of each process to the store carries them all


def chat_rates(text: str) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    try:
        for item in text.split(","):
            name, _, limit = item.strip().partition("=")
            chat = canonical_chat(name)
            if chat in rates:
                raise ValueError
            rates[chat] = rate(limit)
        if len(rates) > _CHATS_MOST:
            raise ValueError
    except (ValueError, MalformedMessage):
        raise ValueError(
            f"chat=rate, separated by commas, such as -1001234=5/60s,@news=off: at most {_CHATS_MOST} chats, each once"
        ) from None
    return rates


def lease(text: str) -> float:
    # A sender writes nothing in a lease's last second, so less than two would leave it no time.
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text) and 2 <= float(text) <= 3600:
        return float(text)
    raise ValueError("a plain number of seconds from 2 to 3600")


def whole(low: int, high: int) -> BeforeValidator:
    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,12}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")

    return parsed(read)


def boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("true or false")
    return words[text.lower()]


def one_of(*words: str) -> BeforeValidator:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parsed(read)


def token(text: str) -> str:
    if not re.fullmatch(r"[0-9]+:[\w-]+", text, re.ASCII):
        raise ValueError("a bot token as @BotFather gives it: digits, a colon, and letters, digits, _ or -")
    return text


def webhook_secret(text: str) -> str:
    # The alphabet and the length are those of setWebhook's secret_token in the Bot API.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", text):
        raise ValueError("1 to 256 of the characters A-Z a-z 0-9 _ -")
    return text


def web_url(text: str) -> str:
    expected = "a URL such as https://bot.example.org, without a user, a query or a fragment"
    try:
        parts = urlsplit(text)
        bad_port = parts.port == 0
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or bad_port or re.search(r"[\s@?#]", text):
        raise ValueError(expected)
    return text.rstrip("/")


def bot_app(text: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", text):
        raise ValueError("package.module:function, such as my_bot:add_handlers")
    return text


def visible(text: str) -> str:
    # As a header of HTTP can hold it.
    if not re.fullmatch(r"[!-~]{1,1000}", text):
        raise ValueError("letters, digits and signs of ASCII, without spaces")
    return text


def bind(text: str) -> str:
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):([0-9]{1,5})", text, re.ASCII)
    if not found or not 1 <= int(found[2]) <= 65535:
        raise ValueError("host:port, such as 127.0.0.1:8000 or [::1]:8000")
    return text


def redis_url(text: str) -> str:
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


def host(text: str) -> str:
    if not re.fullmatch(r"[\w.:-]+", text, re.ASCII):
        raise ValueError("the name or the address of a host")
    return text


def api_keys(text: str) -> dict[str, str]:
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


def chat_ids(text: str) -> tuple[int, ...]:
    ids = [item.strip() for item in text.split(",")]
    if not all(re.fullmatch(r"-?[0-9]{1,16}", id) for id in ids):
        raise ValueError("ids of chats, whole numbers, separated by commas, such as 42,-1001234")
    return tuple(dict.fromkeys(map(int, ids)))


def update_types(text: str) -> tuple[str, ...] | None:
    if text.lower() == "all":
        return None
    from telegram.constants import UpdateType  # half a second that only this variable costs

    asked = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(asked) <= set(UpdateType):
        raise ValueError("all, or update types of the Bot API separated by commas, such as message,callback_query")
    return asked
