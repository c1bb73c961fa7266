"""What one division of the chats left unsent goes to the queue that takes them now."""

import time
from pathlib import Path

import pytest

from queueing.handover import Handover
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from tests.conftest import Server, wait_until


def message(name: str, **fields: object) -> Message:
    return Message(bot="1", chat="42", id=name, body={"text": name}, **fields)  # type: ignore[arg-type]


async def leave(directory: Path, *messages: Message, pause: bool = False) -> None:
    queue = MemoryQueue(journal=directory)
    await queue.enqueue(messages)
    if pause:
        await queue.pause("1", "42", "wait")
    await queue.close()


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.jsonl"))


async def depth(queue: MemoryQueue | RedisQueue, expected: int) -> None:
    async def reached() -> bool:
        return (await queue.stats()).depth == expected

    await wait_until(reached, f"{expected} messages")


async def test_it_is_accepted_in_its_order_whenever_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queueing.handover._EVERY", 0.02)
    queue = MemoryQueue()
    handover = Handover(queue, lambda: [tmp_path / "one", tmp_path / "another"])
    await leave(tmp_path / "one", *(message(str(n)) for n in range(250)))
    await handover.start()
    await depth(queue, 250)
    await leave(tmp_path / "another", message("last"), pause=True)
    await depth(queue, 251)
    await handover.stop()
    assert [(pause.bot, pause.chat, pause.reason) for pause in await queue.paused()] == [("1", "42", "wait")]
    await queue.resume("1", "42")
    waiting = await queue.why("last")
    assert waiting
    assert waiting.ahead == 250
    assert not files(tmp_path)


async def test_a_message_expires_when_it_would_have(tmp_path: Path) -> None:
    await leave(tmp_path, message("a", ttl=0.01), message("b", ttl=60.0), message("c"))
    (file,) = files(tmp_path)
    accepted = time.time()
    await wait_until(lambda: time.time() > accepted + 0.02, "the ttl to pass")
    queue = MemoryQueue()
    handover = Handover(queue, lambda: [tmp_path])
    await handover.start()
    await wait_until(lambda: not file.exists(), "it to be taken up")
    await handover.stop()
    await wait_until(lambda: time.time() > accepted + 0.1, "what is left of the ttl to pass")
    (lease,) = (await queue.claim(9)).leases
    assert lease.message.id == "b"
    assert lease.message.ttl is not None
    assert lease.message.ttl < 60


async def test_while_the_server_is_away_it_is_kept_and_goes_back_in_the_end(tmp_path: Path, own_server: Server) -> None:
    queue = RedisQueue(own_server.url, timeout=0.2)
    await queue.start()
    own_server.stop()
    await leave(tmp_path, message("a"), message("b"))
    handover = Handover(queue, lambda: [tmp_path])
    await handover.start()
    await wait_until(lambda: not files(tmp_path), "it to be taken up")
    await handover.stop()
    assert len(files(tmp_path)) == 1
    own_server.start()
    again = Handover(queue, lambda: [tmp_path])
    await again.start()
    await depth(queue, 2)
    await again.stop()
    claim = await queue.claim(1)
    assert [lease.message.id for lease in claim.leases] == ["a"]
    await queue.close()
