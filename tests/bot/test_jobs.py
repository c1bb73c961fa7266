"""Jobs of several processes: each occurrence runs once, wherever it was made, and in the turn of its chat."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from redis.asyncio import Redis
from telegram import Update
from telegram.ext import CallbackQueryHandler, ConversationHandler, MessageHandler, filters

from bot.job_callbacks import Timeout, place_of
from bot.job_schedule import next_run
from bot.playground import Config, Playground, start_playground
from bot.run import CURRENT, Run
from bot.store import below_tag
from queueing.errors import QueueUnavailable
from tests.bot import job_bot
from tests.bot.job_bot import BOT, HEARD, TOKEN, Process
from tests.conftest import Server, wait_until

ROOT = Path(__file__).parents[2]
Start = Callable[..., Awaitable[Process]]


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[Any]]:
    HEARD.clear()
    yield HEARD
    HEARD.clear()


@pytest.fixture
async def stand_in() -> AsyncIterator[Playground]:
    playground = await start_playground(config=Config(token=TOKEN))
    yield playground
    await playground.close()


@pytest.fixture
async def start(redis_url: str, stand_in: Playground) -> AsyncIterator[Start]:
    """Starts what several processes would have."""
    started: list[Process] = []

    async def start(*, before: Callable[[Any], object] | None = None, works: bool = True, **more: Any) -> Process:
        process = Process(redis_url, stand_in.url, **more)
        started.append(process)
        if before is not None:
            before(process.jobs)
        await process.start(works=works)
        return process

    yield start
    for process in reversed(started):
        await process.stop()


@pytest.fixture(autouse=True)
def fails() -> Iterator[None]:
    job_bot.FAILS.append(True)
    yield
    job_bot.FAILS.clear()


async def no_key(redis: Redis, name: str) -> bool:
    return not [key async for key in redis.scan_iter(below_tag(f"jobs:{BOT}*")) if name in key]


async def nothing_left(redis: Redis) -> bool:
    """Whether no job is kept."""
    return not [
        key async for key in redis.scan_iter(below_tag(f"jobs:{BOT}*")) if ":ran:" not in key and ":failed:" not in key
    ]


async def test_a_job_runs_once_in_one_of_several_processes(start: Start, redis: Redis) -> None:
    processes = [await start() for _ in range(3)]
    for number in range(20):
        processes[number % 3].jobs.run_once(job_bot.note, 0.2, data=number, chat_id=number)
    await wait_until(lambda: len(HEARD) >= 20, "all to run")
    await wait_until(lambda: nothing_left(redis), "nothing to be kept of them")
    assert sorted(HEARD) == list(range(20))


async def test_a_timer_is_replaced_and_removed_by_other_processes(start: Start, redis: Redis) -> None:
    one, other = await start(works=False), await start()
    await one.hear(1, "/set 600")
    await wait_until(lambda: HEARD == ["set"], "the timer to be set")
    await one.hear(2, "/set 0.5")
    await wait_until(lambda: len(HEARD) == 3, "the second timer to ring")
    assert HEARD == ["set", "replaced", "timer of 42"]
    await one.hear(3, "/unset")
    await one.hear(4, "/set 600")
    await other.hear(5, "/unset")
    await wait_until(lambda: len(HEARD) == 6, "the rest")
    assert HEARD[3:] == ["none", "set", "unset"]
    await wait_until(lambda: nothing_left(redis), "nothing to be kept of them")


async def test_jobs_of_a_run_that_failed_are_not_made(start: Start, redis: Redis) -> None:
    process = await start()
    await process.hear(1, "/fail")
    await wait_until(lambda: HEARD.count("tried") >= 3, "the third attempt")
    await wait_until(lambda: "of a run that failed" in HEARD, "the job that the last attempt made")
    await wait_until(lambda: nothing_left(redis), "nothing to be kept")
    assert HEARD.count("of a run that failed") == 1


async def test_a_repeating_job_goes_on_and_remembers(start: Start) -> None:
    processes = [await start() for _ in range(2)]
    processes[0].jobs.run_repeating(job_bot.count_up, 0.2, first=0.05, data={"times": 0}, name="up")
    await wait_until(lambda: len(HEARD) >= 4, "four occurrences")
    (job,) = processes[1].jobs.get_jobs_by_name("up")
    job.schedule_removal()
    assert HEARD[:4] == [1, 2, 3, 4]
    assert processes[0].jobs.get_jobs_by_name("up") == ()


async def test_the_last_occurrence_ends_a_repeating_job(start: Start, redis: Redis) -> None:
    process = await start()
    process.jobs.run_repeating(job_bot.note, 0.2, first=0.05, last=0.5, data="tick")
    await wait_until(lambda: nothing_left(redis), "the job to be over")
    assert 2 <= len(HEARD) <= 3


async def test_a_job_may_end_itself(start: Start, redis: Redis) -> None:
    process = await start()
    process.jobs.run_repeating(job_bot.stop_itself, 0.1, data="once")
    await wait_until(lambda: bool(HEARD), "its first occurrence")
    await wait_until(lambda: nothing_left(redis), "the job to be gone")
    assert HEARD == ["once"]


async def test_times_are_as_in_one_process(start: Start) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    process, other = await start(works=False), await start(works=False)
    process.jobs.run_daily(job_bot.note, time(9, 30, tzinfo=berlin), days=(1,), name="daily")
    process.jobs.run_monthly(job_bot.note, time(8, 0), day=-1, name="monthly")
    process.jobs.run_once(job_bot.note, datetime(2090, 1, 1, tzinfo=UTC), name="far")
    process.jobs.run_custom(job_bot.note, {"trigger": "cron", "minute": 7}, name="custom")
    next_of = {job.name: job.next_t for job in other.jobs.jobs()}
    daily, monthly = next_of["daily"], next_of["monthly"]
    assert daily is not None
    assert monthly is not None
    assert (daily.astimezone(berlin).strftime("%a %H:%M"), daily > datetime.now(UTC)) == ("Mon 09:30", True)
    assert (monthly + timedelta(days=1)).day == 1
    assert monthly.hour == 8
    assert next_of["far"] == datetime(2090, 1, 1, tzinfo=UTC)
    assert next_of["custom"] is not None
    assert next_of["custom"].minute == 7
    assert {job.name for job in other.jobs.jobs("^(dai|mon)")} == {"daily", "monthly"}


@pytest.mark.parametrize("behind", [timedelta(milliseconds=40), timedelta(minutes=5)])
@pytest.mark.parametrize("coalesce", [True, False])
def test_a_daily_job_runs_once_a_day_though_the_clock_of_its_process_is_behind(
    behind: timedelta, coalesce: bool
) -> None:
    fired = datetime(2026, 1, 2, 9, tzinfo=UTC)
    trigger = CronTrigger(hour=9, timezone=UTC)
    assert next_run(trigger, fired, fired - behind, coalesce=coalesce) == fired + timedelta(days=1)


async def test_a_job_survives_a_restart_and_runs_late(start: Start) -> None:
    first = await start(works=False)
    first.jobs.run_once(job_bot.note, 0.1, data="late", user_id=7)
    first.jobs.run_repeating(job_bot.note, 0.1, data="missed", name="often")
    first.jobs.run_repeating(job_bot.note, 0.1, data="strict", name="strict", job_kwargs={"misfire_grace_time": 1})
    await first.stop()
    await asyncio.sleep(1.3)  # nothing runs meanwhile: that is what is tested
    second = await start()
    await wait_until(lambda: HEARD.count("missed") >= 3 and HEARD.count("strict") >= 2, "them to go on")
    for job in second.jobs.jobs():
        job.schedule_removal()
    assert HEARD.count("late") == 1
    assert HEARD.count("missed") <= 6, "of those missed one is run"


async def test_a_paused_job_waits(start: Start) -> None:
    one, other = await start(), await start()
    one.jobs.run_repeating(job_bot.note, 0.3, data="tick", name="ticking")
    (job,) = other.jobs.get_jobs_by_name("ticking")
    first = job.next_t
    await wait_until(lambda: job.next_t != first, "it to have run, with the next one to come")
    job.enabled = False
    seen = len(HEARD)
    assert job.next_t is None
    assert not one.jobs.get_jobs_by_name("ticking")[0].enabled
    await asyncio.sleep(0.5)
    assert len(HEARD) == seen
    job.enabled = True
    await wait_until(lambda: len(HEARD) > seen, "it to go on")
    job.schedule_removal()


async def test_a_job_that_fails(start: Start, redis: Redis) -> None:
    process = await start()
    process.application.add_error_handler(job_bot.note_error)
    process.jobs.run_once(job_bot.fail, 0, data="mine", chat_id=42)
    await wait_until(lambda: ("RuntimeError", "mine") in HEARD, "the error handler to hear of it")
    assert HEARD == ["mine"] * 3 + [("RuntimeError", "mine")]
    await wait_until(lambda: nothing_left(redis), "the job to be over")

    async def letter() -> bool:
        return bool(await process.inbox.dead_letters())

    await wait_until(letter, "the dead letter")
    (dead,) = await process.inbox.dead_letters()
    assert "a mistake in a job" in dead.error
    assert "job_bot.py" in dead.error
    HEARD.clear()
    assert await process.inbox.redrive_all() == 1
    await wait_until(lambda: len(HEARD) == 4, "it to be tried again")
    await wait_until(letter, "the dead letter, again")
    job_bot.FAILS.clear()
    assert await process.inbox.redrive_all() == 1
    await wait_until(lambda: len(HEARD) == 5, "it to succeed")
    await wait_until(lambda: no_key(redis, ":failed:"), "nothing to be kept of it")


async def test_a_repeating_job_that_fails_goes_on(start: Start) -> None:
    process = await start()
    process.jobs.run_repeating(job_bot.fail, 3600, first=0.1, data="mine", name="failing")
    (job,) = process.jobs.get_jobs_by_name("failing")
    first = job.next_t
    await wait_until(lambda: len(HEARD) == 3, "its attempts")

    def moved_on() -> bool:
        (again,) = process.jobs.get_jobs_by_name("failing")
        return bool(first and again.next_t and again.next_t - first > timedelta(minutes=59))

    await wait_until(moved_on, "the next occurrence to be set")


async def test_a_repeating_job_goes_on_though_an_occurrence_is_poison(start: Start, redis: Redis) -> None:
    alive = await start(works=False)
    alive.jobs.run_repeating(job_bot.hang, 3600, first=0.1, name="deadly")
    for _ in range(2):
        dead = await start(works=False)

        async def taken(dead: Process = dead) -> bool:
            return bool((await dead.inbox.claim(1)).leases)

        await wait_until(taken, "it to be taken")
        await die(redis, dead, alive)
    dead = await start()
    try:
        await wait_until(lambda: HEARD == ["hung"], "it to run")

        async def poison() -> bool:
            await die(redis, dead, alive)  # it is alive, and may be heard in between
            return [letter.reason for letter in await alive.inbox.dead_letters()] == ["poison"]

        await wait_until(poison, "whichever process looks to bury it")
    finally:
        HEARD[:] = ["go on"]
    (job,) = alive.jobs.get_jobs_by_name("deadly")
    following = job.next_t
    assert following
    assert following > datetime.now(UTC) + timedelta(minutes=59)
    assert await alive.inbox.redrive_all() == 1
    await wait_until(lambda: "hung" in HEARD, "the replay to run")
    await wait_until(lambda: no_key(redis, ":failed:"), "nothing to be kept of it")
    assert alive.jobs.get_jobs_by_name("deadly")[0].next_t == following


async def die(redis: Redis, dead: Process, alive: Process) -> None:
    await alive.inbox.claim(0)
    await redis.zadd(below_tag(f"updates:{BOT}:processes"), {dead.inbox.incarnation: 1})
    await alive.inbox.reap()


async def test_jobs_made_at_start_by_all_exist_once(start: Start) -> None:
    for _ in range(6):
        process = await start(before=job_bot.make_jobs)
    await wait_until(lambda: len(HEARD) >= 2, "both to run")
    await start(before=job_bot.make_jobs)
    await asyncio.sleep(0.6)  # as long as one of them would take
    assert sorted(HEARD) == ["at start, hourly", "at start, once"]
    assert len(process.jobs.get_jobs_by_name("hourly")) == 1


async def test_jobs_run_in_the_turn_of_their_chat_or_user(start: Start) -> None:
    one, other = await start(), await start()
    await one.hear(1, "/busy")
    await wait_until(lambda: HEARD == ["busy"], "the handler to begin")
    one.jobs.run_once(job_bot.note, 0, data="of the chat", chat_id=42)
    other.jobs.run_once(job_bot.note, 0, data="of the user", user_id=42)
    other.jobs.run_once(job_bot.note, 0, data="of nobody")
    await wait_until(lambda: len(HEARD) == 5, "all to run")
    assert HEARD[:3] == ["busy", "of nobody", "done"]
    assert set(HEARD[3:]) == {"of the chat", "of the user"}


async def test_a_job_that_is_removed_while_it_runs_stays_removed(start: Start, redis: Redis) -> None:
    one, other = await start(), await start(works=False)
    job = one.jobs.run_repeating(job_bot.take_long, 0.2, data={"times": 0}, name="long")
    await wait_until(lambda: bool(HEARD), "it to run")
    other.jobs.job_of(job.id).schedule_removal()
    await wait_until(lambda: "ended" in HEARD, "it to end")
    await wait_until(lambda: nothing_left(redis), "what its run left to go")
    assert HEARD == ["begun", "ended"]


async def test_a_job_that_is_paused_while_it_runs_stays_paused_and_remembers(start: Start) -> None:
    one, other = await start(), await start(works=False)
    job = one.jobs.run_repeating(job_bot.take_long, 0.2, data={"times": 0}, name="long")
    await wait_until(lambda: bool(HEARD), "it to run")
    theirs = other.jobs.job_of(job.id)
    theirs.enabled = False
    await wait_until(lambda: "ended" in HEARD, "it to end")
    await wait_until(lambda: other.jobs.jobs()[0].data == {"times": 1}, "what it remembers to be stored")
    assert theirs.next_t is None
    theirs.enabled = True
    await wait_until(lambda: HEARD.count("ended") == 2, "it to go on")
    theirs.schedule_removal()


async def test_a_job_that_is_rescheduled_while_it_runs_stays_so(start: Start) -> None:
    one, other = await start(), await start(works=False)
    job = one.jobs.run_repeating(job_bot.take_long, 0.2, data={"times": 0}, name="long")
    await wait_until(lambda: bool(HEARD), "it to run")
    theirs = other.jobs.job_of(job.id)
    theirs.job.reschedule("interval", seconds=3600)
    asked_for = theirs.next_t
    await wait_until(lambda: "ended" in HEARD, "it to end")
    await wait_until(lambda: other.jobs.jobs()[0].data == {"times": 1}, "what it remembers to be stored")
    assert theirs.next_t == asked_for
    assert theirs.job.trigger.interval == timedelta(hours=1)
    assert HEARD == ["begun", "ended"]


async def test_a_job_that_is_rescheduled_in_its_last_run_is_not_over(start: Start, redis: Redis) -> None:
    one, other = await start(), await start(works=False)
    job = one.jobs.run_once(job_bot.take_long, 0.1, data={"times": 0}, name="once")
    await wait_until(lambda: bool(HEARD), "it to run")
    other.jobs.job_of(job.id).job.reschedule("date", run_date=datetime.now(UTC) + timedelta(seconds=0.7))
    await wait_until(lambda: HEARD.count("ended") == 2, "it to run again")
    await wait_until(lambda: nothing_left(redis), "nothing to be kept of it")
    assert HEARD == ["begun", "ended"] * 2


async def test_jobs_made_at_start_wait_for_redis(own_server: Server, stand_in: Playground) -> None:
    own_server.stop()
    process = Process(own_server.url, stand_in.url)
    job_bot.make_jobs(process.jobs)
    starting = asyncio.create_task(process.start())
    own_server.start()
    await starting
    try:
        await wait_until(lambda: len(HEARD) == 2, "the jobs to run")
    finally:
        await process.stop()
    assert sorted(HEARD) == ["at start, hourly", "at start, once"]


async def test_a_job_survives_the_servers_restart(own_server: Server, stand_in: Playground) -> None:
    process = Process(own_server.url, stand_in.url)
    await process.start()
    try:
        process.jobs.run_once(job_bot.note, 1, data="safe")
        own_server.kill()
        with pytest.raises(QueueUnavailable):
            process.jobs.get_jobs_by_name("note")
        own_server.start()
        await wait_until(lambda: HEARD == ["safe"], "the job to run")
    finally:
        await process.stop()


CHAT = {"id": -100, "type": "group", "title": "a group"}
USER = {"id": 7, "is_bot": False, "first_name": "Ada"}
MESSAGE = {"message_id": 5, "date": 1, "chat": CHAT, "from": USER, "text": "hello"}
BUTTON = {"id": "1", "from": USER, "chat_instance": "1", "data": "x"}


@pytest.mark.parametrize(
    ("fields", "per"),
    [
        ({"message": MESSAGE}, {}),
        ({"edited_message": MESSAGE}, {}),
        ({"message": MESSAGE}, {"per_user": False}),
        ({"message": MESSAGE}, {"per_chat": False}),
        ({"callback_query": {**BUTTON, "message": MESSAGE}}, {"per_message": True}),
        ({"callback_query": {**BUTTON, "inline_message_id": "i"}}, {"per_message": True, "per_chat": False}),
        ({"inline_query": {"id": "1", "from": USER, "query": "q", "offset": ""}}, {"per_chat": False}),
    ],
)
@pytest.mark.filterwarnings("ignore:If 'per_message=True':telegram.warnings.PTBUserWarning")
def test_a_timeout_is_of_the_same_conversation(fields: dict[str, Any], per: dict[str, Any]) -> None:
    entry = CallbackQueryHandler if per.get("per_message") else MessageHandler
    entry_point: Any = entry(job_bot.go_on) if entry is CallbackQueryHandler else entry(filters.ALL, job_bot.go_on)
    handler: Any = ConversationHandler([entry_point], {}, [], **per)
    update = Update.de_json({"update_id": 1, **fields}, None)
    place = Update.de_json(place_of(Timeout(handler._get_key(update), update, None)) or {}, None)
    assert handler._get_key(place) == handler._get_key(update)
    assert (place.effective_user, place.effective_chat and place.effective_chat.id) == (
        update.effective_user,
        update.effective_chat and update.effective_chat.id,
    )


async def test_jobs_for_later_are_no_backlog(redis_url: str, stand_in: Playground) -> None:
    process = Process(redis_url, stand_in.url, updates_max=5)
    await process.start()
    try:
        for number in range(10):
            process.jobs.run_once(job_bot.note, 600, data=number)
        await wait_until(lambda: _scheduled(process, 10), "all to be looked at")
        await process.hear(1, "/unset")
        await wait_until(lambda: HEARD == ["none"], "the update to be handled")
    finally:
        await process.stop()


async def _scheduled(process: Process, many: int) -> bool:
    return (await process.inbox.stats()).scheduled == many


async def test_six_processes_that_start_make_one(redis_url: str, redis: Redis, stand_in: Playground) -> None:
    code = "from tests.bot.job_bot import main; main()"
    command = [sys.executable, "-c", code, redis_url, stand_in.url]
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(6)
    ]
    told: list[str] = []

    async def listen(process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            told.append(line.decode().strip())  # noqa: PERF401  (as they come, not when it ends)

    async def ran() -> bool:
        """Whether all six have started, with their jobs made, and both have run."""
        return len(told) >= 2 and int(await redis.zcard(below_tag(f"updates:{BOT}:processes"))) == 6

    listeners = [asyncio.create_task(listen(process)) for process in processes]
    try:
        await wait_until(ran, "all to start and the jobs to run", timeout=60)
    finally:
        for process in processes:
            assert process.stdin
            process.stdin.close()
        await asyncio.gather(*listeners)
        errors = [(await process.communicate())[1].decode() for process in processes]
    assert sorted(told) == ["at start, hourly", "at start, once"], errors


async def test_a_conversation_times_out_in_another_process(start: Start, redis: Redis) -> None:
    first = await start(add=job_bot.add_conversation)
    await first.hear(1, "/begin")
    await first.hear(2, "hello")
    await wait_until(lambda: HEARD == ["begun", "on"], "the conversation to go on")
    await first.stop()
    second = await start(add=job_bot.add_conversation)
    await wait_until(lambda: len(HEARD) == 3, "its timeout")
    await second.hear(3, "still there?")
    await wait_until(lambda: len(HEARD) == 4, "the next message")
    assert HEARD == ["begun", "on", ("timed out", "hello", 1), "outside"]
    await wait_until(lambda: nothing_left(redis), "nothing to be kept of its timeouts")


async def test_a_conversation_that_goes_on_does_not_time_out(start: Start) -> None:
    processes = [await start(add=job_bot.add_conversation) for _ in range(2)]
    await processes[0].hear(1, "/begin")
    for number in range(2, 9):
        await asyncio.sleep(0.2)  # two fifths of its timeout
        await processes[number % 2].hear(number, f"text {number}")
    await wait_until(lambda: len(HEARD) == 9, "its timeout, at last")
    assert HEARD == ["begun"] + ["on"] * 7 + [("timed out", "text 8", 1)]


async def test_code_that_makes_a_job_in_another_way_replaces_it(start: Start) -> None:
    def before(jobs: Any) -> None:
        jobs.run_repeating(job_bot.note, 3600, data="x", name="same")
        jobs.run_repeating(job_bot.note, 7200, data="x", name="same")

    def after(jobs: Any) -> None:
        jobs.run_repeating(job_bot.note, 1800, data="x", name="same")
        jobs.run_repeating(job_bot.note, 7200, data="x", name="same")

    await start(before=before, works=False)
    new = await start(before=after, works=False)
    intervals = sorted(job.job.trigger.interval for job in new.jobs.get_jobs_by_name("same"))
    assert intervals == [timedelta(seconds=1800), timedelta(seconds=7200)]


async def test_a_job_that_the_code_makes_no_more_goes(start: Start) -> None:
    old = await start(before=lambda jobs: jobs.run_repeating(job_bot.note, 0.3, name="gone"), works=False)
    await old.stop()
    new = await start()
    await wait_until(lambda: not new.jobs.get_jobs_by_name("gone"), "it to be removed")
    assert HEARD == []


async def test_an_id_is_taken_once(start: Start) -> None:
    process = await start(works=False)
    process.jobs.run_once(job_bot.note, 600, data=1, job_kwargs={"id": "my job"})
    with pytest.raises(Exception, match="my job"):
        process.jobs.run_once(job_bot.note, 600, job_kwargs={"id": "my job"})
    process.jobs.run_once(job_bot.note, 600, data=2, job_kwargs={"id": "my job", "replace_existing": True})
    (job,) = process.jobs.jobs()
    assert job.data == 2
    job.schedule_removal()
    assert process.jobs.jobs() == ()


async def test_what_cannot_be_found_again_is_refused(start: Start) -> None:
    process = await start(works=False)

    async def within(_: Any) -> None:
        """A function within a function."""

    with pytest.raises(ValueError, match=r"within.* cannot be the callback of a job"):
        process.jobs.run_once(within, 1)
    with pytest.raises(ValueError, match="lambda"):
        process.jobs.run_once(lambda _: None, 1)
    with pytest.raises(ValueError, match="top level of a module"):
        process.jobs.run_once(process.hear, 1)
    with pytest.raises(RuntimeError, match="cannot be stored"):
        process.jobs.run_once(job_bot.note, 1, data=lambda: None)


async def test_a_run_sees_what_it_changed_before_it_is_stored(start: Start, redis: Redis) -> None:
    process = await start(works=False)
    process.jobs.run_once(job_bot.note, 600, data=1, name="old")
    run = Run("a run", quiet=True, sends=[])
    token = CURRENT.set(run)
    try:
        for job in process.jobs.get_jobs_by_name("old"):
            job.schedule_removal()
        new = process.jobs.run_once(job_bot.note, 600, data=2, name="new")
        assert process.jobs.get_jobs_by_name("old") == ()
        assert process.jobs.get_jobs_by_name("new") == (new,)
        assert process.jobs.get_jobs_by_name("new")[0] is new
        assert [job.data for job in process.jobs.jobs()] == [2]
        assert new.next_t is not None
        new.schedule_removal()
        assert process.jobs.jobs() == ()
        assert run.updates == []
    finally:
        CURRENT.reset(token)
    assert [job.data for job in process.jobs.jobs()] == [1], "nothing is stored before the commit"


async def test_a_job_is_one_object_while_it_is_held(start: Start) -> None:
    process = await start(works=False)
    job = process.jobs.run_once(job_bot.note, 600, data={"a": 1}, chat_id=5)
    assert process.jobs.job_of(job.id) is job
    assert process.jobs.jobs()[0] is job
    other = await start(works=False)
    same = other.jobs.job_of(job.id)
    assert (same.data, same.chat_id, same.name, same.callback) == ({"a": 1}, 5, "note", job_bot.note)
    assert same == job
