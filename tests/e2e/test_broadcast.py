"""A broadcast by six real processes, one of which dies in the middle of it."""

import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from tests.e2e.conftest import BOT, Stack

ADMIN = 9_000_001

Eventually = Callable[..., Awaitable[None]]

CHATS, BLOCKED = 5000, 50
SUBSCRIBERS = f"{{telegram_messages}}:subscribers:{BOT}"


async def arrivals(stack: Stack) -> Counter[int]:
    """How often the text was taken by Telegram in each chat."""
    ledger = await stack.get("/playground/ledger?method=sendMessage&limit=100000", stack.telegram)
    return Counter(call["chat"] for call in ledger["calls"] if call["taken"] and call["text"] == "hi")


async def uncertain(stack: Stack) -> float:
    """How many messages may have arrived before they were sent again."""
    found = re.search(r"^telequeue_messages_uncertain_total (\S+)$", await stack.metrics(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_kill_9_in_the_middle_of_spreading(stack: Stack, client: Redis, eventually: Eventually) -> None:
    # So little room that it is spread for as long as it is sent.
    await stack.start_bot(QUEUE_MAX="1000")
    await stack.fault(kind="latency", ms=20, ms_max=60)
    await client.sadd(SUBSCRIBERS, *range(1, CHATS + 1))
    gone = range(100, CHATS, CHATS // BLOCKED)
    for chat in gone:
        await stack.fault(kind="blocked", chat=chat)
    begun = await stack.send("POST", "/api/v1/broadcasts", {"text": "hi", "to": "subscribers"})
    assert begun["total"] == CHATS

    async def told() -> dict[str, Any]:
        told = dict(await stack.get(f"/api/v1/broadcasts/{begun['id']}"))
        ended = sum(told[name] for name in ("sent", "blocked", "failed", "cancelled", "expired"))
        assert told["total"] == ended + told["waiting"]
        return told

    async def in_the_middle() -> bool:
        return bool((await told())["sent"] > 500)

    await eventually(in_the_middle, "it is on its way")
    assert (await told())["status"] == "spreading"
    victim = (await stack.queue())["processes"][0]["pid"]
    os.kill(victim, signal.SIGKILL)

    async def over() -> bool:
        return bool((await told())["finished_at"])

    await eventually(over, "it is over", timeout=60)
    done = await told()
    assert (done["status"], done["sent"], done["blocked"]) == ("done", CHATS - len(gone), len(gone))
    arrived = await arrivals(stack)
    assert set(arrived) == set(range(1, CHATS + 1)) - set(gone), "nobody was forgotten"
    again = {chat: times for chat, times in arrived.items() if times > 1}
    assert len(again) <= await uncertain(stack), "only what the dead process had in its hands is in doubt"
    assert set(again.values()) <= {2}
    assert (await stack.queue())["queue_depth"] == 0

    async def unsubscribed() -> bool:
        return await client.smembers(SUBSCRIBERS) == {str(chat) for chat in set(range(1, CHATS + 1)) - set(gone)}

    await eventually(unsubscribed, "those who blocked the bot are no subscribers any more")


async def test_its_progress_is_shown_after_the_process_that_began_it_is_gone(
    stack: Stack, client: Redis, eventually: Eventually
) -> None:
    await stack.start_bot(ADMIN_CHAT_IDS=str(ADMIN))
    await client.sadd(SUBSCRIBERS, *range(1, 2001))
    # So that it does not end before.
    await stack.send("POST", "/api/v1/pause", {"chat_id": 7})
    await stack.send("POST", "/playground/chats", {"chat": ADMIN}, stack.telegram)

    async def says() -> dict[str, Any]:
        """The bot's last message to the admin, as it is now."""
        timeline = await stack.get(f"/playground/timeline?chat={ADMIN}", stack.telegram)
        said = [entry["message"] for entry in timeline if entry["side"] == "bot"]
        return dict(said[-1]) if said else {"text": ""}

    async def asked() -> bool:
        return bool((await says())["text"] == "Send this to 2,000 subscribers?")

    async def post(deed: dict[str, Any]) -> None:
        await stack.send("POST", "/playground/updates", [{"chat": ADMIN} | deed], stack.telegram)

    await post({"text": "/broadcast hi"})
    await eventually(asked, "the question")
    question = await says()
    send = question["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
    await post({"press": {"message_id": question["message_id"], "data": send}})

    async def shown() -> bool:
        return (await says())["text"].startswith("The broadcast goes on: ")

    await eventually(shown, "the progress")

    before = {process["pid"] for process in (await stack.queue())["processes"]}
    assert stack.master
    stack.master.send_signal(signal.SIGHUP)

    async def replaced() -> bool:
        pids = {process["pid"] for process in (await stack.queue())["processes"]}
        return len(pids) == 6 and not pids & before

    await eventually(replaced, "six new processes", timeout=60)
    assert not (await says())["text"].startswith("The broadcast is over")
    await stack.send("POST", "/api/v1/resume", {"chat_id": 7})

    async def over() -> bool:
        return bool((await says())["text"] == "The broadcast is over.\n2,000 of 2,000 sent.")

    await eventually(over, "the summary", timeout=60)
    assert (await says())["message_id"] == question["message_id"]
    arrived = await arrivals(stack)
    assert set(arrived) == set(range(1, 2001))
    assert arrived.total() - 2000 <= await uncertain(stack), "a slow machine leaves some in doubt, a restart none"
