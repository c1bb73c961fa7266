"""celery over Redis: a list of messages, BRPOP, and a hash of what is not acknowledged.

Conditions: ten threads, each with a loop and a Bot of its own. (One process of prefork and solo need as much CPU, but
handle one message at a time; gevent needs more, and cannot run asyncio.) Acknowledged late, which costs nothing; no
results, events, remote control, gossip, mingle, heartbeat or rate limits; one priority instead of four. No bulk call.

Crash-safe: yes, acknowledged late. What a dead process held is restored after an hour, its visibility timeout. No
order, no limits.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import worker_ready

from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, TOKEN, Item

_app = Celery("bench", broker=REDIS_URL)
_app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"priority_steps": [0]},
    task_acks_late=True,
    task_ignore_result=True,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)
_send = _app.task(name="send")(common.handle_here)


def _ready(**_more: object) -> None:
    common.ready()


def _work() -> None:
    warnings.simplefilter("ignore", SecurityWarning)  # that it is root, in a container
    worker_ready.connect(_ready)
    worker = _app.Worker(
        pool="threads",
        concurrency=COROUTINES,
        loglevel="ERROR",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


class Producer:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def bulk(self, items: Sequence[Item]) -> None:
        for item in items:
            self.single(item)

    def single(self, item: Item) -> None:
        _send.apply_async((TOKEN, item.chat, item.text), producer=self._connection, retry=False)


@contextmanager
def producer() -> Iterator[Producer]:
    with _app.producer_or_acquire() as connection:
        yield Producer(connection)


if __name__ == "__main__":
    common.main(_work, producer)
