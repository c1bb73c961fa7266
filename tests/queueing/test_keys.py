"""The names of the keys, as Python and as the scripts derive them."""

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from queueing.keys import Keys
from queueing.redis_queue import RedisQueue
from tests.queueing.desk import message

FRONTS = {"telegram_messages": "{telegram_messages}", "{telegram_messages}:updates": "{telegram_messages}:updates"}


@pytest.mark.parametrize(("front", "prefix"), FRONTS.items())
async def test_all_keys_of_a_queue_are_in_the_slot_of_its_tag(
    front: str, prefix: str, redis: Redis, redis_url: str
) -> None:
    queue = RedisQueue(redis_url, name=front)
    await queue.start()
    try:
        await queue.enqueue([message("a"), message("b")])
        assert [lease.message.id for lease in (await queue.claim(1)).leases] == ["a"]
        assert (await queue.status("a")) is not None
        keys = set(await redis.keys())
        assert all(key.startswith(f"{prefix}:") for key in keys)
        assert {key_slot(key.encode()) for key in keys} == {key_slot(b"telegram_messages")}
        assert Keys(front).status("a") in keys
    finally:
        await queue.close()
