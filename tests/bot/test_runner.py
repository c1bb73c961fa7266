"""Updates handled out of the inbox: each once, in its lanes' order, and what came of it stored as a whole."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from telegram import Update
from telegram.ext import ApplicationHandlerStop, TypeHandler

from bot import runner
from bot.playground import Playground
from bot.runner import Loaded, Work
from queueing.errors import QueueUnavailable
from queueing.events import Buried, Fenced, Released
from queueing.inbox import Conflict, Write
from queueing.message import Message
from queueing.redis_inbox import RedisInbox
from tests.bot.handled import Bot, Process, running_bot, say, text_update
from tests.bot.served import BOT
from tests.conftest import wait_until

Q = "{telegram_messages}"


@pytest.fixture
async def bot(redis_url: str, playground: Playground) -> AsyncIterator[Bot]:
    async with running_bot(redis_url, playground.url) as bot:
        yield bot


def on_update(bot: Bot, callback: Any, group: int = 0, **options: Any) -> None:
    bot.application.add_handler(TypeHandler(Update, callback, **options), group)


async def presume_dead(redis: Redis, process: Process) -> None:
    await redis.zadd(f"{Q}:updates:{BOT}:processes", {process.inbox.incarnation: 1})


async def test_an_update_is_handled_once_and_what_it_sent_is_queued(bot: Bot) -> None:
    seen: list[int] = []

    async def handler(update: Update, _context: Any) -> None:
        seen.append(update.update_id)
        say("one")
        say("two")

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert seen == [1]
    assert await bot.sent() == ["one", "two"]


async def test_updates_are_taken_before_the_bot_is_known_and_handled_after(bot: Bot) -> None:
    on_update(bot, lambda _update, _context: _say("done"))
    process = await bot.process(begin=False)
    await process.take(text_update())
    assert (await process.inbox.stats()).ready == 1
    await process.handling.begin()
    await process.idle()
    assert await bot.sent() == ["done"]


async def test_updates_of_a_chat_are_handled_one_at_a_time_in_order_by_any_process(bot: Bot) -> None:
    running: Counter[int] = Counter()
    order: dict[int, list[int]] = {}

    async def handler(update: Update, _context: Any) -> None:
        assert update.effective_chat
        chat = update.effective_chat.id
        running[chat] += 1
        assert running[chat] == 1
        await asyncio.sleep(0)
        order.setdefault(chat, []).append(update.update_id)
        running[chat] -= 1

    on_update(bot, handler)
    processes = [await bot.process() for _ in range(3)]
    for number in range(60):
        await processes[number % 3].take(text_update(number, chat=1 + number % 5))
    await processes[0].idle()
    assert order == {chat: list(range(chat - 1, 60, 5)) for chat in range(1, 6)}


async def test_a_failing_update_is_run_again_and_what_it_had_sent_is_thrown_away(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []
    heard: list[object] = []

    async def handler(_update: Update, _context: Any) -> None:
        attempts.append(len(attempts))
        say(f"attempt {len(attempts)}")
        if len(attempts) < 3:
            raise ValueError("not yet")

    async def hear(update: object, _context: Any) -> None:
        heard.append(update)

    on_update(bot, handler)
    bot.application.add_error_handler(hear)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert await bot.sent() == ["attempt 3"]
    assert heard == []
    assert "not yet" not in caplog.text


async def test_rule_19_an_update_that_fails_three_times_is_a_dead_letter_with_its_traceback(bot: Bot) -> None:
    runs, heard = [], []

    async def handler(update: Update, _context: Any) -> None:
        runs.append(update.update_id)
        say("before")
        raise ValueError("the mistake")

    async def hear(update: object, context: Any) -> None:
        heard.append((update, str(context.error)))
        say("sorry")

    on_update(bot, handler)
    bot.application.add_error_handler(hear)
    process = await bot.process()
    await process.take(text_update(1), text_update(2, chat=43))
    await process.idle()
    assert Counter(runs) == {1: 3, 2: 3}
    assert sorted(error for _, error in heard) == ["the mistake"] * 2
    assert await bot.sent() == ["before", "sorry"] * 2
    letter = await process.inbox.dead_letter("u1")
    assert letter
    assert letter.reason == "handler_failed"
    first, *traceback = letter.error.split("\n")
    assert first.startswith("ValueError: the mistake (")
    assert '    raise ValueError("the mistake")' in traceback
    assert len(letter.history) == 3


async def test_a_replay_runs_it_with_fresh_attempts_and_what_it_sends_is_sent_again(bot: Bot) -> None:
    broken = True

    async def handler(_update: Update, _context: Any) -> None:
        say("hello")
        if broken:
            raise ValueError

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert await bot.sent() == ["hello"]
    broken = False
    assert await process.inbox.redrive(["u1"]) == 1
    await process.idle()
    assert await bot.sent() == ["hello"]
    assert (await process.inbox.stats()).dead == 0


async def test_a_handler_that_stops_the_others_has_not_failed(bot: Bot) -> None:
    async def stop(_update: Update, _context: Any) -> None:
        say("first")
        raise ApplicationHandlerStop

    on_update(bot, stop)
    on_update(bot, lambda _update, _context: _say("second"), group=1)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert await bot.sent() == ["first"]


async def test_a_cancelled_handler_counts_as_failed(bot: Bot) -> None:
    async def cancelled(_update: Update, _context: Any) -> None:
        raise asyncio.CancelledError

    on_update(bot, cancelled)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert [letter.reason for letter in await process.inbox.dead_letters()] == ["handler_failed"]


async def test_want_of_the_queue_costs_no_attempt(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_AGAIN", 0.01)
    runs: list[int] = []

    async def handler(_update: Update, _context: Any) -> None:
        runs.append(1)
        if len(runs) < 6:
            try:
                raise QueueUnavailable
            except QueueUnavailable as error:
                raise RuntimeError("could not answer") from error
        say("at last")

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert len(runs) == 6
    assert await bot.sent() == ["at last"]


@pytest.mark.parametrize("body", [{"update": {"update_id": 1, "message": {"chat": "nonsense"}}}, {"update": 5}, {}])
async def test_rule_19_what_cannot_be_read_is_a_dead_letter_and_its_lane_goes_on(bot: Bot, body: Any) -> None:
    on_update(bot, lambda _update, _context: _say("next"))
    process = await bot.process()
    await process.inbox.enqueue([Message(bot=BOT, chat="42", id="x", body=body)])
    await process.take(text_update(2))
    await process.idle()
    assert [(letter.id, letter.reason) for letter in await process.inbox.dead_letters()] == [("x", "malformed")]
    assert await bot.sent() == ["next"]


async def test_rule_20_the_lanes_of_chat_and_user_are_held_together(bot: Bot) -> None:
    """A person's updates in a group and in private are never handled at once; somebody else's go on meanwhile."""
    begun: list[int] = []
    release = asyncio.Event()

    async def handler(update: Update, _context: Any) -> None:
        begun.append(update.update_id)
        if update.update_id == 1:
            await release.wait()

    on_update(bot, handler)
    processes = [await bot.process() for _ in range(2)]
    await processes[0].take(text_update(1, chat=-5, user=7))
    await wait_until(lambda: begun == [1], "the first")
    # 2: the same person in private; 3: another one in the same group; 4: the person in another group; 5: somebody else
    await processes[1].take(text_update(2, chat=7), text_update(3, chat=-5, user=8), text_update(4, chat=-6, user=7))
    await processes[1].take(text_update(5, chat=9))
    await wait_until(lambda: 5 in begun, "somebody else's")
    assert begun == [1, 5]
    release.set()
    await processes[0].idle()
    assert sorted(begun) == [1, 2, 3, 4, 5]
    assert begun.index(2) < begun.index(4)


async def test_rule_20_handlers_that_do_not_block_are_awaited_before_the_commit(bot: Bot) -> None:
    release = asyncio.Event()

    async def slow(update: Update, context: Any) -> None:
        context.application.create_task(slower(), update=update)

    async def slower() -> None:
        await release.wait()
        say("the last")

    on_update(bot, slow, block=False)
    process = await bot.process()
    await process.take(text_update())
    await wait_until(lambda: process.handling.worker.busy == 1, "it to be in hand")
    assert await bot.sent() == []
    release.set()
    await process.idle()
    assert await bot.sent() == ["the last"]


async def test_what_is_sent_shows_while_the_handler_still_works(bot: Bot) -> None:
    release = asyncio.Event()

    async def handler(_update: Update, _context: Any) -> None:
        say("Working…")
        await release.wait()
        say("Done")

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    found: list[str] = []

    async def shows() -> bool:
        found.extend(await bot.sent())
        return found == ["Working…"]

    await wait_until(shows, "the first to show")
    release.set()
    await process.idle()
    assert await bot.sent() == ["Done"]


async def test_rule_21_a_run_that_is_cut_off_is_run_elsewhere_and_adds_nothing_twice(bot: Bot) -> None:
    """What it had sent before is known by its ids."""
    first_hangs = asyncio.Event()
    runs: list[int] = []

    async def handler(_update: Update, _context: Any) -> None:
        runs.append(1)
        say("Working…")
        if len(runs) == 1:
            await asyncio.sleep(0.2)  # long enough for it to be queued
            first_hangs.set()
            await asyncio.Event().wait()
        say("Done")

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await asyncio.wait_for(first_hangs.wait(), 20)
    await process.handling.worker.stop(patience=0.1)
    await process.inbox.close()
    process.inbox.close = _nothing  # type: ignore[method-assign]  # it is closed
    other = await bot.process()
    await other.idle()
    assert len(runs) == 2
    assert await bot.sent() == ["Working…", "Done"]


async def test_rule_21_a_commit_is_refused_after_a_take_over(bot: Bot, redis: Redis) -> None:
    release = asyncio.Event()
    runs: list[int] = []

    async def handler(_update: Update, _context: Any) -> None:
        runs.append(1)
        number = len(runs)
        if number == 1:
            await release.wait()
        say(f"by run {number}")

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await wait_until(lambda: runs == [1], "the first run")
    other = await bot.process()
    await wait_until(lambda: _knows(redis, other), "the other to be heard")
    await redis.hdel(f"{Q}:updates:{BOT}:held:{process.inbox.incarnation}", f"{BOT}:42")  # as a take-over does
    await redis.zadd(f"{Q}:updates:{BOT}:due", {f"{BOT}:42": 1})
    await wait_until(lambda: runs == [1, 1], "the second run")
    release.set()
    await other.idle()
    await wait_until(lambda: any(isinstance(event, Fenced) for event in process.events), "the first to be refused")
    assert await bot.sent() == ["by run 2"]


async def _knows(redis: Redis, process: Process) -> bool:
    return await redis.zscore(f"{Q}:updates:{BOT}:processes", process.inbox.incarnation) is not None


class Counting:
    """A Keeper that counts updates in one field, for all chats: what is read may be outdated when it is written."""

    def __init__(self, inbox: Callable[[], RedisInbox]) -> None:
        self._inbox = inbox
        self.discarded = 0

    async def load(self, _update: Any, _chat_id: int | None, _user_id: int | None) -> Loaded:
        (found,) = await self._inbox().read([("state:1", "n")])
        return Counted(self, found)

    async def forget(self) -> None:
        await self._inbox()._patient.delete(f"{Q}:state:1")


class Counted:
    def __init__(self, keeper: Counting, found: bytes | None) -> None:
        self._keeper = keeper
        self._found = found

    def writes(self) -> Sequence[Write]:
        return [Write("state:1", "n", b"%d" % (int(self._found or 0) + 1), seen=self._found)]

    def merge(self, conflicts: Sequence[Conflict]) -> Sequence[Write]:
        self._found = conflicts[0].holds
        return self.writes()

    def discard(self) -> None:
        self._keeper.discarded += 1


async def test_rule_20_what_others_changed_meanwhile_is_merged_and_committed_again(bot: Bot) -> None:
    all_at_once = asyncio.Barrier(10)

    async def handler(_update: Update, _context: Any) -> None:
        await all_at_once.wait()
        say("counted")

    on_update(bot, handler)
    keeper = Counting(lambda: process.inbox)
    process = await bot.process(keeper)
    await process.take(*(text_update(number, chat=number) for number in range(1, 11)))
    await process.idle()
    assert await process.inbox.read_all("state:1") == {"n": b"10"}
    assert len(await bot.sent()) == 10
    assert keeper.discarded == 10
    await keeper.forget()


async def test_a_failed_attempt_stores_no_state(bot: Bot) -> None:
    runs: list[int] = []

    async def handler(_update: Update, _context: Any) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError

    on_update(bot, handler)
    keeper = Counting(lambda: process.inbox)
    process = await bot.process(keeper)
    await process.take(text_update())
    await process.idle()
    assert await process.inbox.read_all("state:1") == {"n": b"1"}
    assert keeper.discarded == 3
    await keeper.forget()


async def test_other_kinds_of_work_are_run_in_their_chats_turn(bot: Bot) -> None:
    async def tick() -> None:
        say("tick")

    process = await bot.process(job=lambda message: Work(tick, chat_id=int(message.chat)))
    await process.inbox.enqueue([Message(bot=BOT, chat="42", id="j1", body={"job": {}})])
    await process.idle()
    assert await bot.sent() == ["tick"]


async def test_a_process_that_ends_lets_its_handlers_end(bot: Bot) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def handler(_update: Update, _context: Any) -> None:
        begun.set()
        await release.wait()
        say("done")

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await asyncio.wait_for(begun.wait(), 20)
    stopping = asyncio.create_task(process.handling.stop())
    await asyncio.sleep(0)
    release.set()
    await stopping
    assert await bot.sent() == ["done"]
    assert (await process.inbox.stats()).depth == 0


async def test_what_a_run_left_behind_sends_at_once_and_belongs_to_no_update(bot: Bot) -> None:
    from bot.run import current_run

    seen: list[object] = []
    go = asyncio.Event()

    async def later() -> None:
        seen.append(current_run())
        await go.wait()
        seen.append(current_run())

    async def handler(_update: Update, context: Any) -> None:
        context.application.create_task(later())
        await asyncio.sleep(0)

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    go.set()
    await wait_until(lambda: len(seen) == 2, "the task to end")
    assert seen[0] is not None
    assert seen[1] is None


async def test_the_worker_tells_what_became_of_updates(bot: Bot) -> None:
    async def handler(_update: Update, _context: Any) -> None:
        raise ValueError

    on_update(bot, handler)
    process = await bot.process()
    await process.take(text_update())
    await process.idle()
    assert [event.reason for event in process.events if isinstance(event, Released)] == ["handler_failed"] * 2
    await wait_until(lambda: any(isinstance(event, Buried) for event in process.events), "the burial")


async def _say(text: str) -> None:
    say(text)


async def _nothing() -> None:
    """There is nothing to do."""
