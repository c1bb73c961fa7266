"""The queue knows no Telegram: mails to a real SMTP server, each domain with its lane and its limit (mails.py)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from queueing.contract import Queue, Settlement
from queueing.errors import MalformedMessage
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack
from tests.queueing import mails

Eventually = Callable[..., Awaitable[None]]


class Mailbox:
    """What arrives at the server, with the time: recipient and first line. `busy`: is refused once, for now."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, str, str]] = []
        self.busy = {"bob@slow.test"}

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.busy:
            self.busy.remove(address)
            return "450 mailbox is busy"
        if address.startswith("nobody@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        text = envelope.content.decode().splitlines()[-1]
        self.arrived.append((time.monotonic(), envelope.rcpt_tos[0].lower(), text))
        return "250 OK"

    def texts(self, domain: str) -> list[str]:
        return [text for _, to, text in self.arrived if to.endswith(domain)]


@pytest.fixture(params=["redis", "memory"])
async def queue(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Queue]:
    on_redis = request.param == "redis"
    queue: Queue = RedisQueue(redis_url, limits=mails.LIMITS) if on_redis else MemoryQueue(limits=mails.LIMITS)
    await queue.start()
    yield queue
    await queue.close()


@pytest.fixture
async def mailbox(queue: Queue) -> AsyncIterator[Mailbox]:
    """A server that hands in what the queue's worker sends to it."""
    mailbox, loop = Mailbox(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, loop=loop), "127.0.0.1", 0)
    worker = mails.sending(queue, *server.sockets[0].getsockname())
    await worker.start()
    yield mailbox
    await worker.stop()
    server.close()
    await server.wait_closed()


async def test_mails_keep_their_domains_order_and_limit(queue: Queue, mailbox: Mailbox, eventually: Eventually) -> None:
    many = [mails.mail(f"{name}@Many.test", f"many {n}") for n, name in enumerate("abcdefgh")]
    slow = [mails.mail("bob@slow.test", f"slow {n}") for n in range(2)]
    await queue.enqueue([*many, *slow, mails.mail("carol@quick.test", "quick"), mails.mail("nobody@quick.test", "no")])
    await eventually(lambda: len(mailbox.arrived) == 11, "all mails are there")
    assert mailbox.texts("@many.test") == [f"many {n}" for n in range(8)]
    assert mailbox.texts("@slow.test") == ["slow 0", "slow 1"], "the one that was refused first keeps its place"
    times = [at for at, to, _ in mailbox.arrived if to.endswith("@many.test")]
    assert times[-1] - times[0] > 0.3, "three times 200 ms, but for what was on its way for long"
    assert mailbox.texts("@quick.test") == ["quick"]
    assert mailbox.arrived[-1][2] != "quick", "no domain waits for another"

    async def dead() -> bool:
        return (await queue.stats()).dead == 1

    await eventually(dead, "the mail to nobody is dead")
    (letter,) = await queue.dead_letters()
    assert (letter.reason, letter.error, letter.chat) == ("refused", "no such user", "quick.test")


async def test_mails_that_were_left_are_taken_up(tmp_path: Path) -> None:
    leaving, coming = MemoryQueue(journal=tmp_path), MemoryQueue(journal=tmp_path)
    await leaving.start()
    await leaving.enqueue([mails.mail("carol@quick.test", "left")])
    await leaving.close()
    await coming.start()
    (lease,) = (await coming.claim(1)).leases
    assert (lease.message.chat, lease.message.body["text"]) == ("quick.test", "left")
    await coming.claim(0, [Settlement(lease, Ack())])
    await coming.close()


def test_the_example_has_at_most_40_lines() -> None:
    assert len(Path(mails.__file__).read_text().splitlines()) <= 40


@pytest.mark.parametrize("chat", ["", "a b", "a:b", "é", "x" * 129, "line\nbreak"])
async def test_a_lane_is_a_short_word(queue: Queue, chat: str) -> None:
    with pytest.raises(MalformedMessage):
        await queue.enqueue([Message(bot="mail", chat=chat, body={})])
    assert (await queue.stats()).depth == 0
