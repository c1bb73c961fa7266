"""The application as BOT_APP's function likes it, and what is called at its beginning and end."""

import asyncio
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
from telegram.constants import ParseMode
from telegram.ext import Application, CallbackContext, CommandHandler, ContextTypes, Defaults, PicklePersistence

from bot.application import BotAppFailed, Builder, Hooks, Parts, TelequeueApplication, make_application
from bot.line import MemoryLine
from bot.outbox import Outbox
from bot.queued_bot import GetMeCache, QueuedBot
from bot.services import Services
from bot.transport import AiohttpRequest
from queueing.limits import RateLimits
from queueing.memory_queue import MemoryQueue
from tests.conftest import wait_until

BOT = "110201543"


async def hi(update: object, context: object) -> None: ...


def make_bot(**said: Any) -> QueuedBot:
    async def load() -> str:
        return f'{{"id": {BOT}, "is_bot": true, "first_name": "Demo", "username": "demo_bot"}}'

    async def save(text: str) -> None: ...

    return QueuedBot(
        f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        api_url="http://127.0.0.1:9",
        outbox=Outbox(MemoryQueue(), lambda event: None, BOT),
        request=AiohttpRequest(1.0),
        get_me_cache=GetMeCache(load, save),
        **said,
    )


@pytest.fixture
def services() -> Services:
    return Services(MemoryQueue().stats, RateLimits(), MemoryLine())


@pytest.fixture
def builder(services: Services) -> Builder:
    return Builder(Parts(make_bot, services, shared=True))


async def test_a_function_that_takes_the_application(builder: Builder, services: Services) -> None:
    seen: list[object] = []

    def setup(application: Application) -> None:
        seen.append(application.telequeue)
        application.add_handler(CommandHandler("hi", hi))

    application = await make_application(setup, builder)
    assert isinstance(application, TelequeueApplication)
    assert isinstance(application.bot, QueuedBot)
    assert [handler.commands for handler in application.handlers[0]] == [{"hi"}]
    assert seen == [services]
    assert builder.ignored == {}


async def test_a_coroutine_function(builder: Builder) -> None:
    async def setup(application: Application) -> None:
        await asyncio.sleep(0)
        application.add_handler(CommandHandler("hi", hi))

    assert (await make_application(setup, builder)).handlers


class Context(CallbackContext): ...


async def test_a_function_that_takes_the_builder(builder: Builder) -> None:
    async def post_init(application: object) -> None: ...

    def setup(builder: Any) -> Application:
        builder.context_types(ContextTypes(context=Context, user_data=set)).post_init(post_init)
        builder.defaults(Defaults(parse_mode=ParseMode.HTML)).arbitrary_callback_data(64)
        application = builder.build()
        application.add_handler(CommandHandler("hi", hi))
        return application

    application = await make_application(setup, builder)
    assert application.handlers
    assert application.context_types.context is Context
    assert application.post_init is post_init
    assert application.bot.defaults.parse_mode == ParseMode.HTML
    assert application.bot.callback_data_cache.maxsize == 64


@pytest.mark.parametrize("returns", ["builder", "nothing"])
async def test_a_builder_that_nobody_has_built(builder: Builder, returns: str) -> None:
    async def setup(builder: Any) -> object:
        builder.defaults(Defaults(parse_mode=ParseMode.HTML))
        return builder if returns == "builder" else None

    assert (await make_application(setup, builder)).bot.defaults.parse_mode == ParseMode.HTML


async def test_what_telequeue_decides_is_passed_over(builder: Builder, tmp_path: Path) -> None:
    def setup(builder: Any) -> None:
        builder.token("123:abc").base_url("http://elsewhere/bot").concurrent_updates(True).read_timeout(3)
        builder.get_updates_proxy("http://proxy").persistence(PicklePersistence(tmp_path / "state")).rate_limiter(None)
        builder.job_queue(None).updater(None)

    application = await make_application(setup, builder)
    assert application.bot.token.startswith(BOT)
    assert application.bot.base_url.startswith("http://127.0.0.1:9")
    assert application.persistence is None
    assert set(builder.ignored) == {
        *("token", "base_url", "concurrent_updates", "read_timeout", "get_updates_proxy"),
        *("persistence", "rate_limiter", "job_queue", "updater"),
    }
    assert "abc" not in str(builder.ignored)


async def test_without_the_shared_queue_state_and_jobs_are_the_bots(services: Services, tmp_path: Path) -> None:
    builder = Builder(Parts(make_bot, services, shared=False))
    persistence = PicklePersistence(tmp_path / "state")
    application = await make_application(lambda builder: builder.persistence(persistence), builder)
    assert application.persistence is persistence
    assert application.job_queue is not None
    assert builder.ignored == {}


async def test_an_application_class_of_its_own(builder: Builder) -> None:
    class Mine(Application):
        def __init__(self, word: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.word = word

    application = await make_application(lambda builder: builder.application_class(Mine, {"word": "x"}), builder)
    assert isinstance(application, Mine)
    assert isinstance(application, TelequeueApplication)
    assert application.word == "x"


async def test_every_setter_of_ptb_is_known(builder: Builder) -> None:
    """A new version may bring one of which we have to say what becomes of it."""
    kept = {
        *("application_class", "arbitrary_callback_data", "bot", "build", "context_types", "defaults", "job_queue"),
        *("persistence", "post_init", "post_shutdown", "post_stop", "private_key"),
    }
    names = {name for name in dir(builder) if not name.startswith("_")}
    passed_over = {name for name in names if getattr(builder, name).__class__.__name__ == "method"} - kept
    for name in passed_over:
        getattr(builder, name)("x")
    assert passed_over == set(builder.ignored)
    assert names - passed_over - kept == {"built", "ignored"}


def raises(application: object) -> None:
    raise KeyError("TOKEN")


async def raises_later(application: object) -> None:
    raise KeyError("TOKEN")


def runs_it(application: Application) -> None:
    application.run_polling()


def brings_a_bot(builder: Any) -> None:
    builder.bot(make_bot())


def returns_another(builder: Any) -> Application:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Application.builder().token("123:abc").build()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raises, "raised KeyError: 'TOKEN'"),
        (raises_later, "raised KeyError: 'TOKEN'"),
        (runs_it, "telequeue runs the application"),
        (brings_a_bot, "telequeue brings the bot"),
        (returns_another, "did not build"),
    ],
)
async def test_a_function_that_fails(function: Any, words: str, builder: Builder) -> None:
    with pytest.raises(BotAppFailed, match=words):
        await make_application(function, builder)


@pytest.fixture
async def hooked(builder: Builder) -> tuple[Application, Hooks]:
    application = builder.build()
    return application, Hooks(application)


async def test_post_init_is_tried_until_it_ends_well(
    hooked: tuple[Application, Hooks], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    application, hooks = hooked
    tries: list[object] = []
    let_in = asyncio.Event()

    async def post_init(given: object) -> None:
        tries.append(given)
        if not let_in.is_set():
            raise ConnectionError("the database is away")

    application.post_init = post_init
    monkeypatch.setattr("bot.application.pause_after", lambda error, failures: 0.01)
    running = asyncio.create_task(hooks.post_init())
    await wait_until(lambda: len(tries) > 2, "some tries")
    assert hooks.problem == "the bot's post_init fails: ConnectionError: the database is away"
    let_in.set()
    await running
    assert hooks.problem is None
    assert set(tries) == {application}
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "told once"


async def test_a_post_stop_that_fails_does_not_keep_the_rest_from_ending(
    hooked: tuple[Application, Hooks], caplog: pytest.LogCaptureFixture
) -> None:
    application, hooks = hooked
    ended: list[object] = []

    async def post_stop(given: object) -> None:
        raise RuntimeError("mine")

    async def post_shutdown(given: object) -> None:
        ended.append(given)

    application.post_stop, application.post_shutdown = post_stop, post_shutdown
    await hooks.post_shutdown()
    assert not ended, "nothing had begun"
    await hooks.post_init()
    await hooks.post_stop()
    await hooks.post_shutdown()
    assert ended == [application]
    assert "post_stop failed" in caplog.text
