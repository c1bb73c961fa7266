"""The connection breaks after an operator's verb was done and before its reply: its second try changes nothing."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from queueing import redis_desk
from queueing.contract import Settlement
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Bury
from queueing.scripts import Script
from tests.conftest import Server
from tests.queueing.proxy import LossyProxy, make_known

VERBS = ("enqueue", "redrive", "drop", "trim", "cancel", "pause", "resume", "why")


@pytest.fixture
async def proxy(shared_server: Server, redis: Redis) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(shared_server.port) as proxy:
        for name in VERBS:  # known to the server, so that its call is what gets lost
            await make_known(redis, name)
        yield proxy


@pytest.fixture
async def queue(proxy: LossyProxy) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(proxy.url)
    await queue.start()
    yield queue
    await queue.close()


def message(name: str, **fields: object) -> Message:
    return Message(bot="1", chat="42", id=name, body={"text": name}, track=True, **fields)  # type: ignore[arg-type]


async def kill(queue: RedisQueue, *names: str) -> None:
    for name in names:
        await queue.enqueue([message(name)])
        (lease,) = (await queue.claim(1)).leases
        await queue.claim(0, [Settlement(lease, Bury("blocked", "by the user"))])


async def totals(redis: Redis) -> dict[str, int]:
    return {name: int(value) for name, value in (await redis.hgetall("{telegram_messages}:totals")).items()}


async def test_redrive_is_done_once_and_says_so(queue: RedisQueue, proxy: LossyProxy, redis: Redis) -> None:
    await kill(queue, "a", "b")
    proxy.lose(Script("redrive").sha)
    assert await queue.redrive(["a", "b"]) == 2
    assert proxy.lost == 1
    assert (await queue.stats()).depth == 2
    assert (await totals(redis))["replayed"] == 2


async def test_drop_is_done_once_and_says_so(queue: RedisQueue, proxy: LossyProxy, redis: Redis) -> None:
    await kill(queue, "a", "b")
    proxy.lose(Script("drop").sha)
    assert await queue.drop(["a"]) == 1
    assert proxy.lost == 1
    assert (await queue.stats()).dead == 1
    assert (await totals(redis))["dropped"] == 1


async def test_trim_tells_of_all_that_it_dropped(
    queue: RedisQueue, proxy: LossyProxy, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill(queue, "a", "b", "c")
    monkeypatch.setattr(redis_desk, "DEAD_MOST", 1)
    proxy.lose(Script("trim").sha)
    assert await queue.trim() == 2
    assert proxy.lost == 1
    assert (await totals(redis))["dead_dropped"] == 2


async def test_cancel_says_cancelled(queue: RedisQueue, proxy: LossyProxy, redis: Redis) -> None:
    await queue.enqueue([message("a")])
    proxy.lose(Script("cancel").sha)
    assert await queue.cancel("a") is MessageState.CANCELLED
    assert proxy.lost == 1
    assert (await totals(redis))["cancelled"] == 1


async def test_pause_and_resume_do_what_they_say(queue: RedisQueue, proxy: LossyProxy) -> None:
    proxy.lose(Script("pause").sha)
    await queue.pause("1", reason="a reason")
    assert [pause.reason for pause in await queue.paused()] == ["a reason"]
    proxy.lose(Script("resume").sha)
    await queue.resume("1")
    assert proxy.lost == 2
    assert await queue.paused() == []


async def test_enqueue_does_not_take_its_own_message_for_a_duplicate(
    queue: RedisQueue, proxy: LossyProxy, redis: Redis
) -> None:
    proxy.lose(Script("enqueue").sha)
    await queue.enqueue([message("a", dedup_key="k")])
    assert proxy.lost == 1
    assert [lease.message.id for lease in (await queue.claim(1)).leases] == ["a"]
    assert "deduplicated" not in await totals(redis)


async def test_why_is_asked_again(queue: RedisQueue, proxy: LossyProxy) -> None:
    await queue.enqueue([message("a")])
    proxy.lose(Script("why").sha)
    assert await queue.why("a")
    assert proxy.lost == 1
