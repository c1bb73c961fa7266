"""Logging of the whole: one format for our lines and everybody else's, and no token in any of them.

It only configures. Write with `structlog.get_logger(__name__)` or the standard library's loggers: one way for both.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["console", "json"]

# A bot token is `<bot id>:<secret>`. After `bot` (as in a Bot API URL) any secret is one; elsewhere it must hold a
# letter and follow three digits or more, so that times, addresses (127.0.0.1:8000) and `file.py:120:` stay readable.
_TOKEN_IN_URL = re.compile(r"(bot[0-9]+)(:|%3A)[\w-]+", re.ASCII | re.IGNORECASE)
# The colon as some programs write it in URLs and in JSON, too.
_TOKEN = re.compile(r"(?<![\w.:])([0-9]{3,})(:|%3A|%3a|\\+u003[Aa])(?=[\w-]*[A-Za-z])[\w-]{3,}", re.ASCII)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z+]{0,15}://[^\s/:@]*):[^\s/]+@")
_PASSWORD_OPTION = re.compile(r"([?&]\w*password=)[^\s&]+")
# The webhook's secret, in what PTB logs of its calls at `debug`.
_SECRET_TOKEN = re.compile(r"(secret_token\W{1,6})[\w-]+")
_BEARER = re.compile(r"(Bearer )[^\s'\",;]+", re.IGNORECASE)

# These say at `info` what is of interest to nobody: each request, each start and stop of a process.
_QUIET = ("httpx", "httpcore", "aiohttp.access", "uvicorn.error", "telegram.ext.Application", "apscheduler")


def mask(text: str) -> str:
    """The text with its secrets replaced by `***`: a token but for the bot id, a URL's password, an API key."""
    text = _TOKEN_IN_URL.sub(r"\1\2***", text)
    text = _TOKEN.sub(r"\1\2***", text)
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    text = _PASSWORD_OPTION.sub(r"\1***", text)
    text = _SECRET_TOKEN.sub(r"\1***", text)
    return _BEARER.sub(r"\1***", text)


def configure_logging(level: str, format: Format, stream: TextIO | None = None) -> None:
    """Sends every log line of the process to `stream` (default: standard error), masked. May be called again.

    level: debug, info, warning, error or critical. format: `console`, in colour on a terminal, or `json`, one object
    a line with `timestamp` (ISO 8601, UTC), `level`, `logger`, `event` and the fields.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper("iso" if format == "json" else "%Y-%m-%d %H:%M:%S", utc=format == "json"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _mask_event,
                _renderer(format, colors=stream.isatty()),
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))


def _renderer(format: Format, *, colors: bool) -> Processor:
    if format == "json":
        return structlog.processors.JSONRenderer(_to_json)
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, pad_level=False
    )


def _mask_event(_logger: WrappedLogger, _name: str, event: EventDict) -> MutableMapping[str, Any]:
    event.pop("color_message", None)  # uvicorn's own copy of the message
    return {mask(key): _masked(value) for key, value in event.items()}


def _masked(value: object) -> object:
    # What is no plain value becomes its repr here, not in the renderer: that would be after the masking.
    match value:
        case str():
            return mask(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {mask(str(key)): _masked(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked(item) for item in value]
        case _:
            return mask(repr(value))


def _to_json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
