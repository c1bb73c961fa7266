"""Rule 17: two queues as one, each chat in one of them, the bot's budget divided between them."""

import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease, Queue, Settlement
from queueing.errors import QueueFull, QueueUnavailable
from queueing.limits import OFF, Rate
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury
from queueing.split_queue import SplitQueue, divide, divide_rate, is_in_share
from tests.conftest import Server, wait_until

CHATS = [str(chat) for chat in range(1, 5001)]


def message(name: str, chat: str, **fields: object) -> Message:
    return Message(bot="1", chat=chat, id=name, body={"text": name}, track=True, **fields)  # type: ignore[arg-type]


def chat_of(split: SplitQueue, backend: str) -> str:
    return next(chat for chat in CHATS if split.backend_of(message("x", chat)) == backend)


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
def test_rule_17_the_share_is_about_as_asked_and_only_grows(percent: int) -> None:
    chats = {chat for chat in CHATS if is_in_share("1", chat, percent)}
    assert len(chats) / len(CHATS) == pytest.approx(percent / 100, abs=0.02)
    assert chats == {chat for chat in CHATS if is_in_share("1", chat, percent)}
    assert chats <= {chat for chat in CHATS if is_in_share("1", chat, percent + 1)}
    assert chats != {chat for chat in CHATS if is_in_share("2", chat, percent)}, "the same chats for each bot"


def test_rule_17_the_share_of_a_chat_is_the_same_on_every_machine_and_for_ever() -> None:
    assert [is_in_share("123456", str(chat), 50) for chat in (42, 43, -1001234, "@news")] == FIXED
    assert not any(is_in_share("1", chat, 0) for chat in CHATS)
    assert all(is_in_share("1", chat, 100) for chat in CHATS)


FIXED = [False, True, True, True]


@pytest.mark.parametrize("count", [2, 3, 5, 20, 30, 1000])
@pytest.mark.parametrize("percent", [1, 10, 33, 50, 67, 90, 99])
def test_rule_17_the_parts_of_a_limit_are_the_limit(count: int, percent: int) -> None:
    part, rest = divide(count, percent)
    assert part + rest == count
    assert min(part, rest) >= 1
    assert abs(part - count * percent / 100) <= 1
    assert divide_rate(Rate(count, 0.5), percent) == (Rate(part, 0.5), Rate(rest, 0.5))


def test_rule_17_one_cannot_be_divided_and_no_limit_need_not_be() -> None:
    with pytest.raises(ValueError, match="1 cannot be divided"):
        divide_rate(Rate(1, 1.0), 50)
    assert divide_rate(OFF, 50) == (OFF, OFF)


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(redis_url)
    await queue.start()
    yield queue
    await queue.close()


@pytest.fixture
def own() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
def split(shared: RedisQueue, own: MemoryQueue) -> SplitQueue:
    return SplitQueue(shared, own, 50)


async def take(queue: Queue, decision: Ack | Bury = Ack()) -> list[Lease]:  # noqa: B008  frozen
    """Everything that may leave, in the order in which it does."""
    taken: list[Lease] = []
    claim = await queue.claim(10)
    while claim.leases:
        taken += claim.leases
        claim = await queue.claim(10, [Settlement(lease, decision) for lease in claim.leases])
    return taken


async def test_rule_17_a_chat_is_never_in_both(split: SplitQueue, shared: RedisQueue, own: MemoryQueue) -> None:
    chats = CHATS[:40]
    await split.enqueue([message(f"{chat}.{n}", chat) for n in range(3) for chat in chats])
    taken = {"redis": await take(shared), "memory": await take(own)}
    for backend, leases in taken.items():
        assert leases
        for chat in chats:
            names = [lease.message.id for lease in leases if lease.message.chat == chat]
            here = split.backend_of(message("x", chat)) == backend
            assert names == ([f"{chat}.{n}" for n in range(3)] if here else [])


async def test_what_is_known_of_a_message_is_asked_of_both(
    split: SplitQueue, shared: RedisQueue, own: MemoryQueue
) -> None:
    chats = {backend: chat_of(split, backend) for backend in ("redis", "memory")}
    await split.enqueue([message(f"{name}-{n}", chat) for name, chat in chats.items() for n in range(2)])
    await split.pause(bot="1", reason="wait")
    assert [(pause.bot, pause.reason) for pause in await split.paused()] == [("1", "wait")]
    assert not await take(shared)
    assert not await take(own)
    for name in chats:
        status = await split.status(f"{name}-0")
        assert status
        assert status.state is MessageState.PENDING
        waiting = await split.why(f"{name}-1")
        assert waiting
        assert (waiting.reason, waiting.ahead) == ("paused", 1)
        assert await split.cancel(f"{name}-1") is MessageState.CANCELLED
    assert await split.status("unknown") is await split.why("unknown") is await split.cancel("unknown") is None
    await split.resume(bot="1")
    assert [lease.message.id for lease in await take(shared)] == ["redis-0"]
    assert [lease.message.id for lease in await take(own)] == ["memory-0"]


def _another_millisecond() -> Callable[[], bool]:
    died = time.time()
    return lambda: time.time() > died + 0.003


async def test_dead_letters_of_both_are_one_list(split: SplitQueue, shared: RedisQueue, own: MemoryQueue) -> None:
    redis, memory = (chat_of(split, backend) for backend in ("redis", "memory"))
    for n in range(6):
        await split.enqueue([message(str(n), redis if n % 2 else memory)])
        for queue in (shared, own):
            await take(queue, Bury("blocked", "by the user"))
        await wait_until(_another_millisecond(), "the next millisecond")
    assert [letter.id for letter in await split.dead_letters()] == list("543210")
    seen, page = [], await split.dead_page(4)
    seen += [letter.id for letter in page.letters]
    assert page.next
    page = await split.dead_page(4, page.next)
    assert (seen + [letter.id for letter in page.letters], page.next) == (list("543210"), None)

    letter = await split.dead_letter("3")
    assert letter
    assert letter.chat == redis
    assert await split.redrive(["0", "1", "unknown"]) == 2
    assert [lease.message.id for queue in (shared, own) for lease in await take(queue)] == ["1", "0"]
    assert await split.drop(["2", "3"]) == 2
    assert await split.redrive_all() == 2
    assert await split.drop_all() == 0


async def test_a_dedup_key_counts_in_both(split: SplitQueue) -> None:
    redis, memory = (chat_of(split, backend) for backend in ("redis", "memory"))
    await split.enqueue([message("a", redis, dedup_key="k"), message("b", memory, dedup_key="l")])
    await split.enqueue([message("c", memory, dedup_key="k"), message("d", redis, dedup_key="l")])
    assert (await split.stats()).depth == 2
    assert await split.first_with("1", "k") == "a"
    assert await split.first_with("1", "l") == "b"


async def test_counts_are_told_together_and_apart(split: SplitQueue, shared: RedisQueue, own: MemoryQueue) -> None:
    chats = CHATS[:20]
    await split.enqueue([message(chat, chat) for chat in chats])
    await shared.claim(1)
    await own.claim(1)
    stats = await split.stats()
    assert (stats.depth, stats.inflight) == (20, 2)
    assert set(stats.parts) == {"redis", "memory"}
    assert sum(part.depth for part in stats.parts.values()) == 20
    assert [process.inflight for process in stats.processes] == [2], "one process, whichever of its queues it serves"
    await take(own)
    assert (await split.stats()).processed == len(chats) - (await shared.stats()).depth


async def test_tokens_are_known_to_both(split: SplitQueue, shared: RedisQueue, own: MemoryQueue) -> None:
    await split.register("1", "1:a")
    await split.offer("2", "2:b")
    for queue in (shared, own, split):
        assert await queue.credentials("1") == ["1:a"]
        assert await queue.credentials("2") == ["2:b"]
        assert (await queue.proven("1"), await queue.proven("2")) == (True, False)
    await shared.register("1", "1:new")
    assert await split.credentials("1") == ["1:a", "1:new"]


async def test_if_one_refuses_nothing_is_taken(own_server: Server, own: MemoryQueue) -> None:
    shared = RedisQueue(own_server.url, timeout=0.2)
    await shared.start()
    split = SplitQueue(shared, own, 50)
    redis, memory = (chat_of(split, backend) for backend in ("redis", "memory"))
    await own.register("1", "1:a")
    own_server.kill()
    with pytest.raises(QueueUnavailable):
        await split.enqueue([message("a", memory), message("b", redis)])
    assert (await own.stats()).depth == 0
    await split.enqueue([message("c", memory)])
    assert (await own.stats()).depth == 1
    await take(own)
    assert await split.why("c") is None, "what was sent is known without the other"
    assert await split.credentials("1") == ["1:a"]
    with pytest.raises(QueueUnavailable):
        await split.credentials("2")
    await shared.close()


async def test_a_full_queue_refuses(redis: Redis, redis_url: str) -> None:
    shared = RedisQueue(redis_url, queue_max=1)
    await shared.start()
    split = SplitQueue(shared, MemoryQueue(queue_max=1), 50)
    for backend in ("redis", "memory"):
        chat = chat_of(split, backend)
        with pytest.raises(QueueFull):
            await split.enqueue([message("a", chat), message("b", chat)])
    assert (await split.stats()).depth == 0
    await shared.close()
