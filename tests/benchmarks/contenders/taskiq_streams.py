"""taskiq over a Redis stream: XADD; XREADGROUP of 20 messages, an XACK for each.

20 cost no more CPU than the default of 100, and leave no process with a long rest of its own while others are idle.

Crash-safe: yes. What a dead process held stays pending, and another claims it after ten minutes. Nothing is deleted
from the stream, unless with a length at which waiting messages are cut off, too. No order, no limits.
"""

from taskiq_redis import RedisStreamBroker

from tests.benchmarks.contenders import common, taskiq_common

if __name__ == "__main__":
    broker = RedisStreamBroker(
        common.REDIS_URL,
        max_connection_pool_size=taskiq_common.CONNECTIONS,
        consumer_id="0",  # the group begins with what waited before there was one
        xread_count=20,
    )
    common.main(*taskiq_common.prepare(broker))
