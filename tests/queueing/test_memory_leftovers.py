"""What a clean stop leaves on disk besides messages, and what of them: schedules, expiry, pauses, names, dedup keys."""

import json
import time
from pathlib import Path

import pytest

from queueing.contract import Queue
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, MessageState, Priority
from queueing.retry import Ack, Hold, Move, Release, Scope
from tests.queueing.desk import drained, message, settle, state


async def started(journal: Path) -> MemoryQueue:
    queue = MemoryQueue(journal=journal)
    await queue.start()
    return queue


async def restarted(queue: MemoryQueue, journal: Path) -> MemoryQueue:
    await queue.close()
    return await started(journal)


async def test_what_is_for_later_is_sent_at_its_time(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    at = time.time() + 0.5
    await queue.enqueue([message("later", send_at=at), message("now"), message("at_the_door", 43, send_at=at)])
    await queue.enqueue([message("bulk", 44, priority=Priority.BULK, send_at=at + 60)])
    queue = await restarted(queue, tmp_path)
    assert await drained(queue) == ["now"]
    assert (await queue.stats()).scheduled == 3
    waiting = await queue.why("bulk")
    assert waiting
    assert (waiting.reason, waiting.until) == ("schedule", pytest.approx(at + 60))
    names: list[str] = []
    while len(names) < 2:
        names += await drained(queue)
        await queue.wait(0.05)
    assert sorted(names) == ["at_the_door", "later"]
    assert time.time() >= at
    await queue.close()


async def test_what_expires_does_so_at_the_same_time(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message("a", ttl=0.2), message("b", ttl=60)])
    accepted = time.time()
    queue = await restarted(queue, tmp_path)
    while time.time() < accepted + 0.25:
        await queue.wait(0.05)
    assert await drained(queue) == ["b"]
    assert await state(queue, "a") is MessageState.EXPIRED
    await queue.close()


async def test_a_pause_by_hand_outlasts_the_restart(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.pause("1", "42", "a party")
    await queue.pause(reason="night")
    queue = await restarted(queue, tmp_path)
    assert [(pause.bot, pause.chat, pause.reason) for pause in await queue.paused()] == [
        (None, None, "night"),
        ("1", "42", "a party"),
    ]
    await queue.resume()
    await queue.enqueue([message("a"), message("b", 43)])
    assert await drained(queue) == ["b"]
    await queue.close()


async def test_the_reason_of_a_failures_pause_outlasts_the_restart(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message("a")])
    refused = Release(60, "unauthorized", "401", scope=Scope.BOT)
    await settle(queue, (await queue.claim(1)).leases, refused)
    queue = await restarted(queue, tmp_path)
    (pause,) = await queue.paused()
    assert (pause.bot, pause.reason, pause.until) == ("1", "unauthorized", pytest.approx(time.time() + 60, abs=5))
    await queue.close()


async def test_a_dedup_key_outlasts_the_restart(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message("a", dedup_key="k")])
    assert await drained(queue) == ["a"]
    queue = await restarted(queue, tmp_path)
    assert await queue.first_with("1", "k") == "a"
    await queue.enqueue([message("b", dedup_key="k")])
    assert not await drained(queue)
    await queue.close()


async def test_names_of_a_chat_outlast_the_restart(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message("a", -5), message("b", -5)])
    claim = await settle(queue, (await queue.claim(1)).leases, Move("-100", "migrated"), want=1)
    assert [(lease.message.id, lease.message.chat) for lease in claim.leases] == [("a", "-100")]
    queue = await restarted(queue, tmp_path)
    await queue.enqueue([message("c", -100), message("d", -5)])
    (lease,) = (await queue.claim(10)).leases
    assert (lease.message.id, lease.message.chat) == ("a", "-100")
    await settle(queue, [lease], Ack())
    assert await drained(queue) == ["b", "c", "d"]
    await queue.close()


async def test_what_was_cancelled_is_not_kept(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message("a"), message("b"), message("s", send_at=time.time() + 60)])
    await queue.claim(0)
    await queue.cancel("a")
    await queue.cancel("s")
    queue = await restarted(queue, tmp_path)
    assert await drained(queue) == ["b"]
    assert (await queue.stats()).depth == 0
    await queue.close()


async def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    ahead = time.time() + 60
    element = {"id": "a", "bot": "1", "chat_id": "42", "text": "a", "track": True}
    lines = [
        {"version": 1, "paused": {"1:43": ahead}},
        {"element": element, "accepted": 5.0, "attempts": 2, "until": 0.0, "history": [{"error": "refused"}]},
    ]
    (tmp_path / "1-1-a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    queue = await started(tmp_path)
    (lease,) = (await queue.claim(1)).leases
    assert (lease.message.id, lease.attempts, lease.message.accepted) == ("a", 2, 5.0)
    (pause,) = await queue.paused()
    assert (pause.bot, pause.chat, pause.until) == ("1", "43", pytest.approx(ahead))
    await queue.close()


async def test_bulk_stands_at_a_door_of_its_own(tmp_path: Path) -> None:
    """Rule 15: nobody stands behind it."""
    queue = await started(tmp_path)
    bulk = [Message(bot="1", chat=str(n), body={}, id=f"m{n}", priority=Priority.BULK) for n in range(5000)]
    await queue.enqueue(bulk)
    await queue.enqueue([message("first", 42)])
    (lease,) = (await queue.claim(1)).leases
    assert lease.message.id == "first"
    await settle(queue, [lease], Ack())
    assert (await queue.stats()).ready == 5000
    queue = await restarted(queue, tmp_path)
    assert (await queue.stats()).depth == 5000
    assert len(await everything(queue)) == 5000
    await queue.close()


async def everything(queue: Queue) -> list[str]:
    names: list[str] = []
    claim = await queue.claim(10)
    while claim.leases:
        names += [lease.message.id for lease in claim.leases]
        claim = await settle(queue, claim.leases, Ack(), want=10)
    return names


async def test_nothing_is_kept_of_what_was_held_and_dropped(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message("a", send_at=5)])
    await settle(queue, (await queue.claim(1)).leases, Hold("no answer"))
    assert queue._statuses._open
    await queue.drop_all()
    assert await state(queue, "a") is MessageState.UNCERTAIN
    assert not queue._statuses._open
    assert not queue._statuses._send_at
    await queue.close()
