"""What only the shared queue does: elements of other programs, dead processes, fencing, and what it leaves in Redis."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from queueing import keys
from queueing.contract import Claim, Settlement, TakenOver
from queueing.errors import MalformedMessage, QueueUnavailable
from queueing.limits import Rate, RateLimits
from queueing.message import Message, MessageState, Priority, canonical_chat
from queueing.redis_queue import DRAIN_MOST, RedisQueue
from queueing.retry import Ack, Bury, Release, Scope
from queueing.scripts import Script
from tests.conftest import Server, raw, wait_until
from tests.queueing.desk import drained, kill, state
from tests.queueing.leaks import FRONT, documented

TOKEN = "123:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"

Start = Callable[..., Awaitable[RedisQueue]]
Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """Starts queues as separate processes would have them."""
    started: list[RedisQueue] = []

    async def start(**options: object) -> RedisQueue:
        queue = RedisQueue(redis_url, **options)  # type: ignore[arg-type]
        await queue.start()
        started.append(queue)
        return queue

    yield start
    for queue in started:
        await queue.close()


def element(**fields: object) -> str:
    return json.dumps({"bot_token": TOKEN, "chat_id": 42, "text": "hi", "kwargs": {}} | fields)


def message(n: int = 1, chat: str = "42", **fields: object) -> Message:
    return Message(bot="123", chat=chat, id=f"{chat}-{n}", body={"text": str(n)}, **fields)  # type: ignore[arg-type]


def ids(claim: Claim) -> list[str]:
    return [lease.message.id for lease in claim.leases]


async def presume_dead(redis: Redis, queue: RedisQueue) -> None:
    """Makes others presume the queue's process dead: its deadline has passed."""
    await redis.zadd(f"{{{FRONT}}}:processes", {queue.incarnation: 1})


# --- elements that other programs push


async def test_the_plain_element_is_understood(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, element(kwargs={"parse_mode": "HTML"}))
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.bot, lease.message.chat) == ("123", "42")
    assert lease.message.body == {"text": "hi", "kwargs": {"parse_mode": "HTML"}}
    assert await queue.credentials("123") == [TOKEN]
    assert await redis.llen(FRONT) == 0


async def test_without_a_token_it_is_the_configured_bots(redis: Redis, start: Start) -> None:
    queue = await start(default_bot="7")
    await redis.rpush(FRONT, json.dumps({"chat_id": 42, "text": "hi"}))
    assert (await queue.claim(1)).leases[0].message.bot == "7"


async def test_a_producers_id_and_track_are_kept(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, element(id="order-17", track=True))
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.message.track) == ("order-17", True)
    status = await queue.status("order-17")
    assert status
    assert (status.state, status.bot, status.chat) == (MessageState.SENDING, "123", "42")


CHATS = [
    42,
    "42",
    " 42 ",
    0,
    "-0",
    -0.0,
    -42,
    "-42",
    -1001234567890123,
    "-1001234567890123",
    42.0,
    9007199254740991,
    "@Name",
    "@name",
]
NO_CHATS = [42.5, "4 2", "@", "@na me", 9007199254740993, "9007199254740993", "", True, [], {"a": 1}, "--1", "12e3"]


async def chat_in_redis(redis: Redis, queue: RedisQueue, chat: object) -> str | None:
    await redis.rpush(FRONT, element(chat_id=chat))
    claim = await queue.claim(1)
    await queue.claim(0, [Settlement(lease, Ack()) for lease in claim.leases])
    return claim.leases[0].message.chat if claim.leases else None


@pytest.mark.parametrize("chat", [*CHATS, *NO_CHATS], ids=repr)
async def test_lua_and_python_name_a_chat_alike(redis: Redis, start: Start, chat: object) -> None:
    queue = await start()
    expected: str | None
    try:
        expected = canonical_chat(int(chat) if isinstance(chat, float) and chat.is_integer() else chat)
    except MalformedMessage:
        expected = None
    assert await chat_in_redis(redis, queue, chat) == expected
    assert (expected is None) == (chat in NO_CHATS)


async def test_a_chat_given_as_a_parameter_is_the_lane(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, json.dumps({"bot_token": TOKEN, "method": "sendDice", "kwargs": {"chat_id": "42"}}))
    assert (await queue.claim(1)).leases[0].message.chat == "42"


async def test_what_is_for_no_chat_may_name_a_lane(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, json.dumps({"bot": "mail", "lane": "example.org", "to": "a@example.org"}))
    await redis.rpush(FRONT, element(lane="example.org"))
    leases = (await queue.claim(2)).leases
    assert sorted((lease.message.bot, lease.message.chat) for lease in leases) == [
        ("123", "42"),
        ("mail", "example.org"),
    ]
    assert {"to": "a@example.org"} in [lease.message.body for lease in leases]


GARBAGE = {
    "empty": ("", "not a JSON object"),
    "words": ("hello", "not a JSON object"),
    "cut": ('{"bot_token":"123:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw","chat_id":4', "not a JSON object"),
    "list": ("[1,2]", "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "deep": ("[" * 2000, "not a JSON object"),
    "token": ('{"bot_token":"abc","chat_id":1,"text":"x"}', "bot_token must be digits, a colon"),
    "token number": ('{"bot_token":5,"chat_id":1,"text":"x"}', "bot_token must be digits, a colon"),
    "no token": ('{"chat_id":1,"text":"x"}', "bot_token is missing"),
    "bot": ('{"bot":{"a":1},"chat_id":1,"text":"x"}', "bot must be"),
    "chat": ('{"bot_token":"1:A","chat_id":"x y","text":"x"}', "chat_id must be"),
    "lane": ('{"bot_token":"1:A","lane":"x y","text":"x"}', "lane must be"),
    "lane number": ('{"bot_token":"1:A","lane":7,"text":"x"}', "lane must be"),
    "id": ('{"bot_token":"1:A","chat_id":1,"id":"a b"}', "id must be"),
    "id number": ('{"bot_token":"1:A","chat_id":1,"id":5}', "id must be"),
    "priority": ('{"bot_token":"1:A","chat_id":1,"priority":"high"}', "priority must be"),
    "track": ('{"bot_token":"1:A","chat_id":1,"track":"yes"}', "track must be"),
    "attempts": ('{"bot_token":"1:A","chat_id":1,"max_attempts":0}', "max_attempts must be"),
    "surrogate": ('{"bot_token":"1:A","chat_id":1,"text":"\\ud800"}', "not a JSON object"),
    "bytes in a name": (b'{"bot_token":"1:A","chat_id":1,"kwargs":{"\xed\xa0\x80":"file://x"}}', "not JSON"),
    "bytes": (b'{"bot_token":"1:A","chat_id":1,"text":"\xff\xfe"}', "not JSON"),
    "binary": (bytes(range(256)), "not a JSON object"),
    # A pattern that goes back and forth over these stops the server for minutes, and again after each of its restarts.
    "spaces": ('{"bot_token":"1:A","chat_id":"a' + " " * 1_000_000 + 'b"}', "chat_id must be"),
    "spaces first": ('{"bot_token":"1:A","chat_id":"' + " " * 1_000_000 + 'a b"}', "chat_id must be"),
    "digits": ("1" * 1_000_000, "not a JSON object"),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_goes_to_the_dead_letters_with_its_reason(redis: Redis, start: Start, kind: str) -> None:
    garbage, reason = GARBAGE[kind]
    queue = await start()
    await redis.rpush(FRONT, garbage, element(id="good"))
    claim = await queue.claim(10)
    told = [error for _, error in claim.buried]
    after = await queue.claim(10, held=claim.leases)
    told += [error for _, error in after.buried]
    assert [*ids(claim), *ids(after)] == ["good"], "nothing else is disturbed"
    (letter,) = await queue.dead_letters()
    assert letter.reason == "malformed"
    assert reason in letter.error
    assert told == [letter.error]
    assert "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw" not in letter.element
    assert (await queue.stats()).dead == 1


async def test_many_elements_are_drained_in_bounded_steps_and_in_order(redis: Redis, start: Start) -> None:
    queue = await start()
    count = 3 * DRAIN_MOST + 1
    await redis.rpush(FRONT, *(element(id=f"m{n}") for n in range(count)))
    assert (await queue.claim(0)).more
    assert await redis.llen(FRONT) == count - DRAIN_MOST
    seen: list[str] = []
    claim = await queue.claim(1)
    while claim.leases:
        seen += ids(claim)
        claim = await queue.claim(1, [Settlement(claim.leases[0], Ack())])
    assert seen == [f"m{n}" for n in range(count)]


async def test_rule_16_what_the_doorbell_moved_comes_before_the_front_door(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(f"{{{FRONT}}}:handoff", element(id="first"))
    await redis.rpush(FRONT, element(id="second"))
    assert ids(await queue.claim(1)) == ["first"]
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.id == "first"


async def test_letters_of_two_messages_with_one_id_are_two(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, element(id="same", text="one"), element(id="same", text="two"))
    for _ in range(2):
        claim = await queue.claim(1)
        await queue.claim(0, [Settlement(claim.leases[0], Bury("blocked", "x"))])
    letters = await queue.dead_letters()
    assert {letter.id for letter in letters} == {"same", "same~2"}
    assert {json.loads(letter.element)["text"] for letter in letters} == {"one", "two"}


# --- tokens


async def test_a_producer_that_gives_all_the_same_id_costs_no_more_with_each_letter(redis: Redis, start: Start) -> None:
    queue = await start()
    for chat in range(1, 51):
        await redis.rpush(FRONT, element(id="same", chat_id=chat))
        (lease,) = (await queue.claim(1)).leases
        await redis.config_resetstat()
        await queue.claim(0, [Settlement(lease, Bury("blocked", "x"))])
    assert (await redis.info("commandstats"))["cmdstat_hexists"]["calls"] < 5
    assert len({letter.id for letter in await queue.dead_letters()}) == 50


async def test_a_token_is_taken_out_where_it_is_one_and_texts_stay_as_they_are(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, json.dumps({"kwargs": {"bot_token": TOKEN}, "text": f"say {TOKEN}!", "bot_token": TOKEN}))
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.body == {"kwargs": {"bot_token": "123"}, "text": f"say {TOKEN}!"}


async def test_an_offered_token_never_replaces_one_that_is_registered(redis: Redis, start: Start) -> None:
    queue = await start()
    assert not await queue.proven("123")
    await queue.offer("123", "123:wrong")
    assert await queue.credentials("123") == ["123:wrong"]
    assert not await queue.proven("123")
    await queue.register("123", TOKEN)
    await queue.offer("123", "123:wrong")
    assert await queue.proven("123")
    assert await queue.credentials("123") == [TOKEN, "123:wrong"]


async def test_rule_10_a_token_is_kept_in_one_place(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.rpush(FRONT, *(element(id=f"m{n}", chat_id=n, track=True) for n in range(3)))
    claim = await queue.claim(3)
    await queue.claim(
        0,
        [
            Settlement(claim.leases[0], Bury("blocked", "x")),
            Settlement(claim.leases[1], Release(60, "network", "refused", counts=True)),
        ],
        [claim.leases[2]],
    )
    holding = [key for key in await redis.keys("*") if TOKEN.encode() in (await raw(redis, key))]
    assert holding == [f"{{{FRONT}}}:tokens:new"]
    await queue.register("123", TOKEN)
    holding = [key for key in await redis.keys("*") if TOKEN.encode() in (await raw(redis, key))]
    assert holding == [f"{{{FRONT}}}:tokens"]


async def test_rule_10_no_key_and_no_value_but_those_for_tokens_holds_one(redis: Redis, start: Start) -> None:
    await work_out(redis, start)
    await redis.rpush(FRONT, f"garbage with {TOKEN}", element(chat_id="no chat"), element(dedup_key="1", track=True))
    await (await start()).claim(0)  # what other programs push is looked at
    keys = await redis.keys("*")
    assert len(keys) > 20
    assert {"lane", "held", "dead", "msg"} <= {key.split(":")[1] for key in keys if ":" in key}
    for token in (TOKEN, "123:other"):
        secret = token.partition(":")[2]
        assert not any(secret in key for key in keys)
        holding = {key for key in keys if secret.encode() in await raw(redis, key)}
        assert holding <= {f"{{{FRONT}}}:tokens", f"{{{FRONT}}}:tokens:new"}


@pytest.mark.parametrize("token", ["12", "12:", ":x", "a:x", "12:a b", "12:a/../b", "12:é", "12:a\n", "12:a:b", 12])
async def test_rule_10_a_token_is_digits_a_colon_and_a_word(redis: Redis, start: Start, token: object) -> None:
    queue = await start()
    await redis.rpush(FRONT, element(bot_token=token))
    claim = await queue.claim(1)
    if token == "12":  # the number that stands for a token that was taken out before
        assert claim.leases[0].message.bot == "12"
        return
    assert not claim.leases
    assert [error for _, error in claim.buried] == ["bot_token must be digits, a colon, and letters, digits, _ or -"]
    assert not await redis.exists(f"{{{FRONT}}}:tokens", f"{{{FRONT}}}:tokens:new")


async def test_another_token_of_a_bot_stands_beside_the_one_in_use(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.register("123", TOKEN)
    await redis.rpush(FRONT, element(bot_token="123:other"), element(bot_token=TOKEN))
    await queue.claim(1)
    assert await queue.credentials("123") == [TOKEN, "123:other"]
    await queue.register("123", "123:other")
    assert await queue.credentials("123") == ["123:other"]


# --- dead processes, fencing


async def test_a_dead_process_is_taken_over_in_order_and_counted(redis: Redis, start: Start) -> None:
    dead, alive = await start(), await start()
    await dead.enqueue([message(1, track=True), message(2)])
    await dead.claim(1)
    await alive.claim(0)
    await presume_dead(redis, dead)
    assert await alive.reap() == [TakenOver(dead.incarnation, 1)]
    (lease,) = (await alive.claim(10)).leases
    assert (lease.message.id, lease.attempts, lease.takeovers) == ("42-1", 0, 1)
    assert ids(await alive.claim(10, [Settlement(lease, Ack())])) == ["42-2"]
    assert not await alive.reap()


async def test_a_process_that_comes_back_changes_nothing(redis: Redis, start: Start) -> None:
    stopped, alive = await start(), await start()
    await stopped.enqueue([message(1), message(2)])
    (old,) = (await stopped.claim(1)).leases
    await alive.claim(0)
    await presume_dead(redis, stopped)
    await alive.reap()
    (new,) = (await alive.claim(1)).leases
    back = await stopped.claim(1, [Settlement(old, Ack())])
    assert list(back.stale) == [old.token]
    assert not back.leases
    assert list((await stopped.claim(0, held=[old])).lost) == [old.token]
    assert not (await alive.claim(0, [Settlement(new, Ack())])).stale
    assert (await alive.stats()).processed == 1


async def test_a_living_process_is_never_reaped(redis: Redis, start: Start) -> None:
    one, other = await start(lease_seconds=0.5), await start(lease_seconds=0.5)
    await one.enqueue([message(1)])
    claim = await one.claim(1)
    for _ in range(10):
        await asyncio.sleep(0.1)
        await one.claim(0, held=claim.leases)
        await other.claim(0)
        assert not await other.reap()


async def test_rule_3_after_a_silence_of_all_every_lease_gets_one_more_term(redis: Redis, start: Start) -> None:
    silent, other = await start(lease_seconds=15), await start(lease_seconds=15)
    await silent.enqueue([message(1)])
    claim = await silent.claim(1)
    await other.claim(0)
    # Nobody was heard for longer than a lease: as after an outage of the server.
    long_ago = int((await redis.time())[0]) * 1000 - 60_000
    await redis.zadd(f"{{{FRONT}}}:processes", {silent.incarnation: long_ago, other.incarnation: long_ago})
    assert not await other.reap()
    await other.claim(0)
    assert not await other.reap()
    back = await silent.claim(0, held=claim.leases)
    assert not back.lost
    assert not (await silent.claim(0, [Settlement(claim.leases[0], Ack())])).stale


async def test_rule_1_an_older_call_that_arrives_late_is_refused(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message(1)])
    await queue.claim(0)
    await queue.claim(0)
    queue._call = 0
    with pytest.raises(Exception, match="a later call was already answered"):
        await queue.claim(1)


async def test_rule_2_a_lease_runs_out_while_the_process_or_the_machine_is_stopped(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await start(lease_seconds=15)
    await queue.claim(0)
    assert queue.remaining() > 10
    runs_on = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    clocks = {time.CLOCK_MONOTONIC: time.monotonic(), runs_on: time.clock_gettime(runs_on) + 16}
    with monkeypatch.context() as stopped:
        stopped.setattr(time, "clock_gettime", clocks.__getitem__)
        assert queue.remaining() < 0


async def test_a_server_that_lost_what_it_did_last_gives_no_token_twice(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.enqueue([message(1)])
    (before,) = (await queue.claim(1)).leases
    await redis.flushall()  # as after a failover, but for more than the last moment
    await queue.enqueue([message(2, "43")])
    claim = await queue.claim(1, held=[before])
    (after,) = claim.leases
    assert after.token != before.token, "the process holds both, and settles them by their tokens"
    assert list(claim.lost) == [before.token]


async def test_leaving_gives_back_what_was_held_and_nobody_has_to_wait(redis: Redis, start: Start) -> None:
    leaving, other = await start(), await start()
    await leaving.enqueue([message(1)])
    await leaving.claim(1)
    await leaving.close()
    (lease,) = (await other.claim(1)).leases
    assert lease.takeovers == 0
    assert [process.incarnation for process in (await other.stats()).processes] == [other.incarnation]


# --- waking


async def test_rule_16_a_push_wakes_a_waiting_process(redis: Redis, start: Start) -> None:
    queue = await start()
    await queue.claim(1)
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await redis.rpush(FRONT, element())
    await asyncio.wait_for(waiting, 10)
    assert len((await queue.claim(1)).leases) == 1


async def test_rule_16_a_busy_process_passes_the_bell_on(redis: Redis, start: Start) -> None:
    busy, idle = await start(), await start()
    await idle.claim(1)
    waiting = asyncio.create_task(idle.wait(30))
    # As if `busy` had swallowed both bells: it moved the elements, and has room for one message only.
    await redis.rpush(f"{{{FRONT}}}:handoff", element(chat_id=1), element(chat_id=2))
    claim = await busy.claim(1)
    await asyncio.wait_for(waiting, 10)
    assert len((await idle.claim(1)).leases) == 1
    assert (await idle.stats()).dead == 0, "a bell is no message"
    assert len(claim.leases) == 1


async def test_rule_16_who_may_have_no_more_of_what_is_ready_passes_the_bell_on(redis: Redis, start: Start) -> None:
    """It is idle, and so may be the one that looks for all: it would find nothing for itself, again and again."""
    taker, idle, third = await start(), await start(), await start()
    for queue in (idle, third):
        await queue.claim(10)
    await redis.rpush(FRONT, *(element(chat_id=chat, priority="bulk") for chat in range(1, 21)))
    assert len((await taker.claim(10)).leases) == 8, "of ten"
    assert await redis.lrange(FRONT, 0, -1) == ["telequeue:bell"], "the bell rings for another"
    held = (await idle.claim(10)).leases
    assert len(held) == 8
    assert not (await idle.claim(2, held=held)).leases
    assert await redis.scard(f"{{{FRONT}}}:idle") == 0, "each was rung for once"
    assert len((await third.claim(10)).leases) == 4
    assert await redis.llen(FRONT) == 0, "nothing is left"


async def test_rule_16_a_take_over_wakes_a_waiting_process(redis: Redis, start: Start) -> None:
    dead, reaping, idle = await start(), await start(), await start()
    await dead.enqueue([message(1)])
    await dead.claim(1)
    await idle.claim(1)
    waiting = asyncio.create_task(idle.wait(30))
    await reaping.claim(0)
    await presume_dead(redis, dead)
    await reaping.reap()
    await asyncio.wait_for(waiting, 10)
    assert ids(await idle.claim(1)) == ["42-1"]


# --- the server


async def test_scripts_are_sent_again_after_a_restart(own_server: Server) -> None:
    queue = RedisQueue(own_server.url)
    await queue.start()
    await queue.enqueue([message(1), message(2)])
    (lease,) = (await queue.claim(1)).leases
    own_server.kill()
    with pytest.raises(QueueUnavailable):
        await queue.claim(0, [Settlement(lease, Ack())])
    with pytest.raises(QueueUnavailable):
        await queue.enqueue([message(3)])
    own_server.start()
    claim = await queue.claim(0, [Settlement(lease, Ack())])
    assert not claim.stale, "SIGKILL of the server loses nothing"
    assert ids(await queue.claim(1)) == ["42-2"]
    await queue.close()


async def test_a_queue_can_start_and_stop_while_the_server_is_away(own_server: Server) -> None:
    own_server.kill()
    queue = RedisQueue(own_server.url)
    await queue.start()
    with pytest.raises(QueueUnavailable):
        await queue.claim(1)
    await queue.close()


async def test_a_front_door_of_another_type_is_said_clearly(redis: Redis, start: Start) -> None:
    queue = await start()
    await redis.set(FRONT, "not a list")
    with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
        await queue.claim(1)


async def work_out(redis: Redis, start: Start) -> None:
    """Leaves behind every kind of key that there is."""
    rates = RateLimits(Rate(1000), Rate(1000, 60), Rate(1000, 60))
    queue, dead = await start(limits=rates), await start(limits=rates)
    await queue.register("123", TOKEN)
    await queue.enqueue([message("p1", "98", provisional=True, group="g")])
    await queue.claim(0, [Settlement(lease, Ack("1")) for lease in (await queue.claim(1)).leases])
    await queue.enqueue([message(n, "98", also="97", send_at=time.time()) for n in range(2)])
    await queue.enqueue([message(n, str(chat), track=True) for n in range(3) for chat in range(8)])
    await queue.enqueue([message(n, "99", priority=Priority.BULK) for n in range(1200)])
    await redis.rpush(FRONT, element(), element(bot_token="123:other"), "garbage")
    await queue.enqueue([message(8, send_at=time.time() + 3600, dedup_key="order 8")])
    await queue.pause("9")
    await redis.sadd(f"{{{FRONT}}}:subscribers:123", "1")
    broadcast = ["id", "123", '"bot":"123","priority":"bulk"}', "", "last", 1_000_000, "1", "2"]
    await Script("broadcast").run(queue._patient, FRONT, broadcast)
    await dead.claim(1)
    leases = []
    while len(leases) < 5:  # a bot's messages are paced
        leases += (await queue.claim(5 - len(leases), held=leases)).leases
    decisions = [
        Ack("1"),
        Release(60, "network", "refused", counts=True),
        Bury("blocked", "x"),
        Release(60, "flood", "retry after 60", scope=Scope.CHAT),
        Release(0, "network", "refused", scope=Scope.RECEIVER),
    ]
    await queue.claim(10, [Settlement(lease, decision) for lease, decision in zip(leases, decisions, strict=True)])
    await queue.claim(10)
    await presume_dead(redis, dead)
    await queue.reap()
    # Two names of a chat, in the middle of being one.
    for chat in ("-5", "-1007"):
        await redis.rpush(FRONT, *(element(chat_id=chat, accepted=n) for n in range(150)))
    while await redis.llen(FRONT):
        await queue.claim(0)
    await queue.alias("123", "-5", "-1007")
    await queue.enqueue([message(7, "99", priority=Priority.BULK) for _ in range(9)])
    # Two long lanes that turn out to be one: more than a call merges.
    await queue.enqueue([message(n, chat) for n in range(150) for chat in ("70", "71")])
    while (await queue.claim(0)).more:
        pass
    await queue.alias("123", "70", "71")
    await redis.rpush(f"{{{FRONT}}}:handoff", element())
    await redis.rpush(FRONT, element())
    # An outage and a blocked bot, beside the one that works.
    await redis.hset(f"{{{FRONT}}}:outages", "9", "1 5")
    await redis.zadd(f"{{{FRONT}}}:bots:due", {"9": 9e15})


async def test_every_key_is_documented_and_has_the_ttl_it_should(redis: Redis, start: Start) -> None:
    await work_out(redis, start)
    rows = list(documented(keys.__doc__ or ""))
    found = set()
    for key in await redis.keys("*"):
        matching = [(pattern.pattern, has_ttl) for pattern, has_ttl in rows if pattern.fullmatch(key)]
        assert matching, f"{key} is not in the data model"
        assert (await redis.ttl(key) >= 0) == matching[0][1], key
        found.add(matching[0][0])
    missing = {pattern.pattern for pattern, _ in rows} - found
    assert missing <= {re.escape(f"{{{FRONT}}}:idle")}, "documented, but never seen"


async def test_what_is_pushed_waits_at_a_door_or_is_replayed_has_the_queues_ttl(redis: Redis, redis_url: str) -> None:
    queue = RedisQueue(redis_url, ttl=0.05)
    await queue.start()
    await kill(queue, "dead", chat=44)
    bulk = Message(bot="1", chat="43", id="bulk", body={"text": "x"}, track=True, priority=Priority.BULK)
    await queue.enqueue([bulk, Message(bot="1", chat="42", id="own", body={"text": "x"}, ttl=60)])
    await redis.rpush("telegram_messages", '{"bot": "1", "chat_id": 42, "text": "x", "id": "pushed", "track": true}')
    await queue.claim(0)
    await queue.redrive(["dead"])
    accepted = time.time()
    await wait_until(lambda: time.time() > accepted + 0.06, "the ttl to pass")
    assert await drained(queue) == ["own"]
    assert [await state(queue, id) for id in ("dead", "bulk", "pushed")] == [MessageState.EXPIRED] * 3
    await queue.close()
