"""Settings: what the environment says, what .env says, and one line for each thing that is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bot.settings import Settings, SettingsError, load_settings
from queueing.limits import OFF, Rate
from queueing.message import Uncertain

ROOT = Path(__file__).parents[2]
NAMES = [name.upper() for name in Settings.model_fields]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set, and there is no .env."""
    for name in list(os.environ):
        if name.upper() in NAMES:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch):
    def load(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load


def examples() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    found = [re.fullmatch(r"#([A-Z_]+)=(.*)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def test_every_variable_is_in_the_example_and_nothing_else() -> None:
    assert sorted(examples()) == sorted(NAMES)


def test_rule_18_a_copy_of_the_example_changes_nothing() -> None:
    Path(".env").write_bytes((ROOT / ".env.example").read_bytes())
    assert load_settings().model_fields_set == set()


@pytest.mark.parametrize(("name", "value"), examples().items())
def test_each_example_shows_the_default(name: str, value: str, env) -> None:
    default = load_settings()
    given = env(**{name: value})
    if name == "REDIS_URL":
        assert given.redis_dsn == default.redis_dsn
    else:
        assert getattr(given, name.lower()) == getattr(default, name.lower())
    assert bool(value) == (name.lower() in given.model_fields_set)


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("1s", 1.0), ("1.5s", 1.5), ("5m", 300.0), ("24h", 86400.0), (" 2s ", 2.0)]
)
def test_durations(text: str, seconds: float, env) -> None:
    assert env(SEND_TIMEOUT=text).send_timeout == pytest.approx(seconds)


BAD = [
    ("TELEGRAM_TOKEN", "12x:abc", "a bot token"),
    ("TELEGRAM_TOKEN", "123:ä", "a bot token"),
    ("TELEGRAM_API_URL", "api.telegram.org", "a URL"),
    ("TELEGRAM_API_URL", "https://user:pass@host", "a URL"),
    ("TELEGRAM_API_URL", "http://host:99999", "a URL"),
    ("TELEGRAM_API_URL", "http://[::1", "a URL"),
    ("WEBHOOK_URL", "ftp://host", "a URL"),
    ("WEBHOOK_URL", "https://host/?a=b", "a URL"),
    ("WEBHOOK_SECRET", "with space", "1 to 256"),
    ("WEBHOOK_SECRET", "x" * 257, "1 to 256"),
    ("ALLOWED_UPDATES", "mesage", "update types"),
    ("ADMIN_CHAT_IDS", "ada", "ids of chats"),
    ("ADMIN_CHAT_IDS", "42,,43", "ids of chats"),
    ("ALLOWED_UPDATES", "message,,poll", "update types"),
    ("BOT_APP", "my_bot", "package.module:function"),
    ("BOT_APP", "my-bot:setup", "package.module:function"),
    ("BOT_APP", "my_bot:setup()", "package.module:function"),
    ("CHAT_API_URL", "localhost:11434/v1", "a URL"),
    ("CHAT_API_KEY", "two words", "letters, digits"),
    ("CHAT_MODEL", "a model", "letters, digits"),
    ("BIND", "8000", "host:port"),
    ("BIND", "::1:8000", "host:port"),
    ("BIND", "127.0.0.1:0", "host:port"),
    ("BIND", "127.0.0.1:65536", "host:port"),
    ("WEB_CONCURRENCY", "0", "a whole number"),
    ("API_KEYS", "a,,b", "key or name=key"),
    ("API_KEYS", "n=a,n=b", "key or name=key"),
    ("API_KEYS", "YWJj==", "key or name=key"),
    ("API_KEYS", "two words", "key or name=key"),
    ("USE_REDIS_QUEUE", "maybe", "true or false"),
    ("REDIS_QUEUE_PERCENT", "101", "a whole number"),
    ("REDIS_URL", "localhost:6379", "redis://"),
    ("REDIS_URL", "redis://host:port", "redis://"),
    ("REDIS_URL", "redis://host/name", "redis://"),
    *[
        ("REDIS_URL", f"redis://host?{query}", "redis://")
        for query in (
            "foo=bar",
            "foo=",
            "db=x",
            "socket_timeout=abc",
            "protocol=9",
            "max_connections=x",
            "ssl_cert_reqs=none",
            "retry=abc",
            "decode_responses=1",
            "host=x",
            "timeout=4",
        )
    ],
    ("REDIS_URL", "rediss://host?ssl_cert_reqs=x", "redis://"),
    ("REDIS_URL", "redis+sentinel://a,b", "redis+sentinel://"),
    ("REDIS_URL", "redis+sentinel://a:x/queue", "redis+sentinel://"),
    ("REDIS_URL", "redis+cluster://a,b/2", "redis+cluster://"),
    ("REDIS_URL", "redis+cluster://a?ssl=x", "redis+cluster://"),
    ("REDIS_URL", "rediss+cluster://a?ssl_cert_reqs=x", "redis+cluster://"),
    ("REDIS_HOST", "redis://host", "a host"),
    ("REDIS_PASSWORD", "not utf-8: \udcff", "text in UTF-8"),
    ("REDIS_PORT", "tcp://10.0.0.1:6379", "a whole number"),
    ("REDIS_DB", "-1", "a whole number"),
    ("REDIS_TIMEOUT", "soon", "a duration"),
    ("QUEUE_WORKERS", "ten", "a whole number"),
    ("QUEUE_WORKERS", "1_0", "a whole number"),
    ("QUEUE_MAX", "1e6", "a whole number"),
    ("UPDATES_MAX", "0", "a whole number"),
    ("STATUS_TTL", "1d", "a duration"),
    ("SYNC_MESSAGE_PROCESSING", "sometimes", "true or false"),
    ("WAIT_FOR_SENDS", "always", "true or false"),
    ("MESSAGE_TTL", "never", "a duration"),
    ("UNCERTAIN_SENDS", "drop", "resend or hold"),
    ("SEND_TIMEOUT", "10", "a duration"),
    ("SEND_TIMEOUT", "0s", "a duration"),
    ("SEND_TIMEOUT", "9" * 400 + "h", "a duration"),
    ("RATE_GLOBAL", "30", "messages/duration"),
    ("RATE_CHAT", "1/0s", "messages/duration"),
    ("RATE_GROUP", "0/1s", "messages/duration"),
    ("RATE_PAID", "1000", "messages/duration"),
    ("RATE_CHATS", "-1001234", "chat=rate"),
    ("RATE_CHATS", "news=1/1s", "chat=rate"),
    ("RATE_CHATS", "42=1", "chat=rate"),
    ("RATE_CHATS", "42=1/1s,,43=1/1s", "chat=rate"),
    ("RATE_CHATS", "42=1/1s, 042=off", "each once"),
    ("RATE_CHATS", "@news=1/1s,@News=off", "each once"),
    ("RATE_CHATS", ",".join(f"{chat}=off" for chat in range(101)), "at most 100"),
    ("MAX_ATTEMPTS", "0", "a whole number"),
    ("RETRY_BASE", "-1s", "a duration"),
    ("RETRY_MAX", "1 s", "a duration"),
    ("LEASE_SECONDS", "15s", "a plain number"),
    ("LEASE_SECONDS", "1", "a plain number"),
    ("LEASE_SECONDS", "nan", "a plain number"),
    ("LOG_LEVEL", "loud", "debug, info"),
    ("LOG_FORMAT", "xml", "console or json"),
]


def test_single_chats_and_what_is_paid_have_limits_of_their_own(env) -> None:
    limits = env(RATE_CHATS="-1001234=5/60s, @News=off,42=3/1s", RATE_PAID="500/1s").limits
    assert limits.chats == {"-1001234": Rate(5, 60.0), "@news": OFF, "42": Rate(3, 1.0)}
    assert (limits.of_bot(paid=True), limits.of_bot(paid=False)) == (Rate(500, 1.0), Rate(30, 1.0))
    many = env(RATE_CHATS=",".join(f"{chat}=off" for chat in range(100)), RATE_PAID="off").limits
    assert (len(many.chats), many.paid) == (100, OFF)


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_bad_value_gets_one_line(name: str, value: str, expected: str, env) -> None:
    with pytest.raises(SettingsError) as caught:
        env(**{name: value})
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{name}=")
    assert f"expected {expected}" in line or expected in line.partition("expected")[2]
    assert len(line) < 400


def test_every_variable_that_can_be_wrong_was_tried() -> None:
    assert {name for name, _, _ in BAD} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_are_no_text_get_one_line(name: str, env) -> None:
    value = {"REDIS_URL": "redis://:\udcff@host", "TELEGRAM_API_URL": "http://host/\udcff"}.get(name, "1\udcff")
    with pytest.raises(SettingsError, match=rf"^{name}=.*: expected text in UTF-8$") as caught:
        env(**{name: value})
    str(caught.value).encode()


@pytest.mark.parametrize(
    "url",
    [
        "redis://host?db=2&protocol=3&client_name=x",
        "rediss://host/1?ssl_cert_reqs=none&ssl_check_hostname=false",
        "redis+sentinel://:p@a:1,[::1]/queue/2?sentinel_username=u&sentinel_password=x",
        "rediss+sentinel://a/queue?ssl_check_hostname=false",
        "redis+cluster://u:p@a:7000,b,c:7002",
        "rediss+cluster://a?ssl_cert_reqs=none",
    ],
)
def test_options_of_a_redis_url(url: str, env) -> None:
    assert env(REDIS_URL=url).redis_dsn == url


def test_several_bad_values_get_a_line_each(env) -> None:
    with pytest.raises(SettingsError) as caught:
        env(QUEUE_WORKERS="x", BIND="y")
    assert sorted(line.partition("=")[0] for line in str(caught.value).splitlines()) == ["BIND", "QUEUE_WORKERS"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TELEGRAM_TOKEN", "123 hunter2"),
        ("WEBHOOK_SECRET", "hunter2!"),
        ("API_KEYS", "hunter2,,"),
        ("REDIS_URL", "redis://:SEC#hunter2@host:port"),
        ("REDIS_URL", "redis://:hunter2@a@host/x"),
        ("REDIS_URL", "redis://host?password=hunter2"),
        ("REDIS_URL", "redis://:hun?password=hunter2@host"),
        ("REDIS_URL", "redis+sentinel://:hunter2@a,b:x/queue"),
        ("REDIS_URL", "redis+sentinel://a,b:x/queue?sentinel_password=hunter2"),
        ("BIND", "123456:hunter2"),
        ("WEBHOOK_URL", "https://user:hunter2@host"),
    ],
)
def test_an_error_shows_no_secret(name: str, value: str, env) -> None:
    with pytest.raises(SettingsError) as caught:
        env(**{name: value})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_settings_show_no_secret(env) -> None:
    settings = env(
        TELEGRAM_TOKEN="123:hunter2",
        WEBHOOK_SECRET="hunter2",
        API_KEYS="hunter21,name=hunter22",
        REDIS_URL="redis://:hunter2@host",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    assert settings.bot_id == "123"


def test_env_file_below_environment(env) -> None:
    Path(".env").write_text("QUEUE_WORKERS=3\nMAX_ATTEMPTS=4\nSOMETHING_ELSE=1\n# ä\n")
    settings = env(QUEUE_WORKERS="7")
    assert (settings.queue_workers, settings.max_attempts) == (7, 4)


def test_an_empty_value_counts_as_unset(env) -> None:
    settings = env(TELEGRAM_TOKEN="", QUEUE_WORKERS="", API_KEYS="", REDIS_URL="", ALLOWED_UPDATES="")
    assert settings.model_fields_set == set()


def test_an_unreadable_env_file_is_named() -> None:
    Path(".env").write_bytes(b"BIND=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read: "):
        load_settings()


@pytest.mark.parametrize("password", ["p@ss:/w#rd?", "%41", "ä b", "\"'\\"])
def test_a_password_with_special_characters(password: str, env) -> None:
    from redis.connection import parse_url

    settings = env(REDIS_HOST="::1", REDIS_PASSWORD=password, REDIS_DB="2", REDIS_PORT="7000")
    assert parse_url(settings.redis_dsn) == {"host": "::1", "port": 7000, "password": password, "db": 2}


def test_redis_both_ways_is_refused(env) -> None:
    with pytest.raises(SettingsError, match=r"^REDIS_URL is set, and REDIS_HOST, REDIS_DB too: expected either"):
        env(REDIS_URL="redis://a", REDIS_HOST="b", REDIS_DB="1")


@pytest.mark.parametrize("name", ["REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD"])
def test_whether_a_server_is_named(name: str, env) -> None:
    assert not env().names_redis
    assert env(**{name: {"REDIS_URL": "rediss://u:p@h:1/2"}.get(name, "1")}).names_redis


@pytest.mark.parametrize("name", ["RATE_GLOBAL", "QUEUE_WORKERS"])
def test_one_cannot_be_divided_between_two_queues(name: str, env) -> None:
    one = {"RATE_GLOBAL": "1/1s", "QUEUE_WORKERS": "1"}[name]
    with pytest.raises(
        SettingsError, match=rf"^REDIS_QUEUE_PERCENT=50 divides {name}, which is 1: expected 2 at least"
    ):
        env(**{name: one, "USE_REDIS_QUEUE": "true", "REDIS_QUEUE_PERCENT": "50"})
    for percent in ("0", "100"):
        assert env(REDIS_QUEUE_PERCENT=percent).shared_percent == int(percent)
    assert env(USE_REDIS_QUEUE="false", REDIS_QUEUE_PERCENT="50").shared_percent == 0


def test_a_chat_backend_wants_a_model_and_keeps_its_key_to_itself(env) -> None:
    with pytest.raises(SettingsError, match=r"^CHAT_MODEL is not set: expected with CHAT_API_URL"):
        env(CHAT_API_URL="http://localhost:11434/v1/", CHAT_API_KEY="sk-secret")
    settings = env(CHAT_MODEL="small")
    assert settings.chat_api_url == "http://localhost:11434/v1"
    assert "sk-secret" not in repr(settings)


def test_webhook_wants_a_secret(env) -> None:
    with pytest.raises(SettingsError, match=r"^WEBHOOK_SECRET is not set: expected with WEBHOOK_URL"):
        env(WEBHOOK_URL="https://bot.example.org")


def test_telegram_calls_https_only(env) -> None:
    with pytest.raises(SettingsError, match=r"^WEBHOOK_URL='http://bot\.example\.org': expected https"):
        env(WEBHOOK_URL="http://bot.example.org", WEBHOOK_SECRET="s")
    assert env(TELEGRAM_API_URL="http://127.0.0.1:8081/").telegram_api_url == "http://127.0.0.1:8081"


def test_api_keys(env) -> None:
    keys = env(API_KEYS="plain, shop=abc==").api_keys
    assert {name: key.get_secret_value() for name, key in keys.items()} == {"key1": "plain", "shop": "abc=="}


def test_allowed_updates(env) -> None:
    assert env(ADMIN_CHAT_IDS="42, -1001234,42").admin_chat_ids == (42, -1001234)
    assert env(ALLOWED_UPDATES="message, callback_query").allowed_updates == ("message", "callback_query")


@pytest.mark.parametrize(
    ("bind", "address"), [("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:8000", ("::1", 8000)), ("host:1", ("host", 1))]
)
def test_address(bind: str, address: tuple[str, int], env) -> None:
    assert env(BIND=bind).address == address


def test_what_is_done_in_doubt(env) -> None:
    assert load_settings().uncertain_sends is Uncertain.RESEND
    assert env(UNCERTAIN_SENDS="Hold").uncertain_sends is Uncertain.HOLD


def test_how_long_a_call_waits_for_its_message(env) -> None:
    assert load_settings().sync_wait == 0
    assert env(SYNC_MESSAGE_PROCESSING="true").sync_wait == 15
    assert env(SEND_TIMEOUT="10m").sync_wait == 30


def test_they_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().queue_workers = 1  # type: ignore[misc]


GUNICORN = ["-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]


@pytest.mark.parametrize(
    ("command", "variables", "line"),
    [
        (GUNICORN, {"TELEGRAM_TOKEN": "1:a", "QUEUE_WORKERS": "x"}, "telequeue: QUEUE_WORKERS='x': expected"),
        (GUNICORN, {}, "telequeue: TELEGRAM_TOKEN is not set: expected"),
        (
            GUNICORN,
            {"TELEGRAM_TOKEN": "1:a", "BIND": "no-such.invalid:80"},
            "telequeue: BIND='no-such.invalid:80': exp",
        ),
        (GUNICORN, {"TELEGRAM_TOKEN": "1:a", "BIND": "192.0.2.1:80"}, "telequeue: BIND='192.0.2.1:80': expected an ad"),
        (["-c", "from bot.cli import main; main()", "up"], {"LOG_LEVEL": "x"}, "telequeue: LOG_LEVEL='x': expected"),
        (["-c", "from bot.cli import main; main()", "stats"], {"BIND": "x"}, "telequeue: BIND='x': expected"),
    ],
)
def test_programs_stop_with_one_line_and_exit_code_2(command: list[str], variables: dict[str, str], line: str) -> None:
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1
