"""Rule 10, from the queue to Telegram and back: a bot whose token is refused waits with its messages for another."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bot import outcomes
from bot.playground import Playground
from bot.playground.faults import Fault
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.contract import Queue
from queueing.events import Event, Released
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.redis_queue import RedisQueue
from queueing.retry import RetryPolicy
from queueing.worker import Worker

BOT, OTHER = "110201543", "110201544"
TOKEN, ROTATED = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", f"{BOT}:AAHrotatedCH1vGWJxfSeofSAs0K5PALDsaw"

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture(params=["redis", "memory"])
async def queue(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Queue]:
    queue: Queue = RedisQueue(redis_url) if request.param == "redis" else MemoryQueue()
    await queue.start()
    yield queue
    await queue.close()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def sending(queue: Queue, playground: Playground, events: list[Event]) -> AsyncIterator[None]:
    request = AiohttpRequest(5.0)
    sender = Sender(queue, api_url=playground.url, send_timeout=5.0, request=request)
    worker = Worker(queue, sender.deliver, workers=10, policy=RetryPolicy(), observe=events.append)
    await worker.start()
    yield
    await worker.stop()
    await request.shutdown()


def message(n: int, bot: str = BOT, chat: int = 42) -> Message:
    return Message(bot=bot, chat=str(chat), body={"text": f"{chat}-{n}"})


def sent(playground: Playground, chat: int = 42) -> list[str]:
    return [call.text for call in playground.world.ledger.select(method="sendMessage", chat=chat) if call.taken]


@pytest.mark.usefixtures("sending")
async def test_rule_10_a_rotated_token_serves_what_waited(
    queue: Queue,
    playground: Playground,
    events: list[Event],
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcomes, "UNAUTHORIZED_WAIT", 0.3)
    await queue.register(BOT, TOKEN)
    await queue.register(OTHER, f"{OTHER}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw")
    await queue.enqueue([message(0)])
    await eventually(lambda: sent(playground) == ["42-0"], "it works")

    playground.world.faults.add(Fault("unauthorized", token=TOKEN), None)
    await queue.enqueue([message(n, chat=chat) for n in range(1, 4) for chat in (42, 43)])
    await eventually(lambda: any(isinstance(event, Released) for event in events), "the token is refused")
    await queue.enqueue([message(0, OTHER, 77)])
    await eventually(lambda: sent(playground, 77) == ["77-0"], "another bot goes on")
    assert (await queue.stats()).dead == 0
    assert sent(playground) == ["42-0"]

    await queue.offer(BOT, ROTATED)
    await eventually(lambda: len(sent(playground)) + len(sent(playground, 43)) == 7, "what waited is sent")
    assert sent(playground) == [f"42-{n}" for n in range(4)]
    assert sent(playground, 43) == [f"43-{n}" for n in range(1, 4)]
    assert list(await queue.credentials(BOT)) == [ROTATED]
    assert {event.reason for event in events if isinstance(event, Released)} == {"unauthorized"}


@pytest.mark.usefixtures("sending")
async def test_rule_10_a_token_that_never_worked_leaves_dead_letters(
    queue: Queue, playground: Playground, eventually: Eventually
) -> None:
    playground.world.faults.add(Fault("unauthorized", token=TOKEN), None)
    await queue.offer(BOT, TOKEN)
    await queue.enqueue([message(0), message(1)])

    async def dead() -> bool:
        return (await queue.stats()).dead == 2

    await eventually(dead, "both are dead")
    assert {letter.reason for letter in await queue.dead_letters()} == {"unauthorized"}
