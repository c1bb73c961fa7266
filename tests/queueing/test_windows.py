"""The edges of each window, to the millisecond; and what a clock that is set does to them."""

from collections.abc import Iterator

import pytest

from queueing.contract import Queue, Settlement
from queueing.limits import MARGIN, WRITE_WITHIN, Rate, RateLimits
from queueing.message import Message
from queueing.retry import Ack
from tests.queueing.virtual import RedisWorld, stop_time

PERIOD = round((1 + MARGIN) * 1000)
WITHIN = round(WRITE_WITHIN * 1000)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[RedisWorld]:
    world = RedisWorld(stop_time(monkeypatch), redis_url)
    world.begin()
    yield world
    world.close()


def waiting(world: RedisWorld, limits: RateLimits, *chats: str, body: dict[str, object] | None = None) -> Queue:
    """A queue with ten messages for each chat."""
    queue = world.new_process(limits)
    world.run(queue.enqueue([Message(bot="1", chat=chat, body=body or {}) for _ in range(10) for chat in chats]))
    return queue


def left(world: RedisWorld, queue: Queue, *, written: int = 0) -> int:
    """How many may leave now. Each is written so many ms later, and acknowledged."""
    count = 0
    while leases := world.run(queue.claim(1)).leases:
        world.advance(written)
        world.run(queue.claim(0, [Settlement(leases[0], Ack(), written / 1000)]))
        count += 1
    return count


SCOPES = {
    "bot": (RateLimits(bot=Rate(1)), ["41", "42"], {}),
    "paid": (RateLimits(bot=Rate(100), paid=Rate(1)), ["41", "42"], {"kwargs": {"allow_paid_broadcast": True}}),
    "chat": (RateLimits(chat=Rate(1)), ["42"], {}),
    "group": (RateLimits(group=Rate(1)), ["-42"], {}),
    "channel": (RateLimits(group=Rate(1)), ["@name"], {}),
    "this chat": (RateLimits(chat=Rate(100), chats={"42": Rate(1)}), ["42"], {}),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("written", [0, 1, WITHIN])
def test_the_next_may_leave_a_period_after_the_first_was_written_and_not_before(
    scope: str, written: int, world: RedisWorld
) -> None:
    limits, chats, body = SCOPES[scope]
    queue = waiting(world, limits, *chats, body=body)
    assert left(world, queue, written=written) == 1
    world.advance(PERIOD - 1)
    assert left(world, queue) == 0
    world.advance(1)
    assert left(world, queue) == 1


@pytest.mark.parametrize(("chat", "limits"), [("42", RateLimits(chat=Rate(3))), ("-42", RateLimits(group=Rate(3)))])
def test_a_window_slides(chat: str, limits: RateLimits, world: RedisWorld) -> None:
    """Three leave at 0, 300 and 600 ms: the next three a period after each."""
    queue = world.new_process(limits)
    for _ in range(3):
        world.run(queue.enqueue([Message(bot="1", chat=chat, body={})]))
        assert left(world, queue) == 1
        world.advance(300)
    world.run(queue.enqueue([Message(bot="1", chat=chat, body={}) for _ in range(9)]))
    for wait in (PERIOD - 900, 300, 300, PERIOD - 600):
        world.advance(wait - 1)
        assert left(world, queue) == 0
        world.advance(1)
        assert left(world, queue) == 1


def test_what_is_in_flight_counts_as_written_at_the_latest(world: RedisWorld) -> None:
    queue = waiting(world, RateLimits(bot=Rate(1)), "41", "42")
    held = world.run(queue.claim(1)).leases
    world.advance(PERIOD + WITHIN - 1)
    assert not world.run(queue.claim(1, held=held)).leases
    world.advance(1)
    assert world.run(queue.claim(1, held=held)).leases


@pytest.mark.parametrize("by", [-3_600_000, -1_000, 500, 5_000, 55_000])
def test_rule_5_a_clock_that_is_set_opens_no_window(by: int, world: RedisWorld) -> None:
    """What is too small to be noticed forward is a part of the window; what is backward only makes it longer."""
    queue = waiting(world, RateLimits(bot=Rate(1), chat=Rate(1)), "42", "43")
    assert left(world, queue) == 1
    world.set_clock(by)
    unnoticed = by if 0 < by < 2000 else 0
    world.advance(PERIOD - unnoticed - 1)
    assert left(world, queue) == 0
    world.advance(1 if by > 0 else PERIOD)
    assert left(world, queue) == 1


def test_rule_5_a_jump_counts_once_whoever_notices_it(world: RedisWorld) -> None:
    """Also for a process that was silent from before the jump until long after another noticed it."""
    first, second = world.new_process(RateLimits()), world.new_process(RateLimits())
    for queue in (first, second):
        world.run(queue.claim(0))
    world.set_clock(60_000)
    assert world.run(first.claim(0)).jumped == 60
    world.advance(5_000)
    assert world.run(second.claim(0)).jumped == 0
