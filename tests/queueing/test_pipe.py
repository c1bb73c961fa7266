"""Commands that travel on one connection, one behind the other."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TimedOut

from queueing.connection import connect
from tests.conftest import Server, wait_until
from tests.queueing.proxy import LossyProxy

NEVER = Retry(NoBackoff(), 0)
ECHO = "return ARGV[1]"
Client = Callable[..., "Redis"]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    opened: list[Redis] = []

    def client(url: str, retry: Retry = NEVER, timeout: float = 5.0) -> "Redis":
        opened.append(connect(url, retry=retry, timeout=timeout, key="k", name="telequeue-pipe"))
        return opened[-1]

    yield client
    for each in opened:
        await each.aclose()


def echo(redis: "Redis", text: str) -> Awaitable[Any]:
    return redis.eval(ECHO, 0, text)


async def test_each_gets_its_own_answer(client: Client, redis_url: str) -> None:
    redis = client(redis_url)
    texts = [f"{number}" * number for number in range(1, 200)]
    assert await asyncio.gather(*(echo(redis, text) for text in texts)) == [text.encode() for text in texts]


async def test_all_go_over_one_connection(client: Client, redis_url: str, redis: Redis) -> None:
    ours = client(redis_url)
    await asyncio.gather(*(echo(ours, "x") for _ in range(50)))
    assert len([c for c in await redis.client_list() if c["name"] == "telequeue-pipe"]) == 1


async def test_a_refusal_is_only_for_who_asked(client: Client, redis_url: str) -> None:
    redis = client(redis_url)
    wrong: Awaitable[Any] = redis.eval("return redis.error_reply('FULL of it')", 0)
    answers = await asyncio.gather(echo(redis, "a"), wrong, echo(redis, "b"), return_exceptions=True)
    assert [answers[0], answers[2]] == [b"a", b"b"]
    assert isinstance(answers[1], ResponseError)


async def test_who_does_not_wait_any_more_takes_nobodys_answer(client: Client, redis_url: str) -> None:
    redis = client(redis_url)
    await echo(redis, "connected")
    asked = [asyncio.ensure_future(echo(redis, str(number))) for number in range(10)]
    await asyncio.sleep(0)
    asked[3].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, bytes)] == [b"%d" % n for n in range(10) if n != 3]


async def test_when_the_connection_breaks_who_may_not_ask_again_hears_of_it(client: Client, redis: Redis) -> None:
    async with LossyProxy(redis.connection_pool.connection_kwargs["port"]) as proxy:
        ours = client(proxy.url)
        proxy.lose("lost")
        asked = await asyncio.gather(echo(ours, "lost"), echo(ours, "behind it"), return_exceptions=True)
        assert all(isinstance(answer, NotConnected) for answer in asked)
        assert await echo(ours, "again") == b"again"


async def test_who_may_ask_again_does_so_over_a_new_connection(client: Client, own_server: Server) -> None:
    redis = client(own_server.url, Retry(ConstantBackoff(0.1), 50))
    await echo(redis, "connected")
    own_server.kill()
    asked = asyncio.ensure_future(echo(redis, "x"))
    await asyncio.to_thread(own_server.start)
    assert await asked == b"x"


async def test_no_answer_in_time_ends_all_that_wait(client: Client, redis: Redis) -> None:
    async with LossyProxy(redis.connection_pool.connection_kwargs["port"]) as proxy:
        ours = client(proxy.url, timeout=0.3)
        assert await echo(ours, "in time") == b"in time"
        proxy.keep_back("kept back")
        asked = await asyncio.gather(echo(ours, "kept back"), echo(ours, "behind it"), return_exceptions=True)
        assert all(isinstance(answer, TimedOut) for answer in asked)
        assert await echo(ours, "again") == b"again"


async def test_a_closed_client_leaves_no_connection(client: Client, redis_url: str, redis: Redis) -> None:
    ours = client(redis_url)
    await echo(ours, "x")
    await ours.aclose()

    async def none_is_left() -> bool:
        return all(c["name"] != "telequeue-pipe" for c in await redis.client_list())

    await wait_until(none_is_left, "the connection is closed")


async def test_where_the_server_is_away_all_hear_of_it_at_once(client: Client, own_server: Server) -> None:
    """Each waits for one attempt to connect, not for those of all who asked before."""
    redis = client(own_server.url, Retry(ConstantBackoff(0.1), 2))
    await echo(redis, "connected")
    own_server.kill()
    first = asyncio.ensure_future(echo(redis, "first"))
    asked = [asyncio.ensure_future(echo(redis, "x")) for _ in range(100)]
    with pytest.raises(NotConnected):
        await first
    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert all(isinstance(answer, NotConnected) for answer in answers)


async def test_who_waits_no_more_while_it_connects_ends_it_for_nobody_else(client: Client, own_server: Server) -> None:
    redis = client(own_server.url, Retry(ConstantBackoff(0.1), 50))
    own_server.kill()
    first, second = (asyncio.ensure_future(echo(redis, text)) for text in ("first", "second"))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.to_thread(own_server.start)
    assert await second == b"second"
    assert first.cancelled()


async def test_who_asks_a_closed_client_is_told_and_opens_none(client: Client, own_server: Server) -> None:
    redis = client(own_server.url, Retry(ConstantBackoff(0.1), 50))
    own_server.kill()
    asked = asyncio.ensure_future(echo(redis, "x"))
    await asyncio.sleep(0.05)
    await redis.aclose()
    with pytest.raises(NotConnected):
        await asyncio.wait_for(asked, 10)


async def test_a_server_that_hangs_is_tried_for_less_long_than_it_knows_what_it_did(
    client: Client, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queueing.pipe._TRY_FOR", 0.5)
    redis = client(own_server.url, Retry(ConstantBackoff(0.1), 1_000_000), timeout=0.2)
    await echo(redis, "connected")
    assert own_server.process
    own_server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut):
            await asyncio.wait_for(echo(redis, "x"), 15)
    finally:
        own_server.process.send_signal(signal.SIGCONT)
