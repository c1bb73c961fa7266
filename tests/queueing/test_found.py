"""What the state machine found, each in its shortest form."""

from collections.abc import Iterator

import pytest

from queueing.contract import Settlement
from queueing.limits import Rate, RateLimits
from queueing.message import Message, MessageState, Priority
from queueing.retry import Ack, Release
from tests.queueing.virtual import RedisWorld, stop_time


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[RedisWorld]:
    world = RedisWorld(stop_time(monkeypatch), redis_url)
    world.begin()
    yield world
    world.close()


def message(name: str, chat: str = "42", priority: Priority = Priority.NORMAL) -> Message:
    return Message(bot="1", chat=chat, id=name, body={}, priority=priority, track=True)


def test_a_bell_at_the_door_is_no_message(world: RedisWorld) -> None:
    queue = world.new_process(RateLimits())
    world.run(queue.claim(1))
    world.run(queue.pause("1"))
    world.run(queue.resume("1"))
    assert world.run(queue.stats()).depth == 0


@pytest.mark.parametrize("how", ["leave", "forget"])
def test_what_goes_back_to_its_lane_unsent_is_pending(how: str, world: RedisWorld) -> None:
    queue, other = world.new_process(RateLimits()), world.new_process(RateLimits())
    world.run(queue.enqueue([message("a")]))
    assert world.run(queue.claim(1)).leases
    world.run(queue.close() if how == "leave" else queue.claim(0, held=()))
    status = world.run(other.status("a"))
    assert status
    assert status.state is MessageState.PENDING


def test_a_bot_that_was_held_up_by_what_could_have_left_later_goes_on_when_it_left(world: RedisWorld) -> None:
    queue = world.new_process(RateLimits(bot=Rate(1)))
    world.run(queue.enqueue([message("a", "1"), message("b", "2")]))
    held = world.run(queue.claim(1)).leases
    assert not world.run(queue.claim(1, held=held)).leases
    claim = world.run(queue.claim(1, [Settlement(held[0], Ack())]))
    assert claim.next_due == 1.01


def test_a_lane_that_is_ready_while_a_retry_is_due_later_counts_once(world: RedisWorld) -> None:
    queue = world.new_process(RateLimits(bot=Rate(1)))
    world.run(queue.enqueue([message("a", priority=Priority.INTERACTIVE), message("b"), message("c")]))
    (lease,) = world.run(queue.claim(1)).leases
    world.run(queue.claim(1, [Settlement(lease, Release(60, "network", "refused", counts=True))]))
    stats = world.run(queue.stats())
    assert (stats.depth, stats.ready + stats.waiting) == (3, 3)


def test_what_is_in_flight_waits_for_nothing_although_others_go_before_it_by_now(world: RedisWorld) -> None:
    queue = world.new_process(RateLimits())
    world.run(queue.enqueue([message("a")]))
    held = world.run(queue.claim(1)).leases
    world.run(queue.enqueue([message("b", priority=Priority.INTERACTIVE)]))
    world.run(queue.claim(1, held=held))
    assert world.run(queue.why("a")) is None
    waiting = world.run(queue.why("b"))
    assert waiting
    assert (waiting.reason, waiting.ahead) == ("ahead", 1)


def test_a_window_is_not_empty_because_the_clock_was_set_forward(world: RedisWorld) -> None:
    queue = world.new_process(RateLimits(bot=Rate(1)))
    world.run(queue.enqueue([message("a", "1"), message("b", "2")]))
    (lease,) = world.run(queue.claim(1)).leases
    world.run(queue.claim(0, [Settlement(lease, Ack())]))
    world.set_clock(55_000)
    assert not world.run(queue.claim(1)).leases
