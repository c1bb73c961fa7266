"""dramatiq: a list of ids and a hash of messages, one Lua script for every command; ten threads.

Conditions: each thread has a loop and a Bot of its own, which costs a third less CPU than its AsyncIO middleware with
one loop and one Bot; orjson; 40 messages fetched ahead; of the middleware only Retries; an idle process looks every
10 ms (it polls; its default is a second). No bulk call.

Crash-safe: yes. What a dead process held is put back by another's maintenance, a minute after its last heartbeat. No
order, no limits.
"""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dramatiq
import orjson
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

from tests.benchmarks.contenders import common
from tests.benchmarks.contenders.common import COROUTINES, REDIS_URL, TOKEN, Item

_AHEAD = 40


class _Encoder:
    def encode(self, message: dict[str, object]) -> bytes:
        return orjson.dumps(message)

    def decode(self, data: bytes) -> object:
        return orjson.loads(data)


dramatiq.set_encoder(_Encoder())
_broker = RedisBroker(url=REDIS_URL, middleware=[Retries()])
_send = dramatiq.actor(common.handle_here, actor_name="send", broker=_broker)


def _work() -> None:
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in every thread: sigwait takes it
    worker = dramatiq.Worker(_broker, worker_threads=COROUTINES, worker_timeout=10)
    worker.queue_prefetch = _AHEAD
    worker.start()
    common.ready()
    signal.sigwait({signal.SIGTERM})
    worker.stop(timeout=2_000)


class Producer:
    def bulk(self, items: Sequence[Item]) -> None:
        for item in items:
            self.single(item)

    def single(self, item: Item) -> None:
        _send.send(TOKEN, item.chat, item.text)


@contextmanager
def producer() -> Iterator[Producer]:
    yield Producer()


if __name__ == "__main__":
    common.main(_work, producer)
