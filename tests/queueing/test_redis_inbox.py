"""The queue of updates: each is taken once, and what came of it is stored as a whole."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease
from queueing.errors import QueueFull
from queueing.inbox import Commit, Conflict, Standing, Write
from queueing.message import Message, Priority, encode
from queueing.redis_inbox import RedisInbox, Taker
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury
from tests.queueing.desk import settle

BOT = "8081"
Q = "{telegram_messages}"
Start = Callable[..., Awaitable[RedisInbox]]


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """Starts inboxes as separate processes would have them."""
    started: list[RedisInbox] = []

    async def start(bot: str = BOT, **options: object) -> RedisInbox:
        inbox = RedisInbox(redis_url, bot, **options)  # type: ignore[arg-type]
        await inbox.start()
        started.append(inbox)
        return inbox

    yield start
    for inbox in started:
        await inbox._patient.delete(f"{Q}:state:1")  # written here, and the bot's to look after
        await inbox.close()


@pytest.fixture
async def inbox(start: Start) -> RedisInbox:
    return await start()


@pytest.fixture
async def messages(redis_url: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(redis_url)
    await queue.start()
    yield queue
    await queue.close()


def update(number: int = 1, chat: str = "42", bot: str = BOT, **fields: object) -> Message:
    body = {"update": {"update_id": number}}
    return Message(bot=bot, chat=chat, id=f"u{number}", body=body, **fields)  # type: ignore[arg-type]


def send(number: int, chat: str = "42", priority: Priority = Priority.NORMAL) -> Message:
    body = {"text": str(number)}
    return Message(bot=BOT, chat=chat, id=f"p{number}", body=body, priority=priority, provisional=True)


async def take(inbox: RedisInbox, number: int = 1, chat: str = "42") -> Lease:
    """An update that was accepted and is granted to this inbox."""
    await inbox.accept(update(number, chat), number)
    (lease,) = (await inbox.claim(1)).leases
    return lease


async def texts(queue: RedisQueue) -> list[str]:
    """What the queue of messages holds, each settled before the next, in order."""
    found: list[str] = []
    claim = await queue.claim(1)
    while claim.leases:
        found += [lease.message.body["text"] for lease in claim.leases]
        claim = await settle(queue, claim.leases, Ack("1"), want=1)
    return found


async def seize(redis: Redis, inbox: RedisInbox, other: RedisInbox) -> Lease:
    """What the inbox's process holds goes to another, as if it were dead."""
    await other.claim(0)  # else nobody was heard, and it may have been the server that was away
    await redis.zadd(f"{Q}:updates:{BOT}:processes", {inbox.incarnation: 1})
    await other.reap()
    (lease,) = (await other.claim(1)).leases
    return lease


async def test_rule_19_an_update_is_taken_once_handling_first_then_done(inbox: RedisInbox) -> None:
    assert await inbox.accept(update(), 1) is Standing.NEW
    assert await inbox.accept(update(), 1) is Standing.HANDLING
    claim = await inbox.claim(1)
    assert [lease.message for lease in claim.leases] == [update(accepted=claim.leases[0].message.accepted)]
    assert await inbox.accept(update(), 1) is Standing.HANDLING
    await settle(inbox, claim.leases, Ack())
    assert await inbox.accept(update(), 1) is Standing.DONE
    assert not (await inbox.claim(1)).leases


async def test_a_dead_update_is_done(inbox: RedisInbox) -> None:
    await settle(inbox, [await take(inbox)], Bury("handler_failed", "ValueError"))
    assert await inbox.accept(update(), 1) is Standing.DONE
    assert [letter.id for letter in await inbox.dead_letters()] == ["u1"]


async def test_bots_do_not_share_updates(inbox: RedisInbox, start: Start) -> None:
    other = await start("9")
    assert await inbox.accept(update(), 1) is Standing.NEW
    assert await other.accept(update(bot="9"), 1) is Standing.NEW
    assert [lease.message.bot for lease in (await other.claim(5)).leases] == ["9"]


async def test_a_repeated_script_whose_first_answer_was_lost_tells_the_poster_that_it_is_new(
    inbox: RedisInbox, redis: Redis
) -> None:
    args = ["an-operation", 10, encode(update()), "u1", f"{BOT}:0", 1, 60]
    assert [await inbox._accept.run(inbox._patient, inbox._keys.front, args) for _ in range(2)] == [0, 0]
    assert await redis.llen(f"{Q}:updates:{BOT}") == 1


async def test_too_many_are_refused_and_may_come_again(start: Start) -> None:
    inbox = await start(updates_max=2)
    for number in (1, 2):
        assert await inbox.accept(update(number), number) is Standing.NEW
    with pytest.raises(QueueFull):
        await inbox.accept(update(3), 3)
    assert await inbox.accept(update(1), 1) is Standing.HANDLING
    await settle(inbox, (await inbox.claim(1)).leases, Ack())
    assert await inbox.accept(update(3), 3) is Standing.NEW


async def test_the_numbers_of_a_hundred_thousand_updates_are_a_few_small_keys(inbox: RedisInbox, redis: Redis) -> None:
    for number in (100_000_000, 100_000_001, 100_004_095):
        await inbox.accept(update(number), number)
    keys = await redis.keys("*:numbers:*")
    assert len(keys) == 2  # ids that begin in the middle of a block
    assert all([await redis.strlen(key) <= 512 for key in keys])
    assert all([24 * 3600 < await redis.ttl(key) <= 25 * 3600 for key in keys])


async def test_rule_21_sends_state_and_jobs_are_stored_with_the_end_of_the_update(
    inbox: RedisInbox, messages: RedisQueue
) -> None:
    lease = await take(inbox)
    job = Message(bot=BOT, chat="42", id="j1", body={"job": {"name": "tick"}})
    writes = [Write("state:1", "a", b"=1\0"), Write("state:1", "b", b"", seen=None)]
    assert await inbox.commit(lease.message, Commit([send(1), send(2)], [job], writes)) == []
    assert await inbox.read_all("state:1") == {"a": b"=1\0", "b": b""}
    assert await inbox.read([("state:1", "b"), ("state:1", "c"), ("state:2", "a")]) == [b"", None, None]
    assert await texts(messages) == ["1", "2"]
    claim = await settle(inbox, [lease], Ack(), want=5)
    assert [lease.message.body for lease in claim.leases] == [{"job": {"name": "tick"}}]


async def test_rule_21_a_repeated_commit_adds_nothing(inbox: RedisInbox, messages: RedisQueue) -> None:
    lease = await take(inbox)
    first = Commit([send(1)], writes=[Write("state:1", "a", b"1", seen=None)])
    assert await inbox.commit(lease.message, first) == []
    assert await inbox.commit(lease.message, first) == []
    assert await texts(messages) == ["1"]


async def test_rule_21_what_is_committed_is_not_run_again_though_its_process_died(
    inbox: RedisInbox, start: Start, redis: Redis
) -> None:
    lease = await take(inbox)
    await inbox.commit(lease.message, Commit())
    other = await start()
    await inbox.accept(update(2), 2)
    assert (await seize(redis, inbox, other)).message.id == "u2"
    assert await other.accept(update(), 1) is Standing.DONE


async def test_rule_21_what_is_committed_as_failed_is_a_dead_letter_though_its_process_died(
    inbox: RedisInbox, start: Start, redis: Redis
) -> None:
    lease = await take(inbox)
    await inbox.commit(lease.message, Commit(failed=("handler_failed", "ValueError: a\tb\n  File x")))
    other = await start()
    await inbox.accept(update(2), 2)
    assert (await seize(redis, inbox, other)).message.id == "u2"
    (letter,) = await other.dead_letters()
    assert (letter.id, letter.reason, letter.error) == ("u1", "handler_failed", "ValueError: a b\n  File x")
    assert not await redis.keys(f"{Q}:updates:{BOT}:ended:*")


async def test_rule_21_the_failure_of_a_send_is_not_handled_again_either(
    inbox: RedisInbox, start: Start, redis: Redis
) -> None:
    failure = Message(bot=BOT, chat="42", id="failed-p1", body={"failed": {}}, provisional=True)
    await inbox.enqueue([failure])
    (lease,) = (await inbox.claim(1)).leases
    await inbox.commit(lease.message, Commit())
    other = await start()
    await inbox.accept(update(2), 2)
    assert (await seize(redis, inbox, other)).message.id == "u2"
    assert await other.dead_letters() == []
    await inbox.enqueue([failure])
    assert (await other.stats()).depth == 1, "it is taken once"


async def test_jobs_for_later_keep_no_failure_out(start: Start) -> None:
    inbox = await start(updates_max=2)
    later = [Message(bot=BOT, chat="42", id=f"j{n}", body={"job": {}}, send_at=time.time() + 3600) for n in range(3)]
    for one in later:
        lease = await take(inbox, int(one.id[1:]) + 1)
        await inbox.commit(lease.message, Commit(updates=[one]))
        await settle(inbox, [lease], Ack())
    await inbox.enqueue([Message(bot=BOT, chat="42", id="failed-p1", body={"failed": {}}, provisional=True)])
    assert (await inbox.claim(1)).leases


async def test_rule_21_a_commit_is_refused_after_a_take_over(
    inbox: RedisInbox, start: Start, redis: Redis, messages: RedisQueue
) -> None:
    lease = await take(inbox)
    other = await start()
    again = await seize(redis, inbox, other)
    assert again.message.id == lease.message.id
    refused = Commit([send(1)], writes=[Write("state:1", "a", b"1")])
    assert await inbox.commit(lease.message, refused) is None
    assert await inbox.read_all("state:1") == {}
    assert await texts(messages) == []
    assert await other.commit(again.message, Commit([send(1)])) == []
    assert await texts(messages) == ["1"]


async def test_a_send_that_was_queued_before_the_commit_is_not_added_again(
    inbox: RedisInbox, messages: RedisQueue
) -> None:
    lease = await take(inbox)
    await messages.enqueue([send(1)])
    await inbox.commit(lease.message, Commit([send(1), send(2)]))
    assert await texts(messages) == ["1", "2"]


@pytest.mark.parametrize(
    ("write", "holds"),
    [
        (Write("state:1", "a", b"new", seen=None), b"old"),
        (Write("state:1", "a", None, seen=b"other"), b"old"),
        (Write("state:1", "b", b"new", seen=b"other"), None),
    ],
)
async def test_a_field_that_holds_something_else_than_was_read_is_a_conflict_and_nothing_is_stored(
    write: Write, holds: bytes | None, inbox: RedisInbox, messages: RedisQueue
) -> None:
    await commit(inbox, take_number=1, writes=[Write("state:1", "a", b"old")])
    lease = await take(inbox, 2)
    kept = Write("state:1", "z", b"1")
    assert await inbox.commit(lease.message, Commit([send(1)], writes=[kept, write])) == [Conflict(write, holds)]
    assert await inbox.read_all("state:1") == {"a": b"old"}
    assert await texts(messages) == []


async def test_what_was_read_may_be_overwritten_and_deleted(inbox: RedisInbox) -> None:
    await commit(inbox, take_number=1, writes=[Write("state:1", "a", b"old"), Write("state:1", "b", b"old")])
    writes = [Write("state:1", "a", b"new", seen=b"old"), Write("state:1", "b", None, seen=b"old")]
    await commit(inbox, take_number=2, writes=writes)
    assert await inbox.read_all("state:1") == {"a": b"new"}


async def test_writes_of_no_update_are_stored_all_or_none_and_may_end_by_themselves(
    inbox: RedisInbox, redis: Redis
) -> None:
    assert await inbox.write([Write("state:1", "a", b"1", seen=None, ttl=60), Write("state:1", "b", b"2")]) == []
    assert 0 < await redis.ttl(f"{Q}:state:1") <= 60
    late = Write("state:1", "b", b"3", seen=b"1")
    assert await inbox.write([Write("state:1", "a", b"4"), late]) == [Conflict(late, b"2")]
    assert await inbox.read_all("state:1") == {"a": b"1", "b": b"2"}


async def test_a_job_can_be_committed_too_and_leaves_nothing(inbox: RedisInbox, redis: Redis) -> None:
    await inbox.enqueue([Message(bot=BOT, chat="42", id="j1", body={"job": {}}, send_at=1.0)])
    (lease,) = (await inbox.claim(1)).leases
    assert await inbox.commit(lease.message, Commit()) == []
    await settle(inbox, [lease], Ack())
    assert await redis.hgetall(f"{Q}:updates:{BOT}:open") == {}


async def test_the_lines_of_a_traceback_are_kept_and_the_history_has_the_first(inbox: RedisInbox) -> None:
    await settle(inbox, [await take(inbox)], Bury("handler_failed", "ValueError: a\tb\n  File x\n    raise"))
    (letter,) = await inbox.dead_letters()
    assert letter.error == "ValueError: a b\n  File x\n    raise"
    assert [line["error"] for line in letter.history] == ["ValueError: a b"]


async def commit(inbox: RedisInbox, take_number: int, writes: Sequence[Write]) -> None:
    lease = await take(inbox, take_number)
    assert await inbox.commit(lease.message, Commit(writes=writes)) == []
    await settle(inbox, [lease], Ack())


class Hands:
    """Of a process. told: how often they were told to look."""

    def __init__(self, *, room: bool = True) -> None:
        self.told = 0
        self.taker = Taker(lambda: room, self._hear)

    def _hear(self) -> None:
        self.told += 1


async def doors(redis: Redis) -> list[int]:
    """How many updates stand at the front door, and at where the bell puts them; then messages likewise."""
    fronts = (f"{Q}:updates:{BOT}", f"{Q}:updates:{BOT}:handoff", "telegram_messages", f"{Q}:handoff")
    return [await redis.llen(front) for front in fronts]


async def test_what_a_process_brings_itself_it_takes_itself_and_no_bell_rings(inbox: RedisInbox, redis: Redis) -> None:
    own, sending = Hands(), Hands()
    inbox.hand_over(own.taker, sending.taker)
    await inbox.accept(update(), 1)
    assert (await doors(redis), own.told) == ([0, 1, 0, 0], 1)
    (lease,) = (await inbox.claim(1)).leases
    await inbox.commit(lease.message, Commit([send(1)]))
    assert (await doors(redis), sending.told) == ([0, 0, 0, 1], 1)


async def test_without_room_others_are_called(inbox: RedisInbox, redis: Redis, messages: RedisQueue) -> None:
    inbox.hand_over(Hands(room=False).taker, Hands(room=False).taker)
    lease = await take(inbox)
    await inbox.commit(lease.message, Commit([send(1)]))
    assert sum((await doors(redis))[2:]) == 1
    assert await texts(messages) == ["1"]


async def test_who_brings_something_does_not_go_before_those_at_the_door(inbox: RedisInbox, redis: Redis) -> None:
    await inbox.accept(update(1), 1)
    own = Hands()
    inbox.hand_over(own.taker, Hands().taker)
    await inbox.accept(update(2), 2)
    assert (await doors(redis), own.told) == ([2, 0, 0, 0], 0)
    assert [lease.message.id for lease in (await inbox.claim(2)).leases] == ["u1"]


async def test_bulk_goes_to_its_own_door(inbox: RedisInbox, redis: Redis, messages: RedisQueue) -> None:
    sending = Hands()
    inbox.hand_over(Hands().taker, sending.taker)
    lease = await take(inbox)
    await inbox.commit(lease.message, Commit([send(1, priority=Priority.BULK)]))
    assert sending.told == 0
    assert await texts(messages) == ["1"]


async def test_another_process_finds_what_its_bringer_did_not_take(inbox: RedisInbox, start: Start) -> None:
    inbox.hand_over(Hands().taker, Hands().taker)
    await inbox.accept(update(), 1)
    other = await start()
    assert [lease.message.id for lease in (await other.claim(1)).leases] == ["u1"]
