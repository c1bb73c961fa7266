"""Rule 13 on the shared queue: bounded steps, lost replies, a process that dies in the middle, what is left behind."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from queueing.contract import Lease, Settlement
from queueing.errors import QueueUnavailable
from queueing.limits import Rate
from queueing.message import MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Move, Release, Scope
from queueing.scripts import Script
from tests.conftest import Server
from tests.queueing.desk import FRONT, P, Start, drained, message, queue, settle, start, state
from tests.queueing.proxy import LossyProxy, make_known

__all__ = ["queue", "start"]

Eventually = Callable[..., Awaitable[None]]
OLD, NEW = "-5", "-1007"
OLD_LANE, NEW_LANE = f"{P}lane:n:1:{OLD}", f"{P}lane:n:1:{NEW}"
MERGED, MERGING = f"{P}merged:n:1:{NEW}", f"{P}merging"
MERGE_MOST = 100


async def push(redis: Redis, count: int, *, chats: Sequence[str] = (OLD, NEW), first: int = 0) -> None:
    """Elements of these chats in turn, accepted one after the other."""
    elements = [
        json.dumps({"bot": "1", "chat_id": chats[n % len(chats)], "id": f"m{n}", "text": "x", "accepted": n + 1})
        for n in range(first, first + count)
    ]
    await redis.rpush(FRONT, *elements)


async def drain_doors(queue: RedisQueue, redis: Redis) -> None:
    while await redis.llen(FRONT):
        await queue.claim(0)


async def waiting_names(redis: Redis, key: str) -> list[str]:
    return [entry.partition(" ")[0] for entry in await redis.lrange(key, 0, -1)]


async def lease_of(queue: RedisQueue, name: str) -> Lease:
    leases = (await queue.claim(10)).leases
    rest = [lease for lease in leases if lease.message.id != name]
    (lease,) = [lease for lease in leases if lease not in rest]
    await queue.claim(0, [Settlement(other, Release(), None) for other in rest], [lease])
    return lease


async def test_a_merge_of_5000_goes_on_a_bounded_number_a_call(queue: RedisQueue, redis: Redis) -> None:
    await push(redis, 10_000)
    await drain_doors(queue, redis)
    await queue.alias("1", OLD, NEW)
    calls = 0
    leases: Sequence[Lease] = ()
    while await redis.exists(MERGING):
        assert not leases
        lengths = [await redis.llen(key) for key in (OLD_LANE, NEW_LANE, MERGED)]
        leases = (await queue.claim(10)).leases
        after = [await redis.llen(key) for key in (OLD_LANE, NEW_LANE, MERGED)]
        moved = max(abs(a - b) for a, b in zip(lengths, after, strict=True))
        assert moved <= MERGE_MOST
        calls += 1
        if calls == 5:
            await push(redis, 50, first=10_000)  # they come in meanwhile, by either name
    assert calls <= 2 * 10_000 / MERGE_MOST + 5
    assert await waiting_names(redis, NEW_LANE) == [f"m{n}" for n in range(10_050)]
    assert await redis.exists(OLD_LANE, MERGED) == 0
    assert [lease.message.id for lease in leases] == ["m0"]


async def test_a_lane_without_another_is_taken_as_it_is(queue: RedisQueue, redis: Redis) -> None:
    await push(redis, 1000, chats=[OLD])
    await drain_doors(queue, redis)
    await queue.alias("1", OLD, NEW)
    assert await waiting_names(redis, NEW_LANE) == [f"m{n}" for n in range(1000)]
    assert await redis.exists(MERGING) == 0


async def test_several_lanes_are_merged_into_one_after_the_other(queue: RedisQueue, redis: Redis) -> None:
    await push(redis, 900, chats=[OLD, NEW, "@n"])
    await drain_doors(queue, redis)
    lease = await lease_of(queue, "m0")
    await queue.alias("1", OLD, NEW)
    await queue.alias("1", "@n", NEW)
    assert (await queue.claim(10, held=[lease])).leases == []
    await settle(queue, [lease], Ack())
    assert await drained(queue) == [f"m{n}" for n in range(1, 900)]


async def test_a_chain_is_merged_from_its_beginning(queue: RedisQueue, redis: Redis) -> None:
    await push(redis, 900, chats=[OLD, NEW, "@n"])
    await drain_doors(queue, redis)
    await queue.alias("1", "@n", OLD)
    await queue.alias("1", OLD, NEW)
    assert await drained(queue) == [f"m{n}" for n in range(900)]


async def test_whatever_is_said_meanwhile_all_ends_in_the_chat_that_was_named_last(
    queue: RedisQueue, redis: Redis
) -> None:
    await push(redis, 900)
    await drain_doors(queue, redis)
    for chat, other in ((OLD, NEW), (NEW, OLD), (OLD, NEW)):
        await queue.alias("1", chat, other)
    await push(redis, 10, first=900)
    while await redis.exists(MERGING):
        await queue.claim(0)
    assert await redis.exists(OLD_LANE) == 0
    assert await drained(queue) == [f"m{n}" for n in range(910)]


async def test_a_merge_asks_to_be_gone_on_with_at_once(queue: RedisQueue, redis: Redis) -> None:
    await push(redis, 400)
    await drain_doors(queue, redis)
    await queue.alias("1", OLD, NEW)
    assert (await queue.claim(0)).next_due == 0


async def test_alias_is_done_once(redis: Redis, shared_server: Server) -> None:
    async with LossyProxy(shared_server.port) as proxy:
        await make_known(redis, "alias")
        queue = RedisQueue(proxy.url)
        await queue.start()
        await push(redis, 500)
        await drain_doors(queue, redis)
        proxy.lose(Script("alias").sha)
        await queue.alias("1", OLD, NEW)
        assert proxy.lost == 1
        assert await drained(queue) == [f"m{n}" for n in range(500)]
        await queue.close()


@pytest.mark.parametrize("decision", [Move(NEW, "upgraded"), Ack("1", NEW)], ids=["move", "ack"])
async def test_a_settlement_that_names_another_chat_is_done_once(
    redis: Redis, shared_server: Server, decision: Move | Ack
) -> None:
    async with LossyProxy(shared_server.port) as proxy:
        await make_known(redis, "claim")
        queue = RedisQueue(proxy.url)
        await queue.start()
        await push(redis, 4)
        lease = await lease_of(queue, "m0")
        proxy.lose(Script("claim").sha)
        with pytest.raises(QueueUnavailable):
            await settle(queue, [lease], decision)
        assert proxy.lost == 1
        assert (await settle(queue, [lease], decision)).stale == []
        left = ["m0"] if isinstance(decision, Move) else []
        assert await drained(queue) == [*left, "m1", "m2", "m3"]
        await queue.close()


CHILD = """
import asyncio, sys
from queueing.redis_queue import RedisQueue

async def main():
    queue = RedisQueue(sys.argv[1])
    await queue.start()
    await queue.alias("1", "-5", "-1007")
    while True:
        await queue.claim(0)
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


async def test_a_merge_outlives_the_process_that_began_it(
    queue: RedisQueue, redis: Redis, redis_url: str, eventually: Eventually
) -> None:
    await push(redis, 4000)
    await drain_doors(queue, redis)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, redis_url)
    await eventually(lambda: redis.llen(MERGED), "the merge has begun")
    child.kill()
    await child.wait()
    assert await redis.exists(MERGING) == 1, "it was killed in the middle"
    while await redis.exists(MERGING):
        await queue.claim(0)
    assert await waiting_names(redis, NEW_LANE) == [f"m{n}" for n in range(4000)]


async def test_nothing_is_left_behind_but_the_names(start: Start, redis: Redis) -> None:
    queue = await start(bot=Rate(10_000), group=Rate(10_000))
    await push(redis, 300, chats=[OLD, NEW, "@n"])
    await drain_doors(queue, redis)
    await queue.pause("1", OLD)
    await queue.alias("1", OLD, NEW)
    await queue.alias("1", "@n", OLD)
    await queue.resume("1", NEW)
    assert await drained(queue) == [f"m{n}" for n in range(300)]
    left = {key.removeprefix(P) for key in await redis.keys("*")}
    assert left <= {
        "aliases", "aliases:index", "bots", "bots:due", "bots:served", "clock", "idle", "pace", "processes", "totals",
        "log:bot:1", f"left:1:{NEW}", f"held:{queue.incarnation}", *(key for key in left if key.startswith("op:")),
    }  # fmt: skip
    assert await redis.hgetall(f"{P}aliases") == {f"1:{OLD}": NEW, "1:@n": NEW, f"names 1:{NEW}": f"{OLD} @n"}


async def test_a_chat_keeps_its_newest_names(queue: RedisQueue, redis: Redis) -> None:
    for n in range(25):
        await queue.alias("1", f"@n{n}", NEW)
    names = (await redis.hget(f"{P}aliases", f"names 1:{NEW}")).split()
    assert names == [f"@n{n}" for n in range(5, 25)]
    assert await redis.hlen(f"{P}aliases") == 21
    assert await redis.zcard(f"{P}aliases:index") == 20


async def test_the_oldest_names_are_forgotten_beyond_a_number(queue: RedisQueue, redis: Redis) -> None:
    await queue.alias("1", "@oldest", NEW)
    at = await redis.zscore(f"{P}aliases:index", "1:@oldest")
    for begin in range(0, 100_000, 10_000):
        await redis.zadd(f"{P}aliases:index", {f"2:{n}": at for n in range(begin, begin + 10_000)})
    await queue.alias("1", OLD, "-1008")
    assert await redis.zcard(f"{P}aliases:index") <= 100_000
    assert await redis.hkeys(f"{P}aliases") == [f"1:{OLD}", "names 1:-1008"]


async def test_a_chat_that_is_said_to_have_moved_to_itself_costs_attempts(queue: RedisQueue) -> None:
    await queue.enqueue([message("a", OLD)])
    await queue.alias("1", NEW, OLD)
    lease = await lease_of(queue, "a")
    claim = await settle(queue, [lease], Move(NEW, "upgraded"), want=10)
    assert claim.leases == []
    assert claim.next_due == pytest.approx(1, abs=0.5)
    status = await queue.status("a")
    assert status
    assert (status.state, status.attempts, status.error) == (MessageState.RETRYING, 1, "upgraded")


async def test_the_element_stays_as_it_was_pushed_and_goes_to_the_one_chat(queue: RedisQueue, redis: Redis) -> None:
    await queue.alias("1", OLD, NEW)
    element = '{"bot":"1","chat_id":-5,"text":"hi","kwargs":{"chat_id":"-5","parse_mode":"HTML"}}'
    await redis.rpush(FRONT, element)
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.chat, lease.message.body["kwargs"]) == (NEW, {"parse_mode": "HTML"})
    await settle(queue, [lease], Bury("blocked", "x"))
    (letter,) = await queue.dead_letters()
    assert (letter.chat, json.loads(letter.element)["chat_id"]) == (NEW, -5)


# --- a suspect that is set aside (rule 4)


async def test_rule_13_what_is_set_aside_for_a_process_is_not_merged(start: Start, redis: Redis) -> None:
    queue = await start()
    await queue.enqueue([message("a", OLD)])
    for _ in range(2):
        await queue.claim(0)
        dead = await start()
        await dead.claim(1)
        await redis.zadd(f"{P}processes", {dead.incarnation: 1})
        await queue.reap()
    await queue.enqueue([message("busy", "77"), message("b", NEW)])
    await queue.pause("1", OLD)
    await queue.pause("1", NEW)
    (busy,) = (await queue.claim(10)).leases
    await queue.resume("1", OLD)
    assert (await queue.claim(10, held=[busy])).leases == []
    assert await redis.hget(f"{P}held:{queue.incarnation}", "#alone") == f"1:{OLD}"
    await queue.alias("1", OLD, NEW)
    await queue.resume("1", NEW)
    assert (await queue.claim(10, held=[busy])).leases == []
    assert await redis.exists(MERGING) == 1
    await settle(queue, [busy], Ack())
    names: list[str] = []
    claim = await queue.claim(10)
    for _ in range(10):
        assert len(claim.leases) <= 1
        names += [lease.message.id for lease in claim.leases]
        claim = await settle(queue, claim.leases, Ack(), want=10)
    assert names == ["a", "b"]


# --- the operator's verbs


async def merging(queue: RedisQueue) -> Lease:
    """Two lanes that are one, and not merged yet: a is in flight, b and c wait."""
    await queue.enqueue([message("a", OLD), message("b", OLD)])
    lease = await lease_of(queue, "a")
    await queue.enqueue([message("c", NEW)])
    await queue.claim(0, held=[lease])
    await queue.alias("1", OLD, NEW)
    return lease


async def test_why_and_cancel_find_a_message_by_any_name(queue: RedisQueue) -> None:
    await queue.enqueue([message("a", OLD), message("b", OLD), message("c", NEW)])
    await queue.claim(0)
    await queue.alias("1", OLD, NEW)
    waiting = await queue.why("b")
    assert waiting
    assert (waiting.reason, waiting.ahead) == ("ahead", 1)
    lease = await lease_of(queue, "a")
    assert await queue.cancel("a") is MessageState.SENDING
    assert await queue.why("a") is None
    assert await queue.cancel("b") is MessageState.CANCELLED
    await settle(queue, [lease], Release(60, "network", "refused", counts=True))
    assert await queue.cancel("a") is MessageState.CANCELLED
    assert await drained(queue) == ["c"]
    status = await queue.status("a")
    assert status
    assert status.chat == OLD, "a status says what was asked for"


async def test_why_and_cancel_find_a_message_in_the_middle_of_a_merge(queue: RedisQueue) -> None:
    lease = await merging(queue)
    assert await queue.why("a") is None
    assert await queue.cancel("a") is MessageState.SENDING
    for name, ahead in (("b", 1), ("c", 2)):
        waiting = await queue.why(name)
        assert waiting
        assert (waiting.reason, waiting.ahead) == ("ahead", ahead)
    assert await queue.cancel("b") is MessageState.CANCELLED
    await settle(queue, [lease], Ack())
    assert await drained(queue) == ["c"]


async def test_why_counts_what_is_gathered_already(queue: RedisQueue, redis: Redis) -> None:
    await push(redis, 300)
    await queue.enqueue([message("last", OLD)])
    await drain_doors(queue, redis)
    await queue.alias("1", OLD, NEW)
    assert await redis.llen(MERGED)
    waiting = await queue.why("last")
    assert waiting
    assert (waiting.reason, waiting.more) == ("ahead", False)
    assert 0 < waiting.ahead <= 300


@pytest.mark.parametrize("resumed", [OLD, NEW])
async def test_a_pause_of_one_name_is_one_of_the_chat(queue: RedisQueue, resumed: str) -> None:
    await queue.pause("1", OLD, "spam")
    await queue.enqueue([message("a", OLD), message("b", NEW)])
    await queue.alias("1", OLD, NEW)
    assert await drained(queue) == []
    (pause,) = await queue.paused()
    assert (pause.chat, pause.reason) == (NEW, "spam")
    await queue.resume("1", resumed)
    assert await drained(queue) == ["a", "b"]
    await queue.pause("1", OLD)
    await queue.enqueue([message("c", NEW)])
    assert await drained(queue) == []
    await queue.resume("1", resumed)
    assert await drained(queue) == ["c"]


async def test_a_flood_wait_is_that_of_all_names(queue: RedisQueue) -> None:
    lease = await merging(queue)
    await settle(queue, [lease], Release(60, "flood", "retry after 60", scope=Scope.CHAT))
    claim = await queue.claim(10)
    assert claim.leases == []
    assert claim.next_due == pytest.approx(60, abs=5)
    assert [pause.chat for pause in await queue.paused()] == [NEW]


@pytest.mark.parametrize("head", [False, True])
async def test_a_dead_letter_of_an_old_name_goes_to_the_one_chat(queue: RedisQueue, head: bool) -> None:
    await queue.enqueue([message("dead", OLD)])
    await settle(queue, [await lease_of(queue, "dead")], Bury("blocked", "x"))
    await queue.alias("1", OLD, NEW)
    await queue.enqueue([message("a", NEW)])
    await queue.claim(0)
    assert await queue.redrive(["dead"], head=head) == 1
    assert await drained(queue) == (["dead", "a"] if head else ["a", "dead"])
    assert await state(queue, "dead") is MessageState.SENT
