"""Long polling by one of several processes: nothing lost, a chat's updates in order, nobody held up by another."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import Update
from telegram.error import Conflict, InvalidToken, NetworkError
from telegram.ext import ApplicationBuilder, TypeHandler

from bot import patience, polling
from bot.identity import own_get_me
from bot.intake import InlineIntake, IntakeApplication
from bot.outbox import Outbox
from bot.patience import explain, pause_after
from bot.playground import Playground
from bot.playground.faults import Fault
from bot.polling import Poller
from bot.queued_bot import QueuedBot
from bot.stateful import AnyApplication
from bot.store import leader_key
from bot.transport import AiohttpRequest, Flood
from bot.updates import UpdateLog
from queueing.errors import QueueUnavailable
from queueing.memory_queue import MemoryQueue
from tests.bot.served import (
    BOT,
    SECRET,
    TOKEN,
    Gunicorn,
    application,
    calls,
    metric,
    processes,
    say,
    sent_texts,
    settings_for,
)
from tests.conftest import free_port, wait_until


class Polled:
    """A poller with one handler, `handle`, that a test may replace; it notes what was handled."""

    def __init__(self, bot: AnyApplication, request: AiohttpRequest) -> None:
        self.leads = True
        self.handled: list[tuple[int, str]] = []
        self.handle: Callable[[Update], Any] = self.note
        self.results: list[str] = []
        bot.add_handler(TypeHandler(Update, lambda update, context: self.handle(update)))
        intake = InlineIntake(bot, UpdateLog())
        self.poller = Poller(
            bot.bot, request, intake, lambda: self.leads, None, lambda result, seconds: self.results.append(result)
        )
        self.task: asyncio.Task[None] | None = None

    async def note(self, update: Update) -> None:
        assert update.effective_chat
        assert update.effective_message
        self.handled.append((update.effective_chat.id, update.effective_message.text or ""))

    def start(self) -> None:
        self.task = asyncio.create_task(self.poller.run())

    async def stop(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.wait({self.task})

    def texts(self, chat: int) -> list[str]:
        return [text for where, text in self.handled if where == chat]


@pytest.fixture
async def polled(playground: Playground) -> AsyncIterator[Polled]:
    request = AiohttpRequest(5.0)
    bot = QueuedBot(
        TOKEN,
        api_url=playground.url,
        outbox=Outbox(MemoryQueue(), lambda event: None, BOT),
        request=request,
        get_me_cache=own_get_me(),
    )
    made = ApplicationBuilder().application_class(IntakeApplication).bot(bot).updater(None).build()
    await made.initialize()
    await made.start()
    polled = Polled(made, request)
    yield polled
    await polled.stop()
    await made.stop()
    await made.shutdown()


def pending(playground: Playground) -> int:
    return len(playground.world.bots[int(BOT)].mailbox)


async def test_updates_are_handled_and_then_confirmed(polled: Polled, playground: Playground) -> None:
    say(playground, 42, "before it started")
    polled.start()
    await wait_until(lambda: polled.texts(42) == ["before it started"], "the first")
    say(playground, 42, "while it waited")
    await wait_until(lambda: len(polled.handled) == 2, "the second")
    await wait_until(lambda: pending(playground) == 0, "both to be confirmed")
    assert polled.results == ["handled", "handled"]


async def test_a_webhook_left_over_is_removed_first(polled: Polled, playground: Playground) -> None:
    await polled.poller._bot.set_webhook("http://127.0.0.1:1/nobody-listens")
    say(playground, 42, "hello")
    polled.start()
    await wait_until(lambda: polled.texts(42) == ["hello"], "it to be polled")
    assert calls(playground, "deleteWebhook") == 1


async def test_one_chat_is_in_order_and_others_do_not_wait_for_it(polled: Polled, playground: Playground) -> None:
    release = asyncio.Event()

    async def handle(update: Update) -> None:
        if update.effective_chat and update.effective_chat.id == 42:
            await release.wait()
        await polled.note(update)

    polled.handle = handle
    polled.start()
    for n in range(3):
        say(playground, 42, f"slow {n}")
    say(playground, 43, "quick")
    await wait_until(lambda: polled.texts(43) == ["quick"], "the other chat")
    say(playground, 43, "later")  # while the first still hangs
    await wait_until(lambda: polled.texts(43) == ["quick", "later"], "the other chat again")
    assert polled.texts(42) == []
    assert pending(playground) == 5  # nothing after the slow one is confirmed
    release.set()
    await wait_until(lambda: polled.texts(42) == ["slow 0", "slow 1", "slow 2"], "the slow chat")
    await wait_until(lambda: pending(playground) == 0, "all to be confirmed")
    assert len(polled.handled) == 5


async def test_more_than_one_batch_arrives_in_order(polled: Polled, playground: Playground) -> None:
    for n in range(250):
        say(playground, 42 + n % 3, str(n))
    polled.start()
    await wait_until(lambda: len(polled.handled) == 250, "all of them")
    for chat in (42, 43, 44):
        assert polled.texts(chat) == [str(n) for n in range(250) if 42 + n % 3 == chat]
    await wait_until(lambda: pending(playground) == 0, "all to be confirmed")


async def test_what_the_queue_does_not_take_is_tried_again_in_its_place(polled: Polled, playground: Playground) -> None:
    failures = 2

    async def handle(update: Update) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise QueueUnavailable
        await polled.note(update)

    polled.handle = handle
    for n in range(3):
        say(playground, 42, str(n))
    polled.start()
    await wait_until(lambda: polled.texts(42) == ["0", "1", "2"], "all in order")
    assert polled.results.count("unavailable") == 2


async def test_an_update_that_cannot_be_read_does_not_stop_the_others(polled: Polled, playground: Playground) -> None:
    mailbox = playground.world.bots[int(BOT)].mailbox
    mailbox.put("message", {"chat": "nonsense"}, ("chat", 42))
    say(playground, 42, "after it")
    polled.start()
    await wait_until(lambda: polled.texts(42) == ["after it"], "the next")
    await wait_until(lambda: pending(playground) == 0, "both to be confirmed")
    assert sorted(polled.results) == ["handled", "malformed"]


async def test_it_gets_over_errors_of_telegram(
    polled: Polled, playground: Playground, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "_FIRST", 0.01)
    faults = playground.world.faults
    faults.add(Fault(kind="error", method="deleteWebhook", count=1), None)
    faults.add(Fault(kind="error", method="getUpdates", count=1), None)
    faults.add(Fault(kind="reset_before", method="getUpdates", count=1), None)
    faults.add(Fault(kind="reset_after", method="getUpdates", count=1), None)
    say(playground, 42, "hello")
    polled.start()
    await wait_until(lambda: polled.texts(42) == ["hello"], "it to get through")
    assert "deleteWebhook does not work" in caplog.text
    assert "getUpdates does not work" in caplog.text
    assert "a-token-of-tests" not in caplog.text


async def test_who_no_longer_leads_confirms_nothing_and_handles_nothing(polled: Polled, playground: Playground) -> None:
    polled.start()
    await wait_until(lambda: calls(playground, "getUpdates") == 1, "the long poll")
    polled.leads = False  # as after SIGSTOP, when the answer is there before anything else
    say(playground, 42, "hello")
    assert polled.task
    await wait_until(polled.task.done, "it to end")
    assert polled.handled == []
    assert pending(playground) == 1
    assert calls(playground, "getUpdates") == 1


async def test_a_clean_end_lets_handlers_end_and_confirms_them(polled: Polled, playground: Playground) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def handle(update: Update) -> None:
        begun.set()
        await release.wait()
        await polled.note(update)

    polled.handle = handle
    polled.start()
    say(playground, 42, "in hand")
    say(playground, 42, "behind it")
    await begun.wait()
    assert polled.task
    polled.task.cancel()
    await asyncio.sleep(0)
    release.set()
    await asyncio.wait({polled.task})
    assert polled.texts(42) == ["in hand"]
    assert pending(playground) == 1


async def test_a_handler_that_does_not_end_is_left_to_the_next_process(
    polled: Polled, playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_LAST_HANDLERS", 0.05)
    begun = asyncio.Event()

    async def handle(update: Update) -> None:
        begun.set()
        await asyncio.Event().wait()

    polled.handle = handle
    polled.start()
    say(playground, 42, "for ever")
    await begun.wait()
    await polled.stop()
    assert pending(playground) == 1


def test_pauses_grow_up_to_a_limit_and_obey_telegram() -> None:
    for failures, most in ((1, 0.5), (2, 1.0), (3, 2.0), (50, 30.0)):
        for _ in range(50):
            assert most / 2 <= pause_after(NetworkError("x"), failures) <= most
    assert pause_after(InvalidToken(), 1) >= 10
    assert pause_after(Flood(7.0), 1) == 7.0


def test_common_causes_are_explained() -> None:
    assert "TELEGRAM_TOKEN" in explain(InvalidToken())
    assert "another program" in explain(Conflict("terminated by other getUpdates request"))


async def test_an_update_polled_is_answered(playground: Playground, redis_url: str) -> None:
    async with application(settings_for(playground.url, redis_url)) as client:
        say(playground, 42, "/ping")
        await wait_until(lambda: sent_texts(playground, 42) == ["pong"], "the answer")

        async def counted() -> bool:
            return metric((await client.get("/metrics")).text, "webhook_updates_total", result="accepted") == 1

        await wait_until(counted, "it to be counted")
        assert (await client.post("/telegram/webhook", json={"update_id": 1})).status_code == 401


async def test_with_a_webhook_telegram_is_told_once_and_posts(playground: Playground, redis_url: str) -> None:
    port = free_port()
    webhook = {"webhook_url": f"http://127.0.0.1:{port}", "webhook_secret": SECRET}
    async with application(settings_for(playground.url, redis_url, **webhook), port):
        say(playground, 42, "/ping")
        await wait_until(lambda: sent_texts(playground, 42) == ["pong"], "the answer")
    assert calls(playground, "setWebhook") == 1
    assert calls(playground, "getUpdates") == 0


async def leader_pid(redis: Redis) -> int:
    """The process that leads, as soon as there is one: between two of them there is none."""
    found: list[str] = []

    async def known() -> bool:
        found[:] = filter(None, [await redis.get(leader_key(BOT))])
        return bool(found)

    await wait_until(known, "somebody to lead")
    return int(found[0].split(":")[-2])


async def test_another_process_polls_when_the_leader_is_killed(
    playground: Playground, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=3)
    async with processes(gunicorn):
        say(playground, 42, "/ping")
        await wait_until(lambda: sent_texts(playground, 42) == ["pong"], "the first answer")
        assert calls(playground, "getMe") == 1
        killed = await leader_pid(redis)
        os.kill(killed, signal.SIGKILL)
        say(playground, 43, "/ping")
        await wait_until(lambda: sent_texts(playground, 43) == ["pong"], "the answer of another process")
        assert await leader_pid(redis) != killed


async def test_a_stopped_leader_that_comes_back_does_no_harm(
    playground: Playground, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    gunicorn = Gunicorn(tmp_path, playground.url, redis_url, processes=2)
    async with processes(gunicorn):
        stopped = await leader_pid(redis)
        await wait_until(lambda: calls(playground, "getUpdates") > 0, "the first poll")
        os.kill(stopped, signal.SIGSTOP)

        async def replaced() -> bool:
            return await leader_pid(redis) != stopped

        try:
            await wait_until(replaced, "another leader")
            say(playground, 42, "/ping")
            await wait_until(lambda: sent_texts(playground, 42) == ["pong"], "the answer")
        finally:
            os.kill(stopped, signal.SIGCONT)
        say(playground, 42, "/ping")
        await wait_until(lambda: sent_texts(playground, 42) == ["pong", "pong"], "the next answer")
        await wait_until(lambda: any("no longer leads" in line for line in gunicorn.lines), "the stopped one to notice")


async def test_rule_18_without_redis_one_process_of_the_machine_polls(playground: Playground, tmp_path: Path) -> None:
    gunicorn = Gunicorn(tmp_path, playground.url, None, processes=2)
    async with processes(gunicorn):
        for chat in range(1, 4):
            say(playground, chat, "/ping")
        await wait_until(lambda: sorted(sent_texts(playground)) == ["pong"] * 3, "all answers")
        assert sum("now leads" in line for line in gunicorn.lines) == 1
        # The stand-in refuses a poll as soon as there is another one, as Telegram does.
        assert [call for call in playground.world.ledger.select(method="getUpdates") if call.status == 409] == []
    assert any("starting" in line and "in-process" in line for line in gunicorn.lines), "which queue runs"
    assert [line for line in gunicorn.lines if "another program asks for this bot's updates" in line] == []
