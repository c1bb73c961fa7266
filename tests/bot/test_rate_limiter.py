"""Plain PTB calls over the queued bot, with real Redis and the stand-in: what returns at once, and what waits."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    MessageEntity,
    ReactionTypeEmoji,
    ReplyKeyboardMarkup,
    ReplyParameters,
    Update,
)
from telegram.constants import ParseMode
from telegram.error import BadRequest, Forbidden, NetworkError, TelegramError, TimedOut
from telegram.ext import Application, ContextTypes, Defaults, MessageHandler, filters

from bot.playground import Playground
from bot.playground.faults import Fault
from bot.provisional import queue_id
from bot.refusals import Cancelled, Expired, StillQueued
from bot.run import Run, carry_out
from queueing.errors import QueueFull
from queueing.limits import Rate, RateLimits
from queueing.message import Message, MessageState, Priority
from tests.bot.hooked import BOT, CHAT, Process, at_telegram, called, process, run_of
from tests.conftest import wait_until

KEYBOARD = InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data="b")]])


@pytest.fixture
async def idle(redis_url: str, playground: Playground) -> AsyncIterator[Process]:
    """It queues and does not send."""
    async with process(redis_url, playground, sends=False) as it:
        yield it


@pytest.fixture
async def sending(redis_url: str, playground: Playground) -> AsyncIterator[Process]:
    async with process(redis_url, playground) as it:
        yield it


async def queued(it: Process) -> list[Message]:
    """Those at the heads of their lanes."""
    return [lease.message for lease in (await it.queue.claim(10)).leases]


# --- what returns at once


async def test_a_send_is_queued_and_returns_at_once(idle: Process, playground: Playground) -> None:
    before = datetime.now(UTC)
    message = await idle.bot.send_message(CHAT, "hello")
    assert called(playground) == []
    [waiting] = await queued(idle)
    assert (waiting.bot, waiting.chat, waiting.body) == (BOT, "1001", {"text": "hello"})
    assert (waiting.priority, waiting.provisional, waiting.awaited) == (Priority.INTERACTIVE, True, False)
    assert waiting.id == queue_id(-message.message_id)
    assert message.message_id < 0
    assert (message.text, message.chat.id, message.chat.type) == ("hello", CHAT, "private")
    assert message.from_user
    assert message.from_user.id == int(BOT)
    assert before - timedelta(seconds=1) <= message.date <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("chat_id", "lane", "id", "type"),
    [
        ("1001", "1001", 1001, "private"),
        (-42, "-42", -42, "group"),
        (-1001234567890, "-1001234567890", -1001234567890, "supergroup"),
        ("@News", "@news", "@news", "channel"),
    ],
)
async def test_the_message_it_returns_names_the_chat(
    idle: Process, chat_id: int | str, lane: str, id: int | str, type: str
) -> None:
    message = await idle.bot.send_message(chat_id, "hello")
    assert (message.chat.id, message.chat.type) == (id, type)
    assert [waiting.chat for waiting in await queued(idle)] == [lane]


async def test_parameters_are_written_as_ptb_writes_them(idle: Process) -> None:
    message = await idle.bot.send_message(
        CHAT,
        "hello",
        parse_mode=ParseMode.HTML,
        entities=[MessageEntity(MessageEntity.BOLD, 0, 5)],
        reply_markup=KEYBOARD,
        reply_parameters=ReplyParameters(7),
        link_preview_options=LinkPreviewOptions(is_disabled=True),
        disable_notification=True,
        protect_content=True,
        message_effect_id="5",
        api_kwargs={"new_parameter": timedelta(seconds=5)},
    )
    [waiting] = await queued(idle)
    assert waiting.body["kwargs"] == {
        "parse_mode": "HTML",
        "entities": [{"type": "bold", "offset": 0, "length": 5}],
        "reply_markup": {"inline_keyboard": [[{"text": "a", "callback_data": "b"}]]},
        "reply_parameters": {"message_id": 7},
        "link_preview_options": {"is_disabled": True},
        "disable_notification": True,
        "protect_content": True,
        "message_effect_id": "5",
        "new_parameter": 5,
    }
    assert message.reply_markup == KEYBOARD
    assert message.reply_to_message
    assert message.reply_to_message.message_id == 7
    assert [entity.type for entity in message.entities] == ["bold"]
    assert (message.has_protected_content, message.effect_id) == (True, "5")


async def test_a_reply_keyboard_is_no_part_of_a_message_nor_is_another_chat_s_message(idle: Process) -> None:
    message = await idle.bot.send_message(
        CHAT, "hello", reply_markup=ReplyKeyboardMarkup([["a"]]), reply_parameters=ReplyParameters(7, chat_id=42)
    )
    assert (message.reply_markup, message.reply_to_message) == (None, None)


async def test_defaults_are_applied(redis_url: str, playground: Playground) -> None:
    defaults = Defaults(parse_mode=ParseMode.HTML, disable_notification=True, do_quote=True)
    async with process(redis_url, playground, sends=False, defaults=defaults) as it:
        await it.bot.send_message(CHAT, "hello")
        [waiting] = await queued(it)
    assert waiting.body["kwargs"] == {"parse_mode": "HTML", "disable_notification": True}


async def test_what_answers_a_message_of_a_topic_is_in_the_topic(idle: Process) -> None:
    message = await idle.bot.send_message(CHAT, "one", message_thread_id=55)
    answer = await message.reply_text("two")
    assert answer.message_thread_id == 55


async def test_an_edit_returns_the_message_as_it_will_be(idle: Process) -> None:
    edited = await idle.bot.edit_message_text("better", CHAT, 5, reply_markup=KEYBOARD)
    assert not isinstance(edited, bool)
    assert (edited.message_id, edited.text, edited.reply_markup) == (5, "better", KEYBOARD)
    assert edited.edit_date
    captioned = await idle.bot.edit_message_caption(CHAT, 6, caption="best")
    assert not isinstance(captioned, bool)
    assert (captioned.message_id, captioned.caption, captioned.reply_markup) == (6, "best", None)


async def test_deletes_and_pins_return_true(idle: Process, playground: Playground) -> None:
    bot = idle.bot
    results = [
        await bot.delete_message(CHAT, 5),
        await bot.delete_messages(CHAT, [5, 6]),
        await bot.pin_chat_message(CHAT, 5),
        await bot.unpin_chat_message(CHAT, 5),
        await bot.unpin_all_chat_messages(CHAT),
    ]
    assert results == [True] * 5
    assert called(playground) == []


@pytest.mark.parametrize(
    ("chat_id", "text", "words"),
    [("no chat", "hello", "Chat not found"), (CHAT, "x" * 2_000_000, "too long"), (CHAT, "half \ud83d", ".")],
)
async def test_what_the_queue_does_not_take_is_for_telegram_to_judge(
    idle: Process, playground: Playground, chat_id: str | int, text: str, words: str
) -> None:
    with pytest.raises(TelegramError, match=words):
        await idle.bot.send_message(chat_id, text)
    assert [call.method for call in called(playground)] in ([], ["sendMessage"])
    assert await queued(idle) == []


async def test_a_full_queue_reaches_the_handler_as_what_it_is(idle: Process) -> None:
    idle.queue._queue_max = 2
    for _ in range(2):
        await idle.bot.send_message(CHAT, "hello")
    with pytest.raises(QueueFull):
        await idle.bot.send_message(CHAT, "one too many")


# --- provisional ids


async def test_rule_22_working_then_done_from_another_process_and_without_waiting(
    redis_url: str, playground: Playground, idle: Process
) -> None:
    working = await idle.bot.send_message(CHAT, "Working…")
    async with process(redis_url, playground, sends=False) as other:
        done = await other.bot.edit_message_text("Done", working.chat_id, working.message_id)
    assert not isinstance(done, bool)
    assert done.message_id == working.message_id
    assert called(playground) == []
    async with process(redis_url, playground):
        await wait_until(lambda: bool(called(playground, "editMessageText")), "the edit")
    [sent, edit] = called(playground)
    assert edit.message_id == sent.message_id > 0
    assert (at_telegram(playground, sent.message_id) or {})["text"] == "Done"


async def test_rule_22_whatever_names_a_message_that_was_not_sent_yet_gets_its_real_id(
    sending: Process, playground: Playground
) -> None:
    for id in (CHAT, 42):
        playground.world.open_chat(id, "", {})
    playground.world.faults.add(Fault("latency", method="sendMessage", ms=200, count=1), None)
    first = await sending.bot.send_message(CHAT, "first")
    assert await first.pin()
    answer = await first.reply_text("answer", do_quote=True)
    copy = await first.copy(CHAT)
    forwarded = await sending.bot.forward_message(42, CHAT, answer.message_id)
    await sending.bot.set_message_reaction(CHAT, first.message_id, ReactionTypeEmoji("👍"), rate_limit_args={"wait": 5})
    assert await sending.bot.delete_messages(CHAT, [first.message_id, copy.message_id])
    await wait_until(lambda: bool(called(playground, "deleteMessages")), "the deletion")
    [sent, pin, reply, copied, forward, *_] = called(playground)
    assert [call.method for call in (sent, pin, copied, forward)] == [
        "sendMessage",
        "pinChatMessage",
        "copyMessage",
        "forwardMessage",
    ]
    assert (at_telegram(playground, reply.message_id) or {})["reply_to_message"]["message_id"] == sent.message_id
    assert copied.message_id == copy.message_id > 0
    assert (forwarded.chat.id, forwarded.text) == (42, "answer")
    await wait_until(lambda: at_telegram(playground, sent.message_id) is None, "it to be deleted")
    assert at_telegram(playground, copy.message_id) is None
    assert at_telegram(playground, reply.message_id)


async def test_rule_22_what_names_a_message_that_is_never_sent_dies_with_it(
    sending: Process, playground: Playground
) -> None:
    playground.world.faults.add(Fault("blocked", method="sendMessage"), None)
    first = await sending.bot.send_message(CHAT, "first")
    await first.edit_text("second")
    with pytest.raises(BadRequest):
        await first.copy(42)

    async def dead() -> list[str]:
        return sorted([letter.reason for letter in await sending.queue.dead_letters()])

    async def all_are_dead() -> bool:
        return await dead() == ["blocked", "parent_dead", "parent_dead"]

    await wait_until(all_are_dead, "all three to be dead")
    assert [call.method for call in called(playground)] == ["sendMessage"]


async def test_a_direct_call_that_names_an_unsent_message_goes_behind_it(
    sending: Process, playground: Playground
) -> None:
    playground.world.faults.add(Fault("latency", method="sendMessage", ms=200, count=1), None)
    first = await sending.bot.send_message(CHAT, "first")
    edited = await first.edit_text("second", api_kwargs={"rate_limit_args": {"direct": True}})
    assert not isinstance(edited, bool)
    assert edited.message_id > 0
    assert (at_telegram(playground, edited.message_id) or {})["text"] == "second"


async def test_a_call_names_at_most_a_hundred_unsent_messages(idle: Process) -> None:
    with pytest.raises(BadRequest, match="100"):
        await idle.bot.delete_messages(CHAT, list(range(-101, 0)))


# --- what waits


async def test_what_cannot_be_derived_waits_for_the_real_result_in_the_order_of_its_chat(
    redis_url: str, playground: Playground, idle: Process
) -> None:
    playground.world.open_chat(CHAT, "", {})
    await idle.bot.send_message(CHAT, "one")
    waiting = asyncio.create_task(idle.bot.send_dice(CHAT))
    await wait_until(lambda: _tracked(idle, 2), "the dice to be queued")
    await idle.bot.send_message(CHAT, "three")
    assert not waiting.done()
    async with process(redis_url, playground):  # its end is told from there
        dice = await waiting
        await wait_until(lambda: len(called(playground)) == 3, "all")
    assert dice.dice
    assert [call.method for call in called(playground)] == ["sendMessage", "sendDice", "sendMessage"]
    assert dice.message_id == called(playground)[1].message_id
    assert idle.events == []


async def _tracked(it: Process, depth: int) -> bool:
    return (await it.queue.stats()).depth == depth


async def test_waiting_for_a_send_brings_telegram_s_own_message(sending: Process, playground: Playground) -> None:
    message = await sending.bot.send_message(CHAT, "<b>hi</b>", parse_mode="HTML", rate_limit_args={"wait": True})
    assert message.message_id == called(playground)[0].message_id
    assert (message.text, [entity.type for entity in message.entities]) == ("hi", ["bold"])


async def test_a_bot_that_waits_for_all_does(redis_url: str, playground: Playground) -> None:
    async with process(redis_url, playground, wait=True) as it:
        message = await it.bot.send_message(CHAT, "hi")
        assert message.message_id > 0
        with pytest.raises(BadRequest, match="not modified"):
            await message.edit_text("hi")
        assert (await message.edit_text("ho")).text == "ho"  # type: ignore[union-attr]
        unsent = await it.bot.send_message(CHAT, "quick", rate_limit_args={"wait": False})
        assert unsent.message_id < 0


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault("blocked"), Forbidden, "blocked by the user"),
        (Fault("chat_not_found"), BadRequest, "Chat not found"),
        (Fault("error", code=500), NetworkError, "after 2 attempts"),
    ],
)
async def test_who_waits_gets_the_error_that_telegram_answered(
    fault: Fault, error: type[TelegramError], words: str, sending: Process, playground: Playground
) -> None:
    playground.world.faults.add(fault, None)
    with pytest.raises(error, match=words):
        await sending.bot.send_message(CHAT, "hi", rate_limit_args={"wait": True})


async def test_who_has_waited_long_enough_gets_a_timeout_and_the_message_is_sent_all_the_same(
    redis_url: str, playground: Playground, idle: Process
) -> None:
    with pytest.raises(TimedOut, match="stays in the queue"):
        await idle.bot.send_message(CHAT, "hi", rate_limit_args={"wait": 0.1})
    async with process(redis_url, playground):
        await wait_until(lambda: bool(called(playground)), "it to be sent")


async def test_who_waits_is_told_that_the_process_ends(idle: Process) -> None:
    waiting = asyncio.create_task(idle.bot.send_dice(CHAT))
    await wait_until(lambda: _tracked(idle, 1), "the dice to be queued")
    idle.endings.give_up()
    with pytest.raises(StillQueued, match="stays in the queue"):
        await waiting


async def test_a_handler_that_waits_while_the_process_ends_does_not_take_it_for_telegram_s_refusal(
    idle: Process,
) -> None:
    run, did = Run("1:update:17", sends=[]), []

    async def handler() -> None:
        try:
            await idle.bot.send_dice(CHAT)
        except TelegramError:
            did.append("unsubscribed")

    running = asyncio.create_task(carry_out(run, handler))
    await wait_until(lambda: _depth(idle, 1), "it to wait")
    idle.endings.give_up()
    await running
    assert did == []
    assert [type(error) for error in run.errors] == [StillQueued]


async def test_who_waits_is_told_that_it_was_cancelled_or_expired(idle: Process) -> None:
    waiting = asyncio.create_task(idle.bot.send_dice(CHAT))
    await wait_until(lambda: bool(idle.endings._waiting), "the dice to be queued")
    [id] = idle.endings._waiting
    expiring = asyncio.create_task(idle.bot.send_dice(42, rate_limit_args={"ttl": 0.05}))
    await wait_until(lambda: _tracked(idle, 2), "the other dice to be queued")

    async def cancelled() -> bool:
        return await idle.queue.cancel(id) is MessageState.CANCELLED

    await wait_until(cancelled, "it to be cancelled")
    with pytest.raises(Cancelled):
        await waiting

    async def expired() -> bool:
        await idle.queue.claim(1)
        return expiring.done()

    await wait_until(expired, "the other to expire")
    with pytest.raises(Expired):
        await expiring


async def test_the_queue_within_a_process_does_the_same(playground: Playground) -> None:
    playground.world.open_chat(CHAT, "", {})
    async with process(None, playground) as it:
        working = await it.bot.send_message(CHAT, "Working…")
        await working.edit_text("Done")
        dice = await it.bot.send_dice(CHAT, reply_parameters=ReplyParameters(working.message_id))
    [sent, edit, thrown] = called(playground)
    assert (edit.message_id, thrown.message_id) == (sent.message_id, dice.message_id)
    assert dice.reply_to_message
    assert (dice.reply_to_message.message_id, dice.reply_to_message.text) == (sent.message_id, "Done")


# --- what goes directly


async def test_questions_and_answers_go_directly(idle: Process, playground: Playground) -> None:
    playground.world.open_chat(CHAT, "", {})
    assert (await idle.bot.get_chat(CHAT)).id == CHAT
    assert await idle.bot.send_chat_action(CHAT, "typing")
    assert [call.method for call in called(playground)] == ["getChat", "sendChatAction"]
    assert await queued(idle) == []


async def test_inline_messages_have_no_chat_and_go_directly(idle: Process, playground: Playground) -> None:
    assert await idle.bot.edit_message_text("hi", inline_message_id="some")
    assert [call.method for call in called(playground)] == ["editMessageText"]


async def test_a_send_may_go_directly(idle: Process, playground: Playground) -> None:
    message = await idle.bot.send_message(CHAT, "hi", rate_limit_args={"direct": True})
    assert message.message_id == called(playground)[0].message_id
    assert await queued(idle) == []


# --- the options of one send


async def test_options_reach_the_queue(idle: Process) -> None:
    options: Any = {"priority": "bulk", "ttl": 60, "dedup_key": "k"}
    first = await idle.bot.send_message(CHAT, "hi", rate_limit_args=options)
    again = await idle.bot.send_message(CHAT, "hi", rate_limit_args=options)
    assert again.message_id == first.message_id
    [waiting] = await queued(idle)
    assert (waiting.priority, waiting.ttl, waiting.dedup_key) == (Priority.BULK, 60, "k")


async def test_who_waits_for_what_was_sent_already_under_its_key_gets_that(
    sending: Process, playground: Playground
) -> None:
    options: Any = {"wait": True, "dedup_key": "k"}
    first = await sending.bot.send_message(CHAT, "hi", rate_limit_args=options)
    assert await sending.bot.send_message(CHAT, "hi", rate_limit_args=options) == first
    assert len(called(playground)) == 1


async def test_options_of_other_limiters_are_not_looked_at(idle: Process) -> None:
    assert await idle.bot.send_message(CHAT, "hi", rate_limit_args=3)  # type: ignore[arg-type]


# --- a run of handlers


async def test_rule_21_a_run_s_sends_are_held_back_and_flushed_in_order_by_what_waits(
    sending: Process, playground: Playground
) -> None:
    with run_of("1:update:17") as run:
        await sending.bot.send_message(CHAT, "one")
        await sending.bot.send_message(CHAT, "two")
        assert [message.body["text"] for message in run.sends or ()] == ["one", "two"]
        dice = await sending.bot.send_dice(CHAT)
        assert run.sends == []
        await sending.bot.send_message(CHAT, "four")
        assert len(run.sends or ()) == 1
    assert [call.method for call in called(playground)] == ["sendMessage", "sendMessage", "sendDice"]
    assert dice.message_id == called(playground)[2].message_id


async def test_rule_21_a_run_that_is_run_again_adds_nothing_twice(sending: Process, playground: Playground) -> None:
    async def handler() -> tuple[int, int]:
        with run_of("1:update:17") as run:
            working = await sending.bot.send_message(CHAT, "Working…")
            dice = await sending.bot.send_dice(CHAT)
            await working.edit_text("Done")
            await sending.outbox.flush(run)
        return working.message_id, dice.message_id

    first = await handler()
    assert await handler() == first
    await wait_until(lambda: len(called(playground)) >= 3, "all")
    assert await handler() == first
    await sending.bot.send_message(CHAT, "the end", rate_limit_args={"wait": True})
    assert [call.method for call in called(playground)] == ["sendMessage", "sendDice", "editMessageText", "sendMessage"]


class SlowFirst:
    """Takes its time with what comes first."""

    def __init__(self, slow: bool) -> None:
        self._first, self._others = slow, asyncio.Event()

    async def pack(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        if self._first:
            self._first = False
            await self._others.wait()
        self._others.set()
        return {name: value for name, value in parameters.items() if name in ("chat_id", "caption")}, {}


@pytest.mark.parametrize("slow", [True, False])
async def test_rule_21_files_that_are_sent_together_have_the_same_ids_in_each_run(
    redis_url: str, playground: Playground, slow: bool
) -> None:
    async with process(redis_url, playground, sends=False, files=SlowFirst(slow)) as it:
        with run_of("1:update:17"):
            sends = [it.bot.send_photo(chat, b"x", caption=str(chat)) for chat in (1, 2)]
            tasks = [asyncio.create_task(send) for send in sends]
            await wait_until(lambda: _depth(it, 2), "both are queued")
        messages = {message.chat: message.id for message in await queued(it)}
        with run_of("1:update:17") as again:
            assert messages == {chat: queue_id(again.next_number()) for chat in ("1", "2")}
        for task in tasks:
            task.cancel()


async def _depth(it: Process, wanted: int) -> bool:
    return (await it.queue.stats()).depth == wanted


async def test_a_run_that_holds_nothing_back_queues_at_once(idle: Process) -> None:
    with run_of("1:update:17", held=False) as run:
        await idle.bot.send_message(CHAT, "one")
    assert run.sends is None
    assert [message.body["text"] for message in await queued(idle)] == ["one"]


async def test_what_could_not_be_flushed_is_held_back_as_before(idle: Process) -> None:
    idle.queue._queue_max = 1
    with run_of("1:update:17") as run:
        await idle.bot.send_message(CHAT, "one")
        await idle.bot.send_message(CHAT, "two")
        with pytest.raises(QueueFull):
            await idle.bot.send_dice(CHAT)
        await idle.bot.send_message(CHAT, "three")
    assert [message.body["text"] for message in run.sends or ()] == ["one", "two", "three"]


# --- the whole


async def test_handlers_answers_arrive_in_order_and_at_the_chat_s_limit(redis_url: str, playground: Playground) -> None:
    async def greet(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        assert update.effective_message
        assert update.effective_chat
        working = await update.effective_message.reply_text("one")
        await update.effective_message.reply_html("<b>two</b>")
        await update.effective_chat.send_message("three")
        await working.edit_text("four")

    limits = RateLimits(chat=Rate(1, 0.1))
    async with process(redis_url, playground, limits=limits) as it:
        application = Application.builder().bot(it.bot).updater(None).build()
        application.add_handler(MessageHandler(filters.ALL, greet))
        person = {"id": CHAT, "is_bot": False, "first_name": "Ada"}
        said = {"message_id": 5, "date": 1, "chat": {"id": CHAT, "type": "private"}, "from": person, "text": "hi"}
        await application.initialize()
        await application.process_update(Update.de_json({"update_id": 1, "message": said}, it.bot))
        await wait_until(lambda: len(called(playground)) == 4, "four calls")
    assert [call.text for call in called(playground)] == ["one", "<b>two</b>", "three", "four"]
    assert called(playground)[3].message_id == called(playground)[0].message_id


# --- what is made at once


async def test_a_press_that_was_answered_before_stops_no_handler(idle: Process, playground: Playground) -> None:
    """The handler's process died after its answer, and it is run again."""
    await idle.bot.get_me()
    playground.world.bots[int(BOT)].ask("7")
    for _ in range(2):
        with run_of("1:update:17"):
            assert await idle.bot.answer_callback_query("7")
    assert [call.status for call in called(playground, "answerCallbackQuery")] == [200, 400]
    with pytest.raises(BadRequest, match="too old"):
        await idle.bot.answer_callback_query("7")
    with run_of("1:update:17"), pytest.raises(BadRequest, match="too old"):
        await idle.bot.answer_inline_query("7", [])
