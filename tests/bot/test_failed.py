"""A send that nobody waits for and that is dead: the error handlers hear of it, once, with the update's chat."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from telegram import Update
from telegram.error import Forbidden, TelegramError
from telegram.ext import Application

from bot.failed import FailedSends, failures_for, handle_failure
from bot.origin import origin_of
from bot.playground import Playground, start_playground
from bot.playground.faults import Fault
from bot.runner import POLICY, Runner
from queueing.errors import MalformedMessage
from queueing.events import Buried
from queueing.message import Message
from queueing.redis_inbox import RedisInbox
from queueing.redis_queue import RedisQueue
from queueing.worker import Worker
from tests.bot.handled import Stateless
from tests.bot.hooked import BOT, CHAT, Process, called, process, run_of
from tests.conftest import wait_until

PERSON = {"id": 7, "is_bot": False, "first_name": "Ada"}
GROUP = {"id": -42, "type": "group", "title": "Friends"}
SAID = {"message_id": 5, "date": 1, "chat": GROUP, "from": PERSON, "text": "hi"}


class Heard:
    """An application whose error handler remembers what it hears."""

    def __init__(self, it: Process) -> None:
        self.errors: list[tuple[Any, TelegramError]] = []
        self.application = Application.builder().bot(it.bot).updater(None).build()
        self.application.add_error_handler(self._hear)
        self.origin = origin_of(Update.de_json({"update_id": 17, "message": SAID}, it.bot))

    async def _hear(self, update: object, context: Any) -> None:
        self.errors.append((update, context.error))
        context.chat_data["failed"] = True
        await context.bot.send_message(CHAT, "something failed")


@pytest.fixture
async def playground() -> AsyncIterator[Playground]:
    playground = await start_playground()
    for method in ("sendMessage", "sendDice"):
        playground.world.faults.add(Fault("blocked", method=method), None)
    yield playground
    await playground.close()


@pytest.fixture
async def sending(redis_url: str, playground: Playground) -> AsyncIterator[Process]:
    async with process(redis_url, playground) as it:
        yield it


def watch(it: Process, failed: FailedSends) -> None:
    observe = it.send._observe

    def both(event: Any, /) -> None:
        observe(event)
        failed(event)

    it.send._observe = both


async def test_the_error_handlers_hear_of_a_send_that_failed_with_its_update_s_chat_and_user(
    sending: Process, playground: Playground
) -> None:
    heard = Heard(sending)
    await heard.application.initialize()
    failed = FailedSends(heard.application)
    watch(sending, failed)
    with run_of("1:update:17", held=False, about=heard.origin):
        first = await sending.bot.send_message(CHAT, "first")
        await first.edit_text("second")
    await wait_until(lambda: bool(heard.errors), "the error handler to be called")
    await wait_until(lambda: len(called(playground)) == 2, "its own send to fail")
    await failed.stop()
    [(update, error)] = heard.errors
    assert isinstance(update, Update)
    assert update.update_id == 17
    assert update.effective_chat
    assert update.effective_user
    assert (update.effective_chat.id, update.effective_user.first_name) == (-42, "Ada")
    assert isinstance(error, Forbidden)
    assert "sendMessage to chat 1001" in error.__notes__[0]
    assert heard.application.chat_data[-42] == {"failed": True}


async def test_a_failure_goes_into_the_inbox_in_its_update_s_lanes_and_is_taken_once(
    redis_url: str, sending: Process
) -> None:
    heard = Heard(sending)
    await heard.application.initialize()
    inbox = RedisQueue(redis_url, name="{telegram_messages}:updates")
    await inbox.start()
    failed = FailedSends(heard.application, inbox)
    watch(sending, failed)
    with run_of("1:update:17", held=False, about=heard.origin):
        await sending.bot.send_message(CHAT, "first")
    await wait_until(lambda: any(isinstance(event, Buried) for event in sending.events), "it to be dead")
    [buried] = [event for event in sending.events if isinstance(event, Buried)]
    failed(buried)
    await failed.stop()
    [lease] = (await inbox.claim(10)).leases
    assert (lease.message.bot, lease.message.chat, lease.message.also) == (BOT, "-42", "7")
    assert heard.errors == []
    await handle_failure(heard.application, lease.message.body["failed"])
    assert [type(error) for _, error in heard.errors] == [Forbidden]
    assert (await inbox.stats()).depth == 1
    await inbox.close()


async def test_a_failure_out_of_the_inbox_is_a_run_of_its_own_whose_failures_are_told_to_nobody(
    redis_url: str, sending: Process, playground: Playground
) -> None:
    heard = Heard(sending)
    await heard.application.initialize()
    inbox = RedisInbox(redis_url, BOT)
    await inbox.start()
    kinds = {"failed": failures_for(heard.application)}
    runner = Runner(inbox, sending.outbox, Stateless(), kinds)
    worker = Worker(inbox, runner.deliver, workers=10, policy=POLICY, observe=lambda event: None)
    failed = FailedSends(heard.application, inbox)
    watch(sending, failed)
    await worker.start()
    with run_of("1:update:17", held=False, about=heard.origin):
        await sending.bot.send_message(CHAT, "first")
    await wait_until(lambda: len(called(playground)) == 2, "the error handler's own send to fail")
    await wait_until(lambda: len([e for e in sending.events if isinstance(e, Buried)]) == 2, "both to be dead")
    await failed.stop()
    assert (await inbox.stats()).depth == 0
    assert [update.update_id for update, _ in heard.errors] == [17]
    await worker.stop()
    await inbox.close()


async def test_what_no_update_s_handler_sent_or_somebody_waits_for_is_nobody_s_error(
    sending: Process, playground: Playground
) -> None:
    heard = Heard(sending)
    await heard.application.initialize()
    failed = FailedSends(heard.application)
    watch(sending, failed)
    await sending.bot.send_message(CHAT, "first")
    with run_of("1:update:17", about=heard.origin), pytest.raises(Forbidden):
        await sending.bot.send_dice(CHAT)
    await failed.stop()
    assert heard.errors == []
    assert len(called(playground)) == 2


@pytest.mark.parametrize("chat", [{"id": 7}, {"id": 7, "kind": 3}])
async def test_an_origin_that_somebody_made_up_is_a_dead_letter(sending: Process, chat: dict[str, Any]) -> None:
    heard = Heard(sending)
    origin = {"update_id": 5, "chat": chat, "user": None}
    failed = {"id": "x", "chat": "7", "method": "sendMessage", "reason": "blocked", "error": "no", "origin": origin}
    with pytest.raises(MalformedMessage, match="the origin of a failed send cannot be read"):
        failures_for(heard.application)(Message(bot=BOT, chat="7", body={"failed": failed}))
