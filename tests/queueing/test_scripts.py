"""What a server keeps of ours: scripts, and the functions of those that are called most, where it lets us have any."""

import re
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files

import pytest
from redis.asyncio import Redis

from queueing.contract import Settlement
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from queueing.scripts import Function
from tests.conftest import Server

FUNCTIONS = ("claim", "enqueue")
OURS = {Function(name).function for name in FUNCTIONS}


@pytest.fixture
async def redis(own_server: Server) -> AsyncIterator[Redis]:
    redis = Redis.from_url(own_server.url, decode_responses=True)
    yield redis
    await redis.aclose()


async def is_served(url: str, name: str = "telegram_messages") -> bool:
    queue = RedisQueue(url, name=name)
    await queue.start()
    await queue.enqueue([Message(bot="1", chat="42", id="m", body={"text": "x"})])
    try:
        leases = (await queue.claim(10)).leases
        await queue.claim(0, [Settlement(lease, Ack()) for lease in leases])
        return [lease.message.id for lease in leases] == ["m"]
    finally:
        await queue.close()


async def libraries(redis: Redis) -> set[str]:
    return {library[1] for library in await redis.function_list()}


@pytest.mark.parametrize(
    ("forbidden", "is_function"),
    [("-fcall", False), ("-function|load", False), ("-function|list", True), ("+@all", True)],
)
async def test_where_functions_are_forbidden_the_script_does_it(
    own_server: Server, redis: Redis, forbidden: str, *, is_function: bool
) -> None:
    await redis.execute_command("ACL", "SETUSER", "us", "on", "nopass", "~*", "&*", "+@all", forbidden)
    assert await is_served(own_server.url.replace("//", "//us:x@"))
    stats = await redis.info("commandstats")
    fcall = stats["cmdstat_fcall"]
    assert (fcall["calls"] > fcall["failed_calls"]) == is_function


async def test_a_full_server_is_not_sent_the_functions_with_each_call(own_server: Server, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)
    queue = RedisQueue(own_server.url)
    await queue.start()
    for _ in range(50):
        await queue.claim(1)
    assert (await redis.info("commandstats"))["cmdstat_function|load"]["rejected_calls"] < 25
    await redis.config_set("maxmemory", 0)
    queue._claim._not_before = 0
    await queue.claim(1)
    assert Function("claim").function in await libraries(redis)
    await queue.close()


async def test_who_comes_first_of_a_version_takes_away_what_others_left(own_server: Server, redis: Redis) -> None:
    for name in ("telequeue_0", "another"):
        register = f"redis.register_function('f_{name}', function() return 1 end)"
        await redis.function_load(f"#!lua name={name}\n{register}")
    assert await is_served(own_server.url)
    assert await libraries(redis) == {*OURS, "another"}


async def test_of_two_versions_neither_takes_away_the_others_for_ever(own_server: Server, redis: Redis) -> None:
    old = RedisQueue(own_server.url)
    await old.start()
    await old.claim(1)
    await redis.function_flush()
    await redis.function_load("#!lua name=telequeue_new\nredis.register_function('new', function() return 1 end)")
    await old.claim(1)
    assert await libraries(redis) == {Function("claim").function, "telequeue_new"}
    await old.close()


async def test_one_function_serves_two_queues_in_turn(own_server: Server, redis: Redis) -> None:
    served = [await is_served(own_server.url, name) for _ in range(2) for name in ("one", "{two}:updates", "three")]
    assert all(served), served
    await redis.flushall()


def _set_at_load(name: str) -> Iterator[str]:
    """What may change and is set where a library is loaded, not by `start` for each call."""
    opened = ""
    for line in (files("queueing") / "lua" / f"{name}.lua").read_text().splitlines():
        if re.match(r"\w", line):
            opened = line
        is_at_load = not line.startswith(" ") or (opened.startswith("do") and not line.startswith("   "))
        if is_at_load and (
            found := re.match(r" *local ([\w, ]+) = (.*\{\}.*|nil|false|true|\d+|.*redis\.call.*)( --.*)?$", line)
        ):
            yield found[1]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_a_function_knows_of_a_call_ends_with_it(function: str) -> None:
    included = re.findall(r"-- include: (.+)", (files("queueing") / "lua" / f"{function}.lua").read_text())[0].split(
        ", "
    )
    found = {name for part in included for name in _set_at_load(part)}
    assert {name for name in found if not name.isupper()} <= {"actions", "open", "parents"}
