"""Queues in a time of the test's own: hours pass in milliseconds, and a failure replays.

On Redis everything is real, the server and the Lua, but for one expression: where a script reads the server's clock it
reads a key of the test instead. Keys that expire do so by that clock, too.
"""

import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import pytest
import uvloop
from redis.asyncio import Redis

from queueing import scripts
from queueing.contract import Claim, Queue
from queueing.errors import QueueUnavailable
from queueing.limits import WRITE_WITHIN, RateLimits
from queueing.memory_queue import MemoryQueue
from queueing.redis_queue import RedisQueue
from queueing.scripts import Function, Script

T = TypeVar("T")

BEGIN = 1_000_000_000_000
"""Milliseconds since 1970; long ago, so that nothing of it is ahead of any real clock."""

LEASE = 15.0

_SERVER_CLOCK = "redis.call('TIME')"
_TEST_CLOCK = "redis.call('HMGET', 'test:clock', 's', 'us')"

# Sets the clock, and lets what every key has left be shorter by what passed. In between a key is parked: it has so much
# more that no time of the real clock matters. What a script gave it since shows by its being less than that: for a log
# no less than is left and no more than it would be without the real time that passed, for others whole seconds.
_SET_CLOCK = """
redis.call('HSET', 'test:clock', 's', math.floor(ARGV[1] / 1000), 'us', ARGV[1] % 1000 * 1000)
local PARKED, real = 1e12, redis.call('TIME')
real = real[1] * 1000 + math.floor(real[2] / 1000)
local elapsed = real - (redis.call('HGET', 'test:clock', 'real') or real)
redis.call('HSET', 'test:clock', 'real', real)
for _, key in ipairs(redis.call('KEYS', '{*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if left > PARKED / 2 then
      left = left + elapsed - PARKED
    else
      left = string.find(key, ':log:', 1, true) and left + elapsed or math.ceil(left / 1000) * 1000
    end
    left = left - ARGV[2]
    redis.call('PEXPIRE', key, left > 0 and string.format('%.0f', left + PARKED) or 0)
  end
end
"""


class Clock:
    """The test's time, in place of the module `time`. now: ms since 1970; ahead: ms by which the clock that people can
    set is ahead of it."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.ahead = 0

    def time(self) -> float:
        return (self.now + self.ahead) / 1000

    def monotonic(self) -> float:
        return (self.now - BEGIN) / 1000

    def time_ns(self) -> int:
        return (self.now + self.ahead) * 1_000_000

    def clock_gettime(self, _: int) -> float:
        return self.monotonic()


def stop_time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Gives every module of the queue, and every script, the test's clock."""
    clock, read = Clock(), scripts._read

    @cache
    def read_on_our_clock(name: str) -> str:
        return read(name).replace(_SERVER_CLOCK, _TEST_CLOCK)

    monkeypatch.setattr(scripts, "_read", read_on_our_clock)
    for path in (files("queueing") / "lua").iterdir():
        name = path.name.removesuffix(".lua")
        if "-- KEYS  1 front door" in read(name):
            source = Script(name).source
            assert _SERVER_CLOCK not in source, f"{name} has a clock of its own"
    for name, module in list(sys.modules.items()):
        if name.startswith("queueing.") and hasattr(module, "time"):
            monkeypatch.setattr(module, "time", clock)
    return clock


class _Kept(Redis):  # type: ignore[misc, unused-ignore]
    """A connection that outlives the queues that use it."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        pass


class LossyFunction(Function):
    """A function whose next request, or reply, gets lost. It keeps what the server answered."""

    lose: str | None = None
    answer: Sequence[Any] | None = None

    async def run(self, redis: "Redis", key: str, args: Sequence[str | bytes | int]) -> Any:
        lose, self.lose, self.answer = self.lose, None, None
        if lose == "request":
            raise QueueUnavailable("the request was lost")
        self.answer = await super().run(redis, key, args)
        if lose == "reply":
            raise QueueUnavailable("the reply was lost")
        return self.answer


class _Process(RedisQueue):
    """A process of the shared queue, without a doorbell: nobody waits in this time."""

    client: Redis

    async def start(self) -> None:
        self._redis = self._patient = self._bell = self.client
        self._claim: LossyFunction = LossyFunction("claim")


@dataclass(frozen=True)
class Answer:
    """What a claim was answered, even if the answer got lost. grants: lane, token, id, attempts and take-overs of each;
    dead: the reasons of those that died in their lanes; again: there is more to look at than one call may."""

    grants: Sequence[tuple[str, str, str, int, int]]
    stale: Sequence[str]
    lost: Sequence[str]
    dead: Sequence[str]
    again: bool


class World:
    """One backend in the test's time. processes: how many may share a queue; slack: ms by which a message may be
    written after its grant."""

    processes = 1
    slack = 0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._loop = uvloop.new_event_loop()

    def run(self, what: Awaitable[T]) -> T:
        return self._loop.run_until_complete(what)

    def begin(self) -> None:
        """An empty queue, at the beginning of time."""
        self.clock.now, self.clock.ahead = BEGIN, 0

    def new_process(self, limits: RateLimits) -> Queue:
        queue = MemoryQueue(limits=limits, clock=self.clock.monotonic, wall=self.clock.time)
        self.run(queue.start())
        return queue

    def answer(self, queue: Queue, claim: Claim | None) -> Answer:
        assert claim
        grants = [(one.lane, one.token, one.message.id, one.attempts, one.takeovers) for one in claim.leases]
        dead = [reason for reason, _ in claim.buried]
        # Within a process, times are floats: what is due in a picosecond is due.
        again = claim.more or (claim.next_due is not None and claim.next_due < 0.0005)
        return Answer(grants, claim.stale, claim.lost, dead, again)

    def advance(self, ms: int) -> None:
        self.clock.now += ms

    def set_clock(self, by: int) -> None:
        """As somebody does who sets the machine's clock."""
        self.clock.ahead += by

    def close(self) -> None:
        self._loop.close()


class RedisWorld(World):
    processes = 2
    slack = round(WRITE_WITHIN * 1000)

    def __init__(self, clock: Clock, url: str) -> None:
        super().__init__(clock)
        self.client = _Kept.from_url(url)
        self._set_clock = self.client.register_script(_SET_CLOCK)

    def begin(self) -> None:
        super().begin()
        self.run(self.client.flushdb())
        self.advance(0)

    def new_process(self, limits: RateLimits) -> Queue:
        queue = _Process("redis://", limits=limits, lease_seconds=LEASE)
        queue.client = self.client
        self.run(queue.start())
        return queue

    def answer(self, queue: Queue, claim: Claim | None) -> Answer:
        if claim:
            return super().answer(queue, claim)
        assert isinstance(queue, _Process)
        grants, stale, lost, buried, due, doors, *_ = queue._claim.answer or ()
        return Answer(
            [
                (lane.decode(), token.decode(), entry.split()[0].decode(), attempts, takeovers)
                for lane, token, attempts, takeovers, entry, _ in zip(*[iter(grants)] * 6, strict=True)
            ],
            [token.decode() for token in stale],
            [token.decode() for token in lost],
            [reason.decode() for reason in buried[::2]],
            due == 0 or doors > 0,
        )

    def advance(self, ms: int) -> None:
        super().advance(ms)
        self._let_pass(ms)

    def set_clock(self, by: int) -> None:
        """Keys expire by the clock that is set."""
        super().set_clock(by)
        self._let_pass(by)

    def _let_pass(self, ms: int) -> None:
        self.run(self._set_clock(args=[self.clock.now + self.clock.ahead, ms]))

    def close(self) -> None:
        self.run(self.client.delete("test:clock"))
        self.run(Redis.aclose(self.client))
        super().close()
