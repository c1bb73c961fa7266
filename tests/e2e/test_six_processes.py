"""Six real processes, one queue: what is pushed arrives once, in order, evenly shared, whatever dies meanwhile."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import orjson
import pytest
from redis.asyncio import Redis

from tests.conftest import server_binary
from tests.e2e.conftest import BOT, TOKEN, Push, Stack

Eventually = Callable[..., Awaitable[None]]


def clean(verdict: dict[str, object]) -> bool:
    return not any(verdict[fault] for fault in ("lost", "duplicated", "out_of_order", "unexpected"))


async def test_a_push_of_redis_cli_arrives_once(stack: Stack) -> None:
    await stack.start_bot()
    cli = shutil.which("redis-cli") or server_binary().replace("-server", "-cli")
    element = f'{{"bot_token":"{TOKEN}","chat_id":42,"text":"hi"}}'
    command = [cli, "-p", str(stack.server.port), "RPUSH", "telegram_messages", element]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    await stack.drained()
    (call,) = (await stack.get("/playground/ledger?method=sendMessage", stack.telegram))["calls"]
    assert (call["bot"], call["chat"], call["text"], call["status"]) == (BOT, 42, "hi", 200)


async def test_5000_messages_to_500_chats_arrive_once_in_order_from_all_six(stack: Stack, push: Push) -> None:
    await stack.start_bot()
    await push(500, 10)
    await stack.drained()
    verdict = await stack.judge(500, 10)
    assert clean(verdict), verdict
    assert await stack.arrived() == 5000
    shares = [process["sent"] / 5000 for process in (await stack.queue())["processes"]]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(1)
    assert all(0.10 <= share <= 0.25 for share in shares), shares
    assert (await stack.queue())["total_processed"] == 5000


async def test_kill_9_of_one_process_loses_nothing(stack: Stack, push: Push, eventually: Eventually) -> None:
    await stack.start_bot()
    await stack.fault(kind="latency", ms=50, ms_max=150)
    victim = (await stack.queue())["processes"][0]
    await push(100, 20)

    async def in_the_middle() -> bool:
        return await stack.arrived() > 300

    await eventually(in_the_middle, "messages are in flight")
    os.kill(victim["pid"], signal.SIGKILL)
    killed = time.monotonic()

    async def taken_over() -> bool:
        return all(process["pid"] != victim["pid"] for process in (await stack.queue())["processes"])

    await eventually(taken_over, "the dead process's messages are taken over")
    assert time.monotonic() - killed <= 3 + 5, "LEASE_SECONDS + 5 s"
    await stack.drained()
    verdict = await stack.judge(100, 20)
    assert not verdict["lost"], verdict
    assert not verdict["out_of_order"], verdict
    assert verdict["duplicated"] <= 10, verdict
    await stack.ready()
    assert "telequeue_lease_recoveries_total" in await stack.metrics()


async def in_hand(client: Redis, pid: int) -> set[str]:
    """The texts of what a process holds, as the queue knows it."""
    (held,) = [key async for key in client.scan_iter("{telegram_messages}:held:*") if f":{pid}:" in key]
    lanes = [lane for lane in await client.hkeys(held) if not lane.startswith("#")]
    heads = [await client.lindex(f"{{telegram_messages}}:lane:n:{lane}", 0) for lane in lanes]
    return {orjson.loads(head.partition("\n")[2])["text"] for head in heads}


async def test_a_stopped_process_that_wakes_up_after_its_lease_changes_nothing(
    stack: Stack, push: Push, client: Redis, eventually: Eventually
) -> None:
    await stack.start_bot()
    await stack.fault(kind="latency", ms=200, ms_max=400)
    victim = (await stack.queue())["processes"][0]["pid"]
    await push(100, 10)

    async def in_the_middle() -> bool:
        return await stack.arrived() > 300

    await eventually(in_the_middle, "messages are in flight")
    os.kill(victim, signal.SIGSTOP)
    try:
        uncertain = await in_hand(client, victim)
        assert uncertain, "it was stopped with sends in flight"
        await stack.drained()
        assert "of its messages go to others" in stack.log()
    finally:
        os.kill(victim, signal.SIGCONT)

    async def awake() -> bool:
        return any(process["pid"] == victim for process in (await stack.queue())["processes"])

    await eventually(awake, "the process that woke up is back")
    await eventually(lambda: "was settled too late" in stack.log(), "what it sent is refused")
    verdict = await stack.judge(100, 10)
    assert not verdict["lost"], verdict
    assert not verdict["out_of_order"], verdict
    calls = (await stack.get("/playground/ledger?method=sendMessage&limit=10000", stack.telegram))["calls"]
    arrived = Counter(call["text"] for call in calls)
    assert {text for text, times in arrived.items() if times > 1} <= uncertain
    assert (await stack.queue())["total_processed"] == 1000


async def test_a_rolling_restart_loses_and_doubles_nothing(stack: Stack, push: Push, eventually: Eventually) -> None:
    await stack.start_bot()
    await stack.fault(kind="latency", ms=20, ms_max=60)
    before = {process["pid"] for process in (await stack.queue())["processes"]}
    await push(100, 20)
    assert stack.master
    stack.master.send_signal(signal.SIGHUP)

    async def replaced() -> bool:
        pids = {process["pid"] for process in (await stack.queue())["processes"]}
        return len(pids) == 6 and not pids & before

    await eventually(replaced, "six new processes", timeout=60)
    await stack.drained()
    assert clean(await stack.judge(100, 20))


async def test_a_stop_and_a_second_start_find_what_was_left(stack: Stack, push: Push) -> None:
    await stack.start_bot()
    await stack.fault(kind="latency", ms=100)
    await push(100, 20)
    assert stack.master
    stack.master.terminate()
    assert await asyncio.to_thread(stack.master.wait, 30) == 0
    stack._started.remove(stack.master)
    sent = await stack.arrived()
    assert sent < 2000, "the stop came in the middle"
    await stack.start_bot()
    await stack.drained()
    assert clean(await stack.judge(100, 20))


async def test_a_redis_killed_and_started_again_loses_nothing(stack: Stack, push: Push) -> None:
    await stack.start_bot()
    await stack.fault(kind="latency", ms=20, ms_max=60)
    await push(100, 20)
    stack.server.kill()
    await asyncio.sleep(1)  # an outage lasts
    stack.server.start()
    await stack.ready()
    await stack.drained()
    assert clean(await stack.judge(100, 20))


async def test_garbage_is_counted_among_the_dead_and_disturbs_nobody(
    stack: Stack, push: Push, client: Redis, eventually: Eventually
) -> None:
    await stack.start_bot()
    await client.rpush("telegram_messages", "garbage", '{"bot_token":', "", "[]", '{"chat_id":[],"text":"x"}')
    await push(20, 5)
    await stack.drained()
    assert clean(await stack.judge(20, 5))

    async def counted() -> bool:
        return 'telequeue_queue_depth{state="dead"} 5.0' in await stack.metrics()

    await eventually(counted, "five dead letters in the metrics")
    assert 'telequeue_messages_dead_total{reason="malformed"} 5.0' in await stack.metrics()
    assert TOKEN.partition(":")[2] not in stack.log() + await stack.metrics()


async def test_a_person_who_writes_gets_an_answer(stack: Stack, eventually: Eventually) -> None:
    await stack.start_bot()
    deeds = [{"chat": chat, "text": "/ping"} for chat in range(1, 51)]
    await stack.send("POST", "/playground/updates", deeds, stack.telegram)

    async def answered() -> bool:
        return await stack.arrived() == 50

    await eventually(answered, "every one of 50 people has an answer")
    calls = (await stack.get("/playground/ledger?method=sendMessage", stack.telegram))["calls"]
    assert {call["chat"] for call in calls} == set(range(1, 51))


async def test_the_in_process_queue_answers_too(stack: Stack, eventually: Eventually) -> None:
    await stack.start_bot(USE_REDIS_QUEUE="false")
    await stack.send("POST", "/playground/updates", [{"chat": 7, "text": "/start"}], stack.telegram)

    async def answered() -> bool:
        return await stack.arrived() == 1

    await eventually(answered, "the answer")


async def test_the_api_sends_and_tells_the_status(stack: Stack, eventually: Eventually) -> None:
    await stack.start_bot()
    created = await stack.send("POST", "/api/v1/messages", {"chat_id": 42, "text": "by the API"})
    assert created["status"] == "pending"

    async def sent() -> bool:
        status = await stack.get(f"/api/v1/messages/{created['id']}")
        return bool(status["status"] == "sent" and status["telegram_message_id"])

    await eventually(sent, "sent, with Telegram's id")
