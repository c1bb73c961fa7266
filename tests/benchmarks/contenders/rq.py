"""rq: a list of ids and a hash for each job; some 60 Redis commands a message.

Conditions: SimpleWorker, which does not fork for each message; one message at a time, for it knows no threads; no
results, no description, no log, pickle (its default; orjson is no faster). Bulk: enqueue_many, a thousand at a time.

Crash-safe: as good as. The message in a process that dies is found by another's maintenance, and put among the failed
ones; it is only tried again if it was enqueued with a Retry. No order over processes, no limits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from redis import Redis
from rq import Queue, SimpleWorker

from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import REDIS_URL, TOKEN, Item

_AT_ONCE = 1_000
_HANDLER = "tests.benchmarks.contenders.common.handle_here"


def _queue() -> Queue:
    return Queue("bench", connection=Redis.from_url(REDIS_URL))


def _work() -> None:
    queue = _queue()
    worker = SimpleWorker([queue], connection=queue.connection, log_job_description=False)
    common.ready()
    worker.work(logging_level="ERROR")


class Producer:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def bulk(self, items: Sequence[Item]) -> None:
        for first in range(0, len(items), _AT_ONCE):
            self._queue.enqueue_many(
                [
                    Queue.prepare_data(_HANDLER, args=(TOKEN, item.chat, item.text), result_ttl=0, description="-")
                    for item in items[first : first + _AT_ONCE]
                ]
            )

    def single(self, item: Item) -> None:
        self._queue.enqueue_call(_HANDLER, args=(TOKEN, item.chat, item.text), result_ttl=0, description="-")


@contextmanager
def producer() -> Iterator[Producer]:
    yield Producer(_queue())


if __name__ == "__main__":
    common.main(_work, producer)
