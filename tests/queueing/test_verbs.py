"""The operator's verbs on the shared queue, and what a message may ask for: its time, its end, to be taken once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from queueing import redis_desk
from queueing.contract import Claim, Desk, Lease, Settlement
from queueing.events import Event, Trimmed
from queueing.limits import Rate, RateLimits
from queueing.maintenance import Maintenance
from queueing.message import Message, MessageState, Priority
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Release, Scope
from tests.conftest import wait_until

FRONT = "telegram_messages"
P = f"{{{FRONT}}}:"
Start = Callable[..., Awaitable[RedisQueue]]

REFUSED = Release(60, "network", "refused", counts=True)
BLOCKED = Bury("blocked", "by the user")


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    started: list[RedisQueue] = []

    async def start(**limits: Rate) -> RedisQueue:
        queue = RedisQueue(redis_url, limits=RateLimits(**limits))
        await queue.start()
        started.append(queue)
        return queue

    yield start
    for queue in started:
        await queue.close()


@pytest.fixture
async def queue(start: Start) -> RedisQueue:
    return await start()


def message(name: str = "a", chat: object = 42, bot: str = "1", **fields: object) -> Message:
    return Message(bot=bot, chat=str(chat), id=name, body={"text": name}, track=True, **fields)  # type: ignore[arg-type]


async def settle(queue: RedisQueue, leases: Sequence[Lease], decision: Decision, want: int = 0) -> Claim:
    return await queue.claim(want, [Settlement(lease, decision) for lease in leases])


async def kill(queue: RedisQueue, *names: str, chat: object = 42) -> None:
    """Makes dead letters of new messages, in this order."""
    for name in names:
        await queue.enqueue([message(name, chat)])
        (lease,) = (await queue.claim(1)).leases
        await settle(queue, [lease], BLOCKED)


async def drained(queue: RedisQueue, decision: Decision = Ack()) -> list[str]:  # noqa: B008  frozen
    """What can be claimed now, in order; each is settled before the next."""
    names: list[str] = []
    claim = await queue.claim(1)
    while claim.leases or claim.next_due == 0:
        names += [lease.message.id for lease in claim.leases]
        claim = await settle(queue, claim.leases, decision, want=1)
    return names


async def state(queue: RedisQueue, name: str) -> MessageState | None:
    status = await queue.status(name)
    return status.state if status else None


async def total(redis: Redis, field: str) -> int:
    return int(await redis.hget(f"{P}totals", field) or 0)


def test_the_shared_queue_is_a_desk(redis_url: str) -> None:
    assert isinstance(RedisQueue(redis_url), Desk)


# --- dead letters


async def test_dead_letters_are_shown_newest_first_and_by_pages(queue: RedisQueue) -> None:
    names = [f"m{n}" for n in range(7)]
    await kill(queue, *names)
    seen: list[str] = []
    page = await queue.dead_page(3)
    seen += [letter.id for letter in page.letters]
    while page.next:
        page = await queue.dead_page(3, page.next)
        seen += [letter.id for letter in page.letters]
    assert seen == names[::-1]
    letter = await queue.dead_letter("m3")
    assert letter
    assert (letter.reason, letter.error, letter.bot, letter.chat) == ("blocked", "by the user", "1", "42")
    assert [line["reason"] for line in letter.history] == ["blocked"]
    assert await queue.dead_letter("never") is None


async def test_a_page_after_one_that_is_gone_leaves_none_out(queue: RedisQueue) -> None:
    await kill(queue, *(f"m{n}" for n in range(6)))
    page = await queue.dead_page(3)
    await queue.drop([page.letters[-1].id])
    after = [letter.id for letter in (await queue.dead_page(10, page.next)).letters]
    assert after[-3:] == ["m2", "m1", "m0"]


@pytest.mark.parametrize("before", ["", "x", "5", "5:", "²:a", ":a"])
async def test_a_page_after_nonsense_is_refused(queue: RedisQueue, before: str) -> None:
    with pytest.raises(ValueError, match="before"):
        await queue.dead_page(3, before)


async def test_redrive_sends_again_at_the_tail_with_no_tries_behind_it(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], Release(0, "network", "refused", counts=True))
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], BLOCKED)
    await queue.enqueue([message("b")])
    await queue.claim(0)
    assert await queue.redrive(["a", "never"]) == 1
    status = await queue.status("a")
    assert status
    assert (status.state, status.attempts, status.error) == (MessageState.PENDING, 0, None)
    first = (await queue.claim(1)).leases
    (second,) = (await settle(queue, first, Ack(), want=1)).leases
    assert ([first[0].message.id, second.message.id], second.attempts) == (["b", "a"], 0)
    assert second.message.body == {"text": "a"}
    assert await redis.zcard(f"{P}dead:index") == await redis.hlen(f"{P}dead") == 0
    assert await total(redis, "replayed") == 1


async def test_redrive_to_the_head_stands_behind_what_is_sent_or_tried(queue: RedisQueue) -> None:
    await kill(queue, "d1", "d2")
    await kill(queue, "e", chat=43)
    await queue.enqueue([message("a"), message("b"), message("x", 43), message("y", 43)])
    (lease,) = [lease for lease in (await queue.claim(2)).leases if lease.message.chat == "42"]
    await queue.claim(0, held=[lease])  # the other is given back
    assert await queue.redrive(["d1", "d2", "e"], head=True) == 3
    claim = await queue.claim(1, held=[lease])
    assert [each.message.id for each in claim.leases] == ["e"]
    await queue.claim(0, [Settlement(lease, Ack()), Settlement(claim.leases[0], Ack())])
    names = await drained(queue)
    assert [name for name in names if name in "d1 d2 b"] == ["d1", "d2", "b"]
    assert [name for name in names if name in "xy"] == ["x", "y"]


async def test_redrive_to_the_head_takes_no_tries_over(queue: RedisQueue) -> None:
    await kill(queue, "d")
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], Release(0, "network", "refused", counts=True))
    await queue.redrive(["d"], head=True)
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.attempts) == ("a", 1)
    (lease,) = (await settle(queue, [lease], Ack(), want=1)).leases
    assert (lease.message.id, lease.attempts) == ("d", 0)


@pytest.mark.parametrize("head", [False, True])
async def test_all_are_sent_again_in_their_order_and_those_that_die_again_are_left(
    redis: Redis, queue: RedisQueue, head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_desk, "_BATCH", 2)
    names = [f"m{n}" for n in range(5)]
    await kill(queue, *names)
    await redis.rpush(FRONT, "garbage")
    await queue.claim(0)
    assert await queue.redrive_all(head=head) == 6
    assert await drained(queue) == names
    (letter,) = await queue.dead_letters()
    assert letter.element == "garbage"


async def test_redrive_wakes_a_waiting_process(queue: RedisQueue) -> None:
    await kill(queue, "a")
    await queue.claim(1)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.redrive(["a"])
    await asyncio.wait_for(waiting, 10)


async def test_drop_forgets(redis: Redis, queue: RedisQueue) -> None:
    await kill(queue, "a", "b", "c")
    assert await queue.drop(["b", "never"]) == 1
    assert [letter.id for letter in await queue.dead_letters()] == ["c", "a"]
    assert await queue.drop_all() == 2
    assert await queue.drop_all() == 0
    assert await total(redis, "dropped") == 3
    assert await state(queue, "a") is MessageState.DEAD


async def test_too_many_dead_letters_are_dropped_and_told(
    redis: Redis, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill(queue, "a", "b", "c")
    assert await queue.trim() == 0
    monkeypatch.setattr(redis_desk, "DEAD_MOST", 2)
    events: list[Event] = []
    maintenance = Maintenance(queue, events.append)
    await maintenance.start()
    await wait_until(lambda: events == [Trimmed(1)], "the trimming to be told")
    await maintenance.stop()
    assert [letter.id for letter in await queue.dead_letters()] == ["c", "b"]
    assert await total(redis, "dead_dropped") == 1


async def test_old_dead_letters_are_dropped(redis: Redis, queue: RedisQueue) -> None:
    await kill(queue, "old", "new")
    long_ago = (time.time() - redis_desk.DEAD_DAYS * 86_400 - 5) * 1000
    await redis.zadd(f"{P}dead:index", {"old": long_ago})
    assert await queue.trim() == 1
    assert await redis.hkeys(f"{P}dead") == ["new"]


# --- pause and resume

PAUSES = [(None, None), ("1", None), ("1", "42")]


@pytest.mark.parametrize(("bot", "chat"), PAUSES)
async def test_a_pause_holds_what_it_names_until_somebody_resumes_it(
    queue: RedisQueue, bot: str | None, chat: str | None
) -> None:
    await queue.pause(bot, chat, "a line\nor two")
    (pause,) = await queue.paused()
    assert (pause.bot, pause.chat, pause.reason, pause.until) == (bot, chat, "a line or two", None)
    assert pause.since == pytest.approx(time.time(), abs=5)
    await queue.enqueue([message("a"), message("b", 43), message("c", 42, bot="2")])
    held = {"a"} | ({"b"} if chat is None else set()) | ({"c"} if bot is None else set())
    assert set(await drained(queue)) == {"a", "b", "c"} - held
    claim = await queue.claim(1)
    assert (claim.leases, claim.next_due) == ([], None)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.resume(bot, chat)
    await asyncio.wait_for(waiting, 10)
    assert set(await drained(queue)) == held
    assert await queue.paused() == []


async def test_resuming_does_not_end_a_flood_wait_nor_another_pause(queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b")])
    (lease,) = (await queue.claim(1)).leases
    await queue.pause("1", "42")
    await settle(queue, [lease], Release(30, "flood", "retry after 30", scope=Scope.CHAT))
    await queue.pause()
    await queue.pause("1")
    assert len(await queue.paused()) == 4
    for scope in PAUSES:
        await queue.resume(*scope)
        assert not await drained(queue)
    (pause,) = await queue.paused()
    assert (pause.bot, pause.chat, pause.reason, pause.since) == ("1", "42", "flood", None)
    assert pause.until == pytest.approx(time.time() + 30, abs=5)
    assert (await queue.claim(1)).next_due == pytest.approx(30, abs=5)


async def test_a_chat_is_paused_for_a_bot(queue: RedisQueue) -> None:
    with pytest.raises(ValueError, match="for a bot"):
        await queue.pause(None, "42")


# --- cancel


async def test_what_is_cancelled_is_not_sent_and_delays_nobody(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message(name) for name in "abcde"])
    assert await queue.cancel("a") is MessageState.CANCELLED  # still at the door
    await queue.claim(0)
    assert await queue.cancel("c") is MessageState.CANCELLED
    assert await queue.cancel("c") is MessageState.CANCELLED
    assert await drained(queue) == ["b", "d", "e"]
    assert await state(queue, "a") is await state(queue, "c") is MessageState.CANCELLED
    assert 0 < await redis.ttl(f"{P}msg:a") <= 86_400, "it ended: its status is kept as long as of others"
    assert await total(redis, "cancelled") == 2
    assert (await queue.stats()).depth == 0


async def test_a_cancelled_head_that_would_be_tried_later_makes_room_at_once(queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b")])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], REFUSED)
    assert not await drained(queue)
    assert await queue.cancel("a") is MessageState.CANCELLED
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.attempts) == ("b", 0)


async def test_it_is_too_late_to_cancel_what_is_in_flight_or_ended(queue: RedisQueue) -> None:
    assert await queue.cancel("never") is None
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    assert await queue.cancel("a") is MessageState.SENDING
    await settle(queue, [lease], Ack())
    assert await queue.cancel("a") is MessageState.SENT


async def test_what_a_process_gave_back_can_be_cancelled(start: Start, queue: RedisQueue) -> None:
    leaving = await start()
    await leaving.enqueue([message("a")])
    await leaving.claim(1)
    await leaving.close()
    assert await queue.cancel("a") is MessageState.CANCELLED
    assert await drained(queue) == []


async def test_a_thousand_cancelled_are_cleared_in_bounded_steps(queue: RedisQueue) -> None:
    await queue.enqueue([message(f"m{n}") for n in range(300)])
    await queue.claim(0)
    for n in range(300):
        await queue.cancel(f"m{n}")
    await queue.enqueue([message("last")])
    assert (await queue.claim(1)).next_due == 0, "it is to be called again at once"
    assert await drained(queue) == ["last"]


# --- ttl, send_at, dedup_key


async def test_what_was_not_sent_in_time_expires(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", ttl=0.05), message("b", ttl=60), message("c", 43, ttl=0.05)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], REFUSED)
    await wait_until(lambda: _gone(redis, lease.message.accepted), "the ttl to pass")
    assert await drained(queue) == ["b"]
    assert await state(queue, "a") is await state(queue, "c") is MessageState.EXPIRED
    assert await total(redis, "expired") == 2


async def _gone(redis: Redis, accepted: float | None) -> bool:
    seconds, micros = await redis.time()
    return bool(accepted and seconds + micros / 1e6 > accepted + 0.06)


async def test_what_is_scheduled_is_accepted_when_it_is_due(redis: Redis, queue: RedisQueue) -> None:
    at = time.time() + 0.4
    await queue.enqueue([message("later", send_at=at), message("bulk", 43, priority=Priority.BULK, send_at=at)])
    await redis.rpush(FRONT, json.dumps({"bot": "1", "chat_id": 42, "text": "x", "id": "pushed", "send_at": at}))
    await queue.enqueue([message("now"), message("past", send_at=5)])
    assert await drained(queue) == ["now", "past"]
    stats = await queue.stats()
    assert (stats.scheduled, stats.depth) == (3, 3)
    claim = await queue.claim(1)
    assert claim.next_due == pytest.approx(at - time.time(), abs=0.1)
    await queue.enqueue([message("before")])
    await queue.claim(0)
    leases: list[Lease] = []
    while len(leases) < 4:
        claim = await queue.claim(4, [Settlement(lease, Ack()) for lease in claim.leases])
        leases += claim.leases
        if not claim.leases:
            await queue.wait(0.25 if claim.next_due is None else claim.next_due + 0.001)
    names = [lease.message.id for lease in leases]
    assert [name for name in names if name != "bulk"] == ["before", "later", "pushed"]
    (later,) = [lease.message for lease in leases if lease.message.id == "later"]
    assert later.accepted == pytest.approx(at, abs=0.002)
    assert time.time() >= at


async def test_a_scheduled_message_can_be_cancelled(redis: Redis, queue: RedisQueue) -> None:
    at = time.time() + 0.2
    await queue.enqueue([message("a", send_at=at), message("b", send_at=at)])
    await queue.claim(0)
    assert await queue.cancel("a") is MessageState.CANCELLED
    await wait_until(lambda: _empty(redis, queue), "the schedule to be empty")
    assert await drained(queue) == ["b"]


async def _empty(redis: Redis, queue: RedisQueue) -> bool:
    await queue.claim(0)
    return await redis.zcard(f"{P}scheduled") == 0


async def test_a_status_outlives_its_schedule(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", send_at=time.time() + 300 * 86_400)])
    assert await redis.ttl(f"{P}msg:a") > 300 * 86_400


async def test_of_a_dedup_key_the_first_is_taken(redis: Redis, queue: RedisQueue) -> None:
    await queue.enqueue([message("a", dedup_key="k"), message("b", dedup_key="k"), message("c", 43, dedup_key="l")])
    await queue.enqueue([message("d", 44, bot="2", dedup_key="k")])
    assert await queue.first_with("1", "k") == "a"
    assert await queue.first_with("1", "z") is None
    assert await queue.status("b") is None
    pushed = {"bot": "1", "chat_id": 45, "text": "x"}
    for fields in (
        {"id": "e", "dedup_key": "k"},
        {"id": "f", "dedup_key": "m"},
        {"id": "f", "dedup_key": "m"},
        {"id": "g", "dedup_key": "n", "priority": "bulk"},
        {"id": "h", "dedup_key": "n", "priority": "bulk"},
    ):
        await redis.rpush(FRONT, json.dumps(pushed | fields))
    assert sorted(await drained(queue)) == ["a", "c", "d", "f", "g"]
    assert await total(redis, "deduplicated") == 4
    assert 86_000 < await redis.ttl(f"{P}dedup:1:k") <= 86_400


async def test_a_redriven_message_is_not_its_own_duplicate(queue: RedisQueue) -> None:
    await queue.enqueue([message("a", dedup_key="k", ttl=60, send_at=5)])
    (lease,) = (await queue.claim(1)).leases
    await settle(queue, [lease], BLOCKED)
    await queue.redrive(["a"])
    assert await drained(queue) == ["a"]


WRONG = [
    ("ttl", 0),
    ("ttl", -1),
    ("ttl", "5"),
    ("ttl", 1e12),
    ("ttl", False),
    ("send_at", "tomorrow"),
    ("send_at", -1),
    ("send_at", 1_800_000_000_000),
    ("send_at", True),
    ("dedup_key", 5),
    ("dedup_key", ""),
    ("dedup_key", "é" * 129),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
async def test_a_wrong_field_goes_to_the_dead_letters(
    redis: Redis, queue: RedisQueue, field: str, value: object
) -> None:
    await redis.rpush(FRONT, json.dumps({"bot": "1", "chat_id": 42, "text": "x", field: value}))
    await drained(queue)
    await queue.claim(0)
    (letter,) = await queue.dead_letters()
    assert letter.reason == "malformed"
    assert letter.error.startswith(f"{field} must be")


# --- poison


async def die(redis: Redis, dead: RedisQueue, alive: RedisQueue) -> None:
    await alive.claim(0)
    await redis.zadd(f"{P}processes", {dead.incarnation: 1})
    await alive.reap()


async def test_rule_4_what_kills_three_processes_is_poison(redis: Redis, start: Start) -> None:
    alive = await start()
    await alive.enqueue([message("a"), message("b")])
    for n in range(3):
        dead = await start()
        (lease,) = (await dead.claim(1)).leases
        assert (lease.message.id, lease.takeovers) == ("a", n)
        await die(redis, dead, alive)
    claim = await alive.claim(1)
    assert [lease.message.id for lease in claim.leases] == ["b"]
    assert [reason for reason, _ in claim.buried] == ["poison"]
    letter = await alive.dead_letter("a")
    assert letter
    assert letter.reason == "poison"
    assert [line["reason"] for line in letter.history] == ["taken_over"] * 3 + ["poison"]
    assert await state(alive, "a") is MessageState.DEAD


async def test_rule_4_clean_stops_are_no_poison(start: Start) -> None:
    for _ in range(4):
        queue = await start()
        await queue.enqueue([message("a")])
        (lease,) = (await queue.claim(1)).leases
        assert lease.takeovers == 0
        await queue.close()


# --- why


async def reasons(queue: RedisQueue, name: str) -> tuple[str, float | None, int]:
    """Reason, seconds from now (rounded to the next), messages ahead."""
    waiting = await queue.why(name)
    assert waiting
    assert not waiting.more
    return waiting.reason, None if waiting.until is None else round(waiting.until - time.time()), waiting.ahead


async def test_why_of_what_does_not_wait(queue: RedisQueue) -> None:
    assert await queue.why("never") is None
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    assert await queue.why("a") is None
    await settle(queue, [lease], Ack())
    assert await queue.why("a") is None


async def test_why_at_the_doors_in_its_lane_and_in_the_schedule(queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b"), message("s", send_at=time.time() + 100)])
    assert await reasons(queue, "b") == ("door", None, 1)
    assert await reasons(queue, "s") == ("schedule", 100, 0)
    await queue.claim(0)
    assert await reasons(queue, "a") == ("turn", None, 0)
    assert await reasons(queue, "b") == ("ahead", None, 1)
    assert await reasons(queue, "s") == ("schedule", 100, 0)
    await queue.enqueue([message("i", priority=Priority.INTERACTIVE)])
    await queue.claim(1)
    assert await reasons(queue, "b") == ("ahead", None, 2)


async def test_why_counts_one_of_a_lower_priority_that_is_in_flight(queue: RedisQueue) -> None:
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await queue.enqueue([message("i", priority=Priority.INTERACTIVE)])
    await queue.claim(0, held=[lease])
    assert await reasons(queue, "i") == ("ahead", None, 1)


async def test_why_names_the_limit(start: Start) -> None:
    queue = await start(chat=Rate(1, 60))
    await queue.enqueue([message("a"), message("b"), message("c")])
    await settle(queue, (await queue.claim(1)).leases, Ack())
    assert await reasons(queue, "b") == ("chat_limit", 60, 0)
    assert await reasons(queue, "c") == ("chat_limit", 120, 1)
    other = await start(bot=Rate(1, 60))
    await other.enqueue([message("x", 1, bot="2"), message("y", 2, bot="2"), message("z", 3, bot="2")])
    claim = await other.claim(1)
    assert [lease.message.id for lease in claim.leases] == ["x"]
    assert (await reasons(other, "y"))[0] == "bot_limit"
    waits = [(await reasons(other, name))[1] for name in "yz"]
    assert waits == [60, 120]


async def test_why_names_a_retry_a_flood_and_a_pause(queue: RedisQueue) -> None:
    await queue.enqueue([message("a"), message("b"), message("c", 43)])
    leases = (await queue.claim(2)).leases
    by_chat = {lease.message.chat: lease for lease in leases}
    flood = Release(30, "flood", "retry after 30", scope=Scope.CHAT)
    await queue.claim(0, [Settlement(by_chat["42"], REFUSED), Settlement(by_chat["43"], flood)])
    assert await reasons(queue, "a") == ("retry", 60, 0)
    assert await reasons(queue, "b") == ("retry", 60, 1)
    assert await reasons(queue, "c") == ("flood", 30, 0)
    await queue.pause("1")
    assert await reasons(queue, "b") == ("paused", None, 1)


async def test_why_names_an_outage(queue: RedisQueue) -> None:
    await queue.enqueue([message(name, chat) for chat, name in enumerate("abcd")])
    leases = (await queue.claim(4)).leases
    await settle(queue, leases, Release(0.01, "network", "refused", counts=True, scope=Scope.RECEIVER))
    reason, until, ahead = await reasons(queue, leases[3].message.id)
    assert (reason, ahead) == ("outage", 0)
    assert until is not None


async def test_why_counts_a_thousand_exactly_and_says_when_there_are_more(queue: RedisQueue) -> None:
    await queue.enqueue([message(f"m{n}") for n in range(1002)])
    for where in ("door", "ahead"):
        before = await queue.why("m999")
        behind = await queue.why("m1001")
        assert before
        assert (before.reason, before.ahead, before.more) == (where, 999, False)
        assert behind
        assert (behind.reason, behind.ahead, behind.more) == (where, 1000, True)
        while (await queue.claim(0)).more:
            pass
