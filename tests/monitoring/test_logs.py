"""Logs: one format for everybody's lines, and no secret in any of them."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from monitoring.logs import configure_logging, mask

TOKEN = "123456789:AAF-ab_CDEFGHIJKLMNOPQRSTUVWXYZ01234"
SECRET = TOKEN.partition(":")[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def leave_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in list(root.manager.loggerDict)}
    yield
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def written(format: str, level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure_logging(level, format, stream)  # type: ignore[arg-type]
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (TOKEN, "123456789:***"),
        (f"https://api.telegram.org/bot{TOKEN}/getMe", "https://api.telegram.org/bot123456789:***/getMe"),
        ("/bot1:A/getMe", "/bot1:***/getMe"),
        (f"/file/bot{TOKEN}/a.jpg", "/file/bot123456789:***/a.jpg"),
        ("/bot123%3AABCDEF/getMe", "/bot123%3A***/getMe"),
        ('{"bot_token":"123:ABC","chat_id":42}', '{"bot_token":"123:***","chat_id":42}'),
        (r'{"bot_token":"123\u003aABC"}', r'{"bot_token":"123\u003a***"}'),
        (f"token={TOKEN}, again {TOKEN}.", "token=123456789:***, again 123456789:***."),
        ("redis://:p%40ss@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://user:p@ss@host", "rediss://user:***@host"),
        (
            "redis+sentinel://:p@a,b/q?sentinel_password=x&db=1",
            "redis+sentinel://:***@a,b/q?sentinel_password=***&db=1",
        ),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("{'secret_token': 'XoXT_gX'}", "{'secret_token': '***'}"),
        ("http://127.0.0.1:8000/health", "http://127.0.0.1:8000/health"),
        ("2026-11-22T03:16:40Z took 120:30", "2026-11-22T03:16:40Z took 120:30"),
        ("handlers.py:120:reply", "handlers.py:120:reply"),
        ("lane 8081:-2001 of vm:1234:ab12", "lane 8081:-2001 of vm:1234:ab12"),
    ],
)
def test_mask(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


def leak_everywhere(log: structlog.stdlib.BoundLogger, plain: logging.Logger) -> None:
    """Puts the token into each place of a line that can hold it."""
    log.info(f"calling {TOKEN}", url=f"http://x/bot{TOKEN}/getMe", nested={"a": [TOKEN]}, odd=ValueError(TOKEN))
    plain.warning("calling %s", f"http://x/bot{TOKEN}/getMe")
    plain.warning("fields", extra={"token": TOKEN, TOKEN: 1, "raw": TOKEN.encode()})
    try:
        try:
            raise ConnectionError(f"to {TOKEN}")
        except ConnectionError as error:
            raise RuntimeError(f"no answer of {TOKEN}") from error
    except RuntimeError:
        log.exception("failed")
        plain.exception("failed")
    warnings.warn(f"old {TOKEN}", UserWarning, stacklevel=1)


def test_a_long_text_is_masked_in_a_moment() -> None:
    text = "a+" * 500_000
    assert mask(text) == text, "and no pattern begins anew at each of its words: that took hours"


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.filterwarnings("default")
def test_no_line_holds_a_token(format: str) -> None:
    stream = written(format)
    leak_everywhere(structlog.get_logger("ours"), logging.getLogger("theirs"))
    text = stream.getvalue()
    assert SECRET not in text
    assert text.count("123456789:***") >= 10
    assert "ConnectionError" in text


def test_json_is_one_object_a_line_for_ours_and_theirs() -> None:
    stream = written("json")
    structlog.get_logger("ours").info("started", processes=6)
    logging.getLogger("theirs").warning("slow: %d ms", 7, extra={"route": "/x"})
    ours, theirs = lines(stream)
    assert ours.pop("timestamp").endswith("Z")  # type: ignore[attr-defined]
    assert ours == {"event": "started", "level": "info", "logger": "ours", "processes": 6}
    assert theirs.pop("timestamp")
    assert theirs == {"event": "slow: 7 ms", "level": "warning", "logger": "theirs", "route": "/x"}


def test_a_traceback_stays_within_its_line_of_json() -> None:
    stream = written("json")
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("theirs").exception("failed\nbadly")
    (line,) = lines(stream)
    assert "KeyError: 'x'" in str(line["exception"])


def test_colour_on_a_terminal_only() -> None:
    plain, terminal = written("console"), io.StringIO()
    logging.getLogger("a").error("seen")
    terminal = written("console", stream=Terminal())
    logging.getLogger("a").error("seen")
    assert "\x1b[" not in plain.getvalue()
    assert "seen" in plain.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_level() -> None:
    stream = written("json", "warning")
    structlog.get_logger("a").info("quiet")
    logging.getLogger("a").info("quiet")
    structlog.get_logger("a").warning("heard")
    assert [line["event"] for line in lines(stream)] == ["heard"]


@pytest.mark.parametrize(("level", "heard"), [("info", []), ("debug", ["each request"])])
def test_what_libraries_say_of_each_request_is_for_debug(level: str, heard: list[str]) -> None:
    stream = written("json", level)
    logging.getLogger("httpx").info("each request")
    assert [line["event"] for line in lines(stream)] == heard


def test_configured_twice_every_line_comes_once() -> None:
    written("json")
    stream = written("json")
    logging.getLogger("a").error("once")
    assert len(lines(stream)) == 1
