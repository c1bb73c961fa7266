"""Why a message waits: the reason, until when, and how many before it. Each test runs on both queues."""

import time

from queueing.contract import Queue, Settlement
from queueing.limits import Rate
from queueing.message import Priority
from queueing.retry import Ack, Release, Scope
from tests.queueing.both import StartAny, make_queue, queue, start
from tests.queueing.desk import REFUSED, message, settle

__all__ = ["make_queue", "queue", "start"]


async def reasons(queue: Queue, name: str) -> tuple[str, float | None, int]:
    """Reason, seconds from now (rounded to the next), messages ahead."""
    waiting = await queue.why(name)
    assert waiting
    assert not waiting.more
    return waiting.reason, None if waiting.until is None else round(waiting.until - time.time()), waiting.ahead


async def test_why_of_what_does_not_wait(queue: Queue) -> None:
    assert await queue.why("never") is None
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    assert await queue.why("a") is None
    await settle(queue, [lease], Ack())
    assert await queue.why("a") is None


async def test_why_at_the_doors_in_its_lane_and_in_the_schedule(queue: Queue) -> None:
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


async def test_why_counts_one_of_a_lower_priority_that_is_in_flight(queue: Queue) -> None:
    await queue.enqueue([message("a")])
    (lease,) = (await queue.claim(1)).leases
    await queue.enqueue([message("i", priority=Priority.INTERACTIVE)])
    await queue.claim(0, held=[lease])
    assert await reasons(queue, "i") == ("ahead", None, 1)


async def test_why_names_the_limit(start: StartAny) -> None:
    queue = await start(chat=Rate(1, 60))
    await queue.enqueue([message("a"), message("b"), message("c")])
    await settle(queue, (await queue.claim(1)).leases, Ack())
    assert await reasons(queue, "b") == ("chat_limit", 60, 0)
    assert await reasons(queue, "c") == ("chat_limit", 120, 1)
    other = await start(bot=Rate(1, 60))
    await other.enqueue([message("x", 1, bot="2"), message("y", 2, bot="2"), message("z", 3, bot="2")])
    claim = await other.claim(1)
    assert [lease.message.id for lease in claim.leases] == ["x"]
    await settle(other, claim.leases, Ack())
    assert (await reasons(other, "y"))[0] == "bot_limit"
    waits = [(await reasons(other, name))[1] for name in "yz"]
    assert waits == [60, 120]


async def test_why_names_a_retry_a_flood_and_a_pause(queue: Queue) -> None:
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


async def test_why_names_an_outage(queue: Queue) -> None:
    await queue.enqueue([message(name, chat) for chat, name in enumerate("abcd")])
    leases = (await queue.claim(4)).leases
    await settle(queue, leases, Release(0.01, "network", "refused", counts=True, scope=Scope.RECEIVER))
    reason, until, ahead = await reasons(queue, leases[3].message.id)
    assert (reason, ahead) == ("outage", 0)
    assert until is not None


async def test_why_counts_a_thousand_exactly_and_says_when_there_are_more(queue: Queue) -> None:
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


async def test_bulk_at_its_door_stands_behind_what_was_taken_from_there(queue: Queue) -> None:
    await queue.enqueue([message(f"m{n}", n, priority=Priority.BULK) for n in range(1_100)])
    while (await queue.claim(0)).more:
        pass
    for _ in range(12):
        await queue.claim(0)
    waiting = await queue.why("m1099")
    assert waiting
    assert (waiting.reason, waiting.ahead, waiting.more) == ("door", 1_000, True)
