"""The outbox: what is composed, what is refused, and who hears of it."""

import pytest

from bot.outbox import MAX_ELEMENT, Outbox
from queueing.errors import MalformedMessage, QueueFull
from queueing.events import Enqueued, Event
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, MessageState, Priority


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(queue_max=3)


@pytest.fixture
def outbox(queue: MemoryQueue, events: list[Event]) -> Outbox:
    return Outbox(queue, events.append, "123")


def test_the_least_there_can_be(outbox: Outbox) -> None:
    message = outbox.compose(42, "hi")
    assert (message.bot, message.chat, message.body) == ("123", "42", {"text": "hi"})
    assert (message.priority, message.track, message.max_attempts) == (Priority.NORMAL, False, None)
    assert message.id


def test_the_most_there_can_be(outbox: Outbox) -> None:
    message = outbox.compose(
        "@News",
        method="sendPhoto",
        kwargs={"photo": "id"},
        priority=Priority.BULK,
        id="mine-1",
        track=True,
        max_attempts=3,
    )
    assert message == Message(
        bot="123",
        chat="@news",
        body={"method": "sendPhoto", "kwargs": {"photo": "id"}},
        id="mine-1",
        priority=Priority.BULK,
        track=True,
        max_attempts=3,
    )


def test_the_chat_may_be_named_again(outbox: Outbox) -> None:
    kwargs = {"chat_id": "@NEWS", "parse_mode": "HTML"}
    assert outbox.compose("@News", "hi", kwargs=kwargs).body == {"text": "hi", "kwargs": {"parse_mode": "HTML"}}
    assert kwargs == {"chat_id": "@NEWS", "parse_mode": "HTML"}


async def test_what_is_queued_can_be_claimed_in_order_and_is_told_of(
    outbox: Outbox, queue: MemoryQueue, events: list[Event]
) -> None:
    messages = [outbox.compose(chat, "hi", track=True) for chat in (1, 2)]
    assert await outbox.enqueue(messages) == [message.id for message in messages]
    assert events == [Enqueued(message) for message in messages]
    claim = await queue.claim(2)
    assert [lease.message.id for lease in claim.leases] == [message.id for message in messages]
    status = await queue.status(messages[0].id)
    assert status
    assert status.state is MessageState.SENDING


async def test_a_full_queue_takes_none_and_nobody_hears(outbox: Outbox, events: list[Event]) -> None:
    with pytest.raises(QueueFull):
        await outbox.enqueue([outbox.compose(1, "hi") for _ in range(4)])
    assert events == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"chat_id": None, "text": "hi"}, "chat_id"),
        ({"chat_id": "a b", "text": "hi"}, "chat_id"),
        ({"chat_id": 1.5, "text": "hi"}, "chat_id"),
        ({"chat_id": 1}, "text"),
        ({"chat_id": 1, "text": 5}, "text"),
        ({"chat_id": 1, "text": "hi", "kwargs": []}, "kwargs"),
        ({"chat_id": 1, "text": "hi", "kwargs": "x"}, "kwargs"),
        ({"chat_id": 1, "text": "hi", "kwargs": {"chat_id": 2}}, "kwargs.chat_id"),
        ({"chat_id": 1, "text": "hi", "method": "a b"}, "method"),
        ({"chat_id": 1, "text": "hi", "method": "logOut"}, "method"),
        ({"chat_id": 1, "text": "hi", "id": "a b"}, "id"),
        ({"chat_id": 1, "text": "hi", "id": ""}, "id"),
        ({"chat_id": 1, "text": "hi", "max_attempts": 0}, "max_attempts"),
        ({"chat_id": 1, "text": "hi", "max_attempts": 1001}, "max_attempts"),
        ({"chat_id": 1, "text": "hi", "max_attempts": True}, "max_attempts"),
        ({"chat_id": 1, "text": "hi", "max_attempts": "3"}, "max_attempts"),
        ({"chat_id": 1, "text": "half \ud83d"}, "JSON"),
        ({"chat_id": 1, "text": "hi", "kwargs": {"a": {1, 2}}}, "JSON"),
        ({"chat_id": 1, "text": "x" * MAX_ELEMENT}, "larger than 1 MiB"),
        ({"chat_id": 1, "text": "é" * (MAX_ELEMENT // 2)}, "larger than 1 MiB"),
    ],
)
def test_what_could_never_be_sent_is_refused_and_named(outbox: Outbox, fields: dict[str, object], named: str) -> None:
    with pytest.raises(MalformedMessage, match=named):
        outbox.compose(**fields)  # type: ignore[arg-type]


def test_a_message_as_large_as_it_may_be(outbox: Outbox) -> None:
    assert outbox.compose(1, "x" * (MAX_ELEMENT - 200))
