"""taskiq over a Redis list: LPUSH, and a BRPOP for each message.

Crash-safe: no. A popped message is in its process alone, those fetched ahead too. No order, no limits.
"""

from taskiq_redis import ListQueueBroker

from tests.benchmarks.contenders import common, taskiq_common

if __name__ == "__main__":
    broker = ListQueueBroker(
        common.REDIS_URL,
        max_connection_pool_size=taskiq_common.CONNECTIONS,
        socket_timeout=None,  # a BRPOP may wait for ever
    )
    common.main(*taskiq_common.prepare(broker))
