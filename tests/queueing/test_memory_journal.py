"""What is unsent at a clean stop is on disk, and the next start takes it up: once, and in order."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from queueing.contract import Lease, Settlement
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, MessageState, Priority
from queueing.retry import Ack, Release, Scope
from queueing.unsent import Journal, Left, Unsent

ROOT = Path(__file__).parents[2]


def message(n: int, chat: object = 42, **fields: object) -> Message:
    return Message(bot="1", chat=str(chat), body={"text": f"{chat}-{n}"}, **fields)  # type: ignore[arg-type]


def files(directory: Path, pattern: str = "*") -> list[Path]:
    return sorted(directory.glob(pattern))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """By another process, which is killed in the end."""
    code = (
        "import fcntl, sys\n"
        f"file = open({str(path)!r}, 'rb')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.kill()


async def started(journal: Path) -> MemoryQueue:
    queue = MemoryQueue(journal=journal)
    await queue.start()
    return queue


async def drained(queue: MemoryQueue) -> list[Lease]:
    """Everything that may leave now, in the order in which it does."""
    leases: list[Lease] = []
    claim = await queue.claim(10)
    while claim.leases:
        leases += claim.leases
        claim = await queue.claim(10, [Settlement(lease, Ack()) for lease in claim.leases])
    return leases


def texts(leases: Sequence[Lease]) -> list[str]:
    return [lease.message.body["text"] for lease in leases]


async def test_what_was_unsent_comes_back_as_it_was(tmp_path: Path) -> None:
    first = await started(tmp_path)
    sent = [message(0, track=True, max_attempts=7), message(1), message(2, priority=Priority.BULK), message(0, "@news")]
    await first.enqueue(sent)
    claim = await first.claim(10)
    (lease,) = [lease for lease in claim.leases if lease.message.chat == "42"]
    await first.claim(0, [Settlement(lease, Release(0.0, "network", "refused", counts=True))], held=claim.leases)
    await first.close()

    second = await started(tmp_path)
    assert not files(tmp_path)
    status = await second.status(sent[0].id)
    assert status
    assert status.state is MessageState.RETRYING
    assert status.attempts == 1
    claim = await second.claim(10)
    again = {lease.message.chat: lease for lease in claim.leases}
    assert again["42"].message == lease.message
    assert (again["42"].attempts, again["@news"].attempts) == (1, 0)
    rest = await second.claim(10, [Settlement(lease, Ack()) for lease in claim.leases])
    assert texts(rest.leases) == ["42-1"]
    assert texts((await second.claim(1, [Settlement(rest.leases[0], Ack())])).leases) == ["42-2"]
    await second.close()


async def test_order_holds_over_all_files(tmp_path: Path) -> None:
    """Several processes of before, one of now: the earlier accepted goes first."""
    queues = [await started(tmp_path) for _ in range(3)]
    for n in range(6):
        await queues[n % 3].enqueue([message(n, chat) for chat in (1, 2)])
    for queue in queues:
        await queue.close()
    assert len(files(tmp_path, "*.jsonl")) == 3
    queue = await started(tmp_path)
    taken = texts(await drained(queue))
    for chat in (1, 2):
        assert [text for text in taken if text.startswith(f"{chat}-")] == [f"{chat}-{n}" for n in range(6)]
    await queue.close()
    assert not files(tmp_path), "nothing was unsent"


async def test_what_is_leased_or_waits_or_is_at_the_door_is_unsent_too(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message(0, chat) for chat in (1, 2)])
    leases = {lease.message.chat: lease for lease in (await queue.claim(2)).leases}
    later = Settlement(leases["2"], Release(60.0, "network", "refused", counts=True))
    await queue.claim(0, [later], held=[leases["1"]])
    await queue.enqueue([message(0, 3)])
    await queue.close()
    queue = await started(tmp_path)
    claim = await queue.claim(10)
    assert sorted(texts(claim.leases)) == ["1-0", "3-0"]
    assert claim.next_due == pytest.approx(60, abs=5), "the backoff goes on"
    assert (await queue.stats()).depth == 3
    await queue.close()


async def test_a_flood_wait_outlasts_the_restart(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message(0)])
    lease = (await queue.claim(1)).leases[0]
    await queue.claim(0, [Settlement(lease, Release(60.0, "flood", "retry after 60", scope=Scope.CHAT))])
    await queue.close()
    queue = await started(tmp_path)
    await queue.enqueue([message(1, priority=Priority.INTERACTIVE)])
    claim = await queue.claim(10)
    assert not claim.leases
    assert claim.next_due == pytest.approx(60, abs=5)
    await queue.close()


async def test_what_a_later_stop_leaves_is_taken_up_while_running(tmp_path: Path) -> None:
    """In a reload the new processes start before the old ones stop."""
    old, new = await started(tmp_path), await started(tmp_path)
    await old.enqueue([message(0)])
    await old.close()
    assert not await new.reap()
    assert texts(await drained(new)) == ["42-0"]
    await new.close()


async def test_lines_that_cannot_be_read_are_kept_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message(n) for n in range(3)])
    await queue.close()
    (path,) = files(tmp_path)
    lines = path.read_bytes().splitlines()
    wrong = [b"{", b"\xff", b"[]", b"null", b'{"element": {}}', lines[2].replace(b'"chat_id":"42"', b'"chat_id":[]')]
    path.write_bytes(b"\n".join([lines[0], lines[1], *wrong, lines[3]]) + b"\n")
    queue = await started(tmp_path)
    assert texts(await drained(queue)) == ["42-0", "42-2"]
    (aside,) = files(tmp_path)
    assert (aside.suffix, aside.read_bytes().splitlines()) == (".broken", wrong)
    assert "6 lines of" in caplog.text
    await queue.close()
    assert not texts(await drained(await started(tmp_path))), "and are not taken up again"


@pytest.mark.parametrize("head", [b"{}", b'{"version": 99, "paused": {}}', b"nonsense"])
async def test_a_head_that_cannot_be_read_costs_no_message(tmp_path: Path, head: bytes) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message(0)])
    await queue.close()
    (path,) = files(tmp_path)
    path.write_bytes(head + b"\n" + path.read_bytes().partition(b"\n")[2])
    assert texts(await drained(await started(tmp_path))) == ["42-0"]


async def test_a_file_that_another_takes_at_the_moment_is_left_to_it(tmp_path: Path) -> None:
    queue = await started(tmp_path)
    await queue.enqueue([message(0)])
    await queue.close()
    with locked(*files(tmp_path)):
        queue = await started(tmp_path)
        assert not await drained(queue)
    # It was killed before it removed the file.
    await queue.reap()
    assert texts(await drained(queue)) == ["42-0"]
    await queue.close()


TAKE = """
import asyncio, sys
from pathlib import Path
from queueing.memory_queue import MemoryQueue

async def main():
    queue = MemoryQueue(journal=Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    await queue.start()
    print((await queue.stats()).depth)

asyncio.run(main())
"""


def test_six_starting_processes_take_everything_once(tmp_path: Path) -> None:
    for n in range(20):
        Journal(tmp_path).write(Left([Unsent(message(n, n, accepted=1.0))] * 5))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(6)
    ]
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write(b"\n")
        child.stdin.flush()
    taken = [int(child.communicate(timeout=60)[0]) for child in children]
    assert [child.returncode for child in children] == [0] * 6
    assert sum(taken) == 100
    assert not files(tmp_path)


async def test_an_unwritable_directory_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    queue = MemoryQueue(journal=tmp_path / "file" / "unsent")
    await queue.start()
    await queue.enqueue([message(0)])
    await queue.close()
    assert "cannot be written down" in caplog.text
    assert "1 messages end unsent" in caplog.text


async def test_accepted_is_kept(tmp_path: Path) -> None:
    before = time.time()
    queue = await started(tmp_path)
    await queue.enqueue([message(0)])
    await queue.close()
    queue = await started(tmp_path)
    (lease,) = (await queue.claim(1)).leases
    assert before <= (lease.message.accepted or 0) <= time.time()
    await queue.close()


async def test_what_came_of_a_parent_is_known_to_the_next_start(tmp_path: Path) -> None:
    first = await started(tmp_path)
    await first.enqueue([message(n, id=f"p{n}", provisional=True) for n in range(3)])
    await first.enqueue([message(3, 43, id="c", after=("p0", "p1", "p2")), message(4, 44, id="x", group="g")])
    await first.cancel_group("g")
    claim = await first.claim(1)
    await first.claim(0, [Settlement(lease, Ack("17")) for lease in claim.leases])
    await first.close()

    second = await started(tmp_path)
    await second.enqueue([message(0, id="p0", provisional=True), message(1, id="p1", provisional=True)])
    leases: list[Lease] = []
    claim = await second.claim(10)
    while claim.leases:
        leases += claim.leases
        claim = await second.claim(10, [Settlement(lease, Ack(lease.message.id)) for lease in claim.leases])
    assert [lease.message.id for lease in leases] == ["p1", "p2", "c"]
    assert leases[-1].message.results == {"p0": "17", "p1": "p1", "p2": "p2"}
    await second.close()
