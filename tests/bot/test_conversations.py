"""Conversations whose every update is handled by another process than the one before."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import Update
from telegram.ext import (
    ApplicationBuilder,
    ApplicationHandlerStop,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    InlineQueryHandler,
    MessageHandler,
    TypeHandler,
    filters,
)

from bot.conversations import conversations_of, places
from bot.pickling import StateError
from bot.stateful import StatefulApplication
from tests.bot.processes import BOT, Process, Setup, message, press, process

Context = ContextTypes.DEFAULT_TYPE
STATE = f"{{telegram_messages}}:state:{BOT}"
END = ConversationHandler.END
TEXT = filters.TEXT & ~filters.COMMAND


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Any]:
    """Starts two processes of a bot."""
    async with AsyncExitStack() as stack:

        async def started(*handlers: Any) -> list[Process]:
            """handlers: functions that make a handler each, so that each process has handlers of its own."""
            return [await stack.enter_async_context(process(redis_url, _with(handlers))) for _ in range(2)]

        yield started


def _with(handlers: Sequence[Any]) -> Setup:
    def setup(builder: ApplicationBuilder) -> StatefulApplication:
        application = builder.build()
        for group, make in enumerate(handlers):
            application.add_handler(make(), group)
        return application

    return setup


class Steps:
    """Callbacks that note that they were called, and what for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def to(self, state: object, *, name: str = "", slowly: bool = False) -> Any:
        """A callback that leads to the state."""

        async def step(update: Update, context: Context) -> object:
            if slowly:
                await asyncio.sleep(0.01)
            self.seen.append(name or update.effective_message.text)
            return state

        return step

    def take(self) -> list[str]:
        taken, self.seen = self.seen, []
        return taken


@pytest.fixture
def steps() -> Steps:
    return Steps()


async def in_turns(processes: Sequence[Process], *updates: dict[str, Any]) -> None:
    turns = cycle(processes)
    for update in updates:
        await next(turns).handle(update)


async def test_each_step_is_taken_by_another_process(start: Any, steps: Steps, redis: Redis) -> None:
    def talk() -> Any:
        return ConversationHandler(
            [CommandHandler("start", steps.to("name"))],
            {
                "name": [MessageHandler(TEXT, steps.to(2, name="the name"))],
                2: [MessageHandler(TEXT, steps.to(END, name="the age"))],
            },
            [CommandHandler("cancel", steps.to(END))],
        )

    processes = await start(talk)
    texts = ("early", "/start", "Ada", "36", "late", "/start", "/cancel", "late")
    await in_turns(processes, *map(message, texts))
    assert steps.take() == ["/start", "the name", "the age", "/start", "/cancel"]
    assert await redis.keys() == []


async def test_conversations_of_different_users_do_not_meet(start: Any, steps: Steps) -> None:
    def talk() -> Any:
        states = {0: [MessageHandler(TEXT, steps.to(END))]}
        return ConversationHandler([CommandHandler("start", steps.to(0))], states, [])

    processes = await start(talk)
    await in_turns(processes, message("/start", user=1, chat=-5), message("x", user=2, chat=-5))
    await in_turns(processes, message("y", user=1, chat=-6), message("z", user=1, chat=-5))
    assert steps.take() == ["/start", "z"]


@pytest.mark.parametrize(
    ("settings", "heard"),
    [
        ({"per_user": False}, ["/start", "other in chat"]),
        ({"per_chat": False}, ["/start", "elsewhere"]),
    ],
)
async def test_a_conversation_may_be_a_chat_s_or_a_user_s(
    start: Any, steps: Steps, settings: dict[str, bool], heard: list[str]
) -> None:
    def talk() -> Any:
        states = {0: [MessageHandler(TEXT, steps.to(END))]}
        return ConversationHandler([CommandHandler("start", steps.to(0))], states, [], **settings)

    processes = await start(talk)
    await in_turns(
        processes,
        message("/start", user=1, chat=-5),
        message("other in chat", user=2, chat=-5),
        message("elsewhere", user=1, chat=-6),
    )
    assert steps.take() == heard


async def test_nested_conversations_end_into_their_parents(start: Any, steps: Steps, redis: Redis) -> None:
    def talk() -> Any:
        inner = ConversationHandler(
            [CommandHandler("deeper", steps.to("inside"))],
            {"inside": [MessageHandler(TEXT, steps.to(END, name="inner"))]},
            [CommandHandler("stop", steps.to("stopping", name="inner stop"))],
            map_to_parent={END: "again", "stopping": END},
        )
        middle = ConversationHandler(
            [CommandHandler("deep", steps.to("middle"))],
            {
                "middle": [inner, CommandHandler("up", steps.to(END, name="up"))],
                "again": [inner, CommandHandler("up", steps.to(END, name="up again"))],
            },
            [CommandHandler("stop", steps.to("stopping", name="middle stop"))],
            map_to_parent={END: "outside", "stopping": END},
        )
        return ConversationHandler(
            [CommandHandler("start", steps.to("outside"))],
            {"outside": [middle, MessageHandler(TEXT, steps.to(None, name="outer"))]},
            [CommandHandler("stop", steps.to(END, name="outer stop"))],
        )

    processes = await start(talk)
    texts = ("/start", "x", "/deep", "/up", "x", "/deep", "/deeper", "y", "/deeper", "z", "/up", "x", "/stop", "x")
    await in_turns(processes, *map(message, texts))
    told = "/start outer /deep up outer /deep /deeper inner /deeper inner up_again outer outer_stop"
    assert steps.take() == [word.replace("_", " ") for word in told.split()]
    assert await redis.keys() == []
    await in_turns(processes, *map(message, ("/start", "/deep", "/deeper", "/stop", "/stop")))
    assert steps.take() == ["/start", "/deep", "/deeper", "inner stop", "outer stop"]
    assert await redis.keys() == []


async def test_each_message_has_a_conversation_of_its_own(start: Any, steps: Steps, redis: Redis) -> None:
    def talk() -> Any:
        return ConversationHandler(
            [CallbackQueryHandler(steps.to(0, name="up"), pattern="up")],
            {0: [CallbackQueryHandler(steps.to(END, name="down"), pattern="down")]},
            [],
            per_message=True,
        )

    processes = await start(talk)
    pressed = (("up", 7), ("up", 8), ("down", 7), ("down", 7), ("down", 8))
    await in_turns(processes, *(press(data, message_id=id) for data, id in pressed))
    assert steps.take() == ["up", "up", "down", "down"]
    assert await redis.keys() == []


async def test_a_state_that_comes_of_a_handler_that_does_not_block(start: Any, steps: Steps, redis: Redis) -> None:
    def talk() -> Any:
        return ConversationHandler(
            [CommandHandler("start", steps.to(0, slowly=True))],
            {
                0: [MessageHandler(TEXT, steps.to(None, name="stay", slowly=True))],
                ConversationHandler.WAITING: [MessageHandler(TEXT, steps.to(None, name="too early"))],
            },
            [CommandHandler("stop", steps.to(END, slowly=True))],
            block=False,
        )

    processes = await start(talk)
    await in_turns(processes, *map(message, ("/start", "x", "x", "/stop", "x")))
    assert steps.take() == ["/start", "stay", "stay", "/stop"]
    assert await redis.keys() == []


async def test_a_handler_that_does_not_block_and_fails_leaves_the_conversation_where_it_was(
    start: Any, steps: Steps
) -> None:
    async def fail(update: Update, context: Context) -> int:
        raise ValueError("no")

    def talk() -> Any:
        states = {0: [CommandHandler("fail", fail), MessageHandler(TEXT, steps.to(END))]}
        return ConversationHandler([CommandHandler("start", steps.to(0))], states, [], block=False)

    one, other = await start(talk)
    await one.handle(message("/start"))
    with pytest.raises(ValueError, match="no"):
        await other.handle(message("/fail"))
    await one.handle(message("x"))
    assert steps.take() == ["/start", "x"]


async def test_a_state_set_by_stopping_all_handlers(start: Any, steps: Steps) -> None:
    async def stop(update: Update, context: Context) -> None:
        raise ApplicationHandlerStop(1)

    def talk() -> Any:
        states = {1: [MessageHandler(TEXT, steps.to(END))]}
        return ConversationHandler([CommandHandler("start", stop)], states, [])

    processes = await start(talk, lambda: TypeHandler(Update, steps.to(None, name="later group")))
    await in_turns(processes, message("/start"), message("x"))
    assert steps.take() == ["x", "later group"]


async def test_updates_without_a_chat_or_user_pass_by(start: Any, steps: Steps) -> None:
    def talk() -> Any:
        states = {0: [InlineQueryHandler(steps.to(None, name="inline"))]}
        return ConversationHandler([InlineQueryHandler(steps.to(0, name="inline"))], states, [], per_chat=False)

    processes = await start(
        talk,
        lambda: ConversationHandler([CommandHandler("start", steps.to(0))], {0: []}, []),
        lambda: TypeHandler(Update, steps.to(None, name="any")),
    )
    person = {"id": 1, "is_bot": False, "first_name": "A"}
    inline = {"id": "1", "from": person, "query": "", "offset": ""}
    poll = {"id": "1", "question": "?", "options": [], "total_voter_count": 0, "is_closed": True}
    poll |= {"is_anonymous": True, "type": "regular", "allows_multiple_answers": False}
    poll |= {"allows_revoting": False, "members_only": False}
    post = {"message_id": 1, "date": 1, "chat": {"id": -1005, "type": "channel", "title": "News"}, "text": "x"}
    updates: list[dict[str, Any]] = [{"inline_query": inline}, {"poll": poll}, {"channel_post": post}]
    await in_turns(processes, *({"update_id": number, **update} for number, update in enumerate(updates)))
    assert steps.take() == ["inline", "any", "any", "any"]


async def test_a_timeout_is_known_by_its_job_in_all_processes(start: Any, steps: Steps, redis: Redis) -> None:
    """The job of a conversation's timeout is removed by the process that handles its next update."""

    def talk() -> Any:
        states = {0: [MessageHandler(TEXT, steps.to(END))]}
        return ConversationHandler([CommandHandler("start", steps.to(0))], states, [], conversation_timeout=60)

    jobs = Jobs()
    processes = await start(talk)
    for at in processes:
        at.application._job_queue = jobs
    await processes[0].handle(message("/start"))
    assert pickle.loads((await _stored(processes[0]))["conversation 0/0 1001 1001"]) == (0, "job 1")
    await processes[1].handle(message("x"))
    assert jobs.removed == ["job 1"]
    assert await redis.keys() == []


async def test_a_timeout_ends_the_conversation_in_whichever_process_it_comes(
    start: Any, steps: Steps, redis: Redis
) -> None:
    def talk() -> Any:
        states = {
            0: [MessageHandler(TEXT, steps.to(END))],
            ConversationHandler.TIMEOUT: [MessageHandler(filters.ALL, steps.to(None, name="too late"))],
        }
        return ConversationHandler([CommandHandler("start", steps.to(0))], states, [], conversation_timeout=60)

    jobs = Jobs()
    one, other = await start(talk)
    for at in (one, other):
        at.application._job_queue = jobs
    fields = message("/start")
    await one.handle(fields)
    handler = conversations_of(other.application)["0/0"]
    update = Update.de_json(fields, other.application.bot)
    await other.run(update, lambda: jobs.ring(handler, update, other.application))
    assert steps.take() == ["/start", "too late"]
    assert await redis.keys() == []


class Job:
    """What a conversation needs of the job that is its timeout."""

    def __init__(self, queue: "Jobs", id: str) -> None:
        self.id = id
        self.job = self
        self.data: Any = None
        self.chat_id = self.user_id = None
        self._queue = queue

    def schedule_removal(self) -> None:
        self._queue.removed.append(self.id)


class Jobs:
    """What a conversation needs of a job queue."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.scheduler = self
        self.running = True
        self._jobs: dict[str, Job] = {}

    def run_once(self, _callback: Any, _when: object, data: Any = None) -> Job:
        job = self.job_of(f"job {len(self._jobs) + 1}")
        job.data = data
        return job

    def job_of(self, id: str) -> Job:
        return self._jobs.setdefault(id, Job(self, id))

    async def ring(self, handler: Any, update: Update, application: Any) -> None:
        (job,) = self._jobs.values()
        context = application.context_types.context.from_job(job, application)
        job.data = type(job.data)(job.data.conversation_key, update, application, context)
        await handler._trigger_timeout(context)

    async def start(self) -> None: ...
    async def stop(self, wait: bool = True) -> None: ...


async def _stored(at: Process) -> dict[str, bytes]:
    return await at.store.read_all(f"state:{BOT}")


async def test_a_state_that_does_not_pickle_is_named(start: Any, steps: Steps) -> None:
    def talk() -> Any:
        state = lambda: 0  # noqa: E731
        return ConversationHandler([CommandHandler("start", steps.to(state))], {state: []}, [])

    one, _ = await start(talk)
    with pytest.raises(StateError, match="conversation 0/0 1001 1001 cannot be stored"):
        await one.handle(message("/start"))


async def test_conversations_at_the_same_time_in_one_process(start: Any, steps: Steps) -> None:
    everybody = asyncio.Barrier(10)

    async def begin(update: Update, context: Context) -> int:
        await everybody.wait()
        return 0

    def talk() -> Any:
        states = {0: [MessageHandler(TEXT, steps.to(END))]}
        return ConversationHandler([CommandHandler("start", begin)], states, [])

    one, other = await start(talk)
    await asyncio.gather(*(one.handle(message("/start", user=user)) for user in range(1, 11)))
    await asyncio.gather(*(other.handle(message(f"{user}", user=user)) for user in range(1, 11)))
    assert sorted(steps.take()) == sorted(map(str, range(1, 11)))
    assert all(len(place._conversations) == 0 for place in conversations_of(one.application).values())


def test_conversations_are_named_by_their_place_or_their_own_name(redis_url: str) -> None:
    def conversation(*inner: Any, **more: Any) -> Any:
        return ConversationHandler([CommandHandler("x", END), *inner], {0: []}, [], **more)

    shared = conversation()
    outer = conversation(conversation(shared), shared)
    builder = ApplicationBuilder().application_class(StatefulApplication).token(f"{BOT}:a").job_queue(None)
    application = builder.build()
    application.share_state(application)
    application.add_handler(CommandHandler("y", END))
    application.add_handler(outer)
    application.add_handler(conversation(name="mine", persistent=True), 3)
    assert list(conversations_of(application)) == ["0/0", "0/0/0", "0/0/0/0", "mine"]
    update = Update.de_json(message("x", user=5, chat=-6), application.bot)
    fields = [place.field for place in places(application, update)]
    assert fields[0] == "conversation 0/0 -6 5"
    assert fields[-1] == "conversation mine -6 5"
