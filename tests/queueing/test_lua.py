"""The scripts, one by one, in a time of the test's own: run twice, forgotten by the server, with stale tokens, and
beside ten thousand lanes."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import pytest
import redis as sync_redis

from queueing.contract import Lease, Queue, Settlement
from queueing.inbox import Commit, Write
from queueing.limits import Rate, RateLimits
from queueing.message import Message
from queueing.redis_inbox import RedisInbox
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Decision, Hold, Move, Release, Scope
from queueing.scripts import Function, Script
from tests.queueing.virtual import LEASE, RedisWorld, stop_time

READERS = {"stats", "why"}
RATES = RateLimits(bot=Rate(30), chat=Rate(1), group=Rate(20, 60))

Dump = dict[str, object]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[RedisWorld]:
    world = RedisWorld(stop_time(monkeypatch), redis_url)
    world.begin()
    yield world
    world.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[sync_redis.Redis]:
    with sync_redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def message(name: str, chat: object = 42, **fields: object) -> Message:
    return Message(bot="1", chat=str(chat), id=name, body={"text": name}, track=True, **fields)  # type: ignore[arg-type]


def dump(client: sync_redis.Redis) -> Dump:
    """Everything that the server holds, but for the test's clock."""
    read: dict[str, Callable[[str], Any]] = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[client.type(key)](key) for key in client.keys("*") if key != "test:clock"}


class Stage:
    """A queue with something of everything: a process that holds two messages and is silent for its lease, another
    that is heard, messages that wait, dead letters, and a pause."""

    def __init__(self, world: RedisWorld) -> None:
        self.world = world
        self.silent, self.queue = world.new_process(RATES), world.new_process(RATES)
        world.run(self.queue.enqueue([message(f"dead{n}", n, provisional=True, group="g") for n in range(3)]))
        leases = self.claim(self.queue, 3)
        self.claim(self.queue, 0, [Settlement(lease, Bury("blocked", "by the user")) for lease in leases])
        world.run(self.queue.enqueue([message("a"), message("b"), message("c", 43), message("d", -44)]))
        self.claim(self.silent, 2)
        self.held = self.claim(self.queue, 1)
        for _ in range(3):
            world.advance(round(LEASE * 1000 / 3))
            self.claim(self.queue, 0, held=self.held)
        world.run(self.queue.enqueue([message("e", 45), message("f", 45, after=["b"]), message("g", 46, also="45")]))
        self.inbox = RedisInbox("redis://", "1")
        self.inbox._redis = self.inbox._patient = world.client
        world.run(self.inbox.accept(message("update"), 1))
        (self.update,) = self.claim(self.inbox, 1)
        world.run(self.queue.pause("7", reason="a test"))
        world.run(broadcast(self.queue, "begun", 46))

    def claim(
        self, queue: Queue, want: int, settlements: Sequence[Settlement] = (), held: Sequence[Lease] = ()
    ) -> Sequence[Lease]:
        return self.world.run(queue.claim(want, settlements, held)).leases


def broadcast(queue: Queue, id: str, chat: int) -> Awaitable[Any]:
    """Starts one, to one chat."""
    return run("broadcast", queue, [id, "1", '"bot":"1","priority":"bulk"}', "", "last", 1000, str(chat)])


def run(verb: str, queue: Queue, args: Sequence[str | bytes | int]) -> Awaitable[Any]:
    assert isinstance(queue, RedisQueue)
    return Script(verb).run(queue._patient, "telegram_messages", args)


VERBS: dict[str, Callable[[Stage], Any]] = {
    "enqueue": lambda stage: stage.queue.enqueue([message("new", dedup_key="k"), message("bulk", send_at=2e9)]),
    "claim": lambda stage: stage.queue.claim(5, [Settlement(lease, Ack("1")) for lease in stage.held]),
    "reap": lambda stage: stage.queue.reap(),
    "leave": lambda stage: stage.silent.close(),
    "redrive": lambda stage: stage.queue.redrive(["dead0", "dead1"], head=True),
    "drop": lambda stage: stage.queue.drop(["dead0", "dead1"]),
    "trim": lambda stage: stage.queue.trim(),
    "cancel_group": lambda stage: stage.queue.cancel_group("g"),
    "accept": lambda stage: stage.inbox.accept(message("another update"), 2),
    "commit": lambda stage: stage.inbox.commit(stage.update.message, Commit([message("s")])),
    "write": lambda stage: stage.inbox.write([Write("state:1", "field", b"value", ttl=60)]),
    "cancel": lambda stage: stage.queue.cancel("f"),
    "pause": lambda stage: stage.queue.pause("1", "43", "a test"),
    "resume": lambda stage: stage.queue.resume("7"),
    "broadcast": lambda stage: broadcast(stage.queue, "another", 47),
    "spread": lambda stage: run("spread", stage.queue, ["1", 10, 10, 1000]),
    "recall": lambda stage: run("recall", stage.queue, ["begun"]),
    "alias": lambda stage: stage.queue.alias("1", "45", "42"),
}


def test_every_script_that_changes_something_is_tried() -> None:
    scripts = {path.name.removesuffix(".lua"): path.read_text() for path in (files("queueing") / "lua").iterdir()}
    whole = {name for name, text in scripts.items() if "-- KEYS  1 front door" in text}
    assert whole - READERS == set(VERBS)
    assert all("flags=no-writes" in Script(name).source for name in READERS)


@pytest.mark.parametrize("verb", VERBS)
def test_run_twice_a_script_changes_nothing_the_second_time(
    verb: str, world: RedisWorld, client: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, runs, ran = Stage(world), {Script: Script.run, Function: Function.run}, list[str]()
    monkeypatch.setattr("queueing.redis_desk.DEAD_MOST", 1)  # so that there is something to trim

    async def run_twice(script: Script, redis: Any, key: str, args: Sequence[str | bytes | int]) -> Any:
        ran.append(script.name)
        before = dump(client)
        run = runs[Function if isinstance(script, Function) else Script]
        first = await run(script, redis, key, args)
        once = dump(client)
        assert once != before, "it does something"
        await run(script, redis, key, args)
        assert dump(client) == once
        return first

    for kind in runs:
        monkeypatch.setattr(kind, "run", run_twice)
    world.run(VERBS[verb](stage))
    assert ran == [verb]


@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_forgot_its_scripts_is_told_them_again(
    verb: str, world: RedisWorld, client: sync_redis.Redis
) -> None:
    stage = Stage(world)
    before = dump(client)
    client.script_flush()
    client.function_flush()
    world.run(VERBS[verb](stage))
    assert verb == "trim" or dump(client) != before


DECISIONS: list[Decision] = [
    Ack("1"),
    Release(5, "network", "refused", counts=True),
    Release(5, "flood", "retry after 5", scope=Scope.CHAT),
    Release(5, "unauthorized", "401", scope=Scope.BOT),
    Release(5, "network", "502", scope=Scope.RECEIVER),
    Release(),
    Bury("blocked", "by the user"),
    Bury("attempts", "502", scope=Scope.RECEIVER),
    Hold("no answer"),
    Move("99", "migrated"),
]


@pytest.mark.parametrize("decision", DECISIONS, ids=repr)
def test_a_stale_token_changes_nothing(decision: Decision, world: RedisWorld, client: sync_redis.Redis) -> None:
    """Of a message that is in flight again, given by the same process and by another."""
    queue, other = world.new_process(RATES), world.new_process(RATES)
    world.run(queue.enqueue([message("a"), message("b")]))
    (lease,) = world.run(queue.claim(1)).leases
    (again,) = world.run(queue.claim(1, [Settlement(lease, Release())])).leases
    assert (again.message.id, again.token != lease.token) == ("a", True)
    for process, held in ((queue, [again]), (other, [])):
        world.run(process.claim(0, held=held))
        before = dump(client)
        claim = world.run(process.claim(0, [Settlement(lease, decision)], held))
        assert list(claim.stale) == [lease.token]
        after = dump(client)
        changed = {key for key in before if before[key] != after.get(key)} | (after.keys() - before.keys())
        assert {key.rpartition("}:")[2].partition(":")[0] for key in changed} <= {"held"}  # the number of the call


def test_one_call_does_a_bounded_number_of_things_however_many_lanes_are_due(
    world: RedisWorld, client: sync_redis.Redis
) -> None:
    queue = world.new_process(RateLimits(chat=Rate(1)))

    def cost(lanes: int) -> int:
        """Commands of one call beside so many lanes that are due."""
        for start in range(0, lanes, 1000):
            world.run(queue.enqueue([message(f"{lanes}-{n}", n + 1) for n in range(start, start + 1000)]))
        while world.run(queue.claim(0)).more:
            pass
        ready = "{telegram_messages}:ready:n:1"
        client.zunionstore("{telegram_messages}:due", [ready])
        client.delete(ready, "{telegram_messages}:bots")
        assert client.zcard("{telegram_messages}:due") == lanes
        client.config_resetstat()
        assert len(world.run(queue.claim(10)).leases) == 10
        commands = client.info("commandstats")
        client.flushdb()
        world.advance(0)
        return sum(stats["calls"] for stats in commands.values())

    few, many = cost(1000), cost(10_000)
    assert many < 2500
    assert many <= few * 1.05


def test_the_counts_cost_no_more_for_a_hundred_bots(world: RedisWorld, client: sync_redis.Redis) -> None:
    queue = world.new_process(RateLimits())

    def cost(bots: int, chats: int) -> int:
        """Commands of one `stats` beside so many bots, each with so many chats."""
        for bot in range(bots):
            waiting = [Message(bot=str(bot), chat=str(chat), body={"text": "x"}) for chat in range(1, chats + 1)]
            world.run(queue.enqueue(waiting))
        while world.run(queue.claim(0)).more:
            pass
        client.config_resetstat()
        assert world.run(queue.stats()).depth == bots * chats
        commands = client.info("commandstats")
        client.flushdb()
        world.advance(0)
        return sum(stats["calls"] for stats in commands.values())

    one, hundred = cost(1, 1000), cost(100, 30)
    assert hundred < 10 * one, "it is asked at every scrape, and the server does nothing else meanwhile"
