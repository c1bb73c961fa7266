"""The control API, the ledger behind it, the events, and the program as a whole."""

import asyncio
import json
import signal
import sys

import aiohttp
import pytest

from bot.playground import Config, start_playground
from bot.playground.ledger import ROWS, Ledger
from bot.playground.server import is_loopback

from .conftest import BOT, TOKEN


async def test_ledger_pages_and_filters(call, http, control):
    for chat in (1, 2, 1):
        await call("sendMessage", chat_id=chat, text=f"to {chat}")
    await call("getMe")
    page = await control("GET", "ledger?limit=2")
    assert ([found["seq"] for found in page["calls"]], page["next"], page["end"]) == ([0, 1], 2, 4)
    assert [found["seq"] for found in (await control("GET", "ledger?chat=1"))["calls"]] == [0, 2]
    assert [found["seq"] for found in (await control("GET", "ledger?method=getMe&since=1"))["calls"]] == [3]
    assert (await control("GET", f"ledger?bot={BOT + 1}"))["calls"] == []
    async with http.get("/playground/ledger?format=ndjson&since=2") as answer:
        lines = (await answer.text()).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [2, 3]
    summary = await control("GET", "summary")
    assert (summary["calls"], summary["by"]["method"]) == (4, {"sendMessage": 3, "getMe": 1})


async def test_judging_by_http(call, http, control):
    for text in ("m-1-0", "m-1-1", "m-1-1"):
        await call("sendMessage", chat_id=1, text=text)
    verdict = await control("POST", "judge", {"series": [{"bot": BOT, "chat": 1, "count": 3}]})
    assert (verdict["ok"], verdict["delivery"]["lost"], verdict["delivery"]["duplicated"]) == (False, 1, 1)
    chat = next(window for window in verdict["windows"] if window["scope"] == "chat")
    assert (chat["worst"], chat["exceeded"]) == (3, 2)
    line = json.dumps({"bot": BOT, "chat": 1, "key": "m-1-0"})
    async with http.post("/playground/judge?until=1&format=text", data=line,
                         headers={"Content-Type": "application/x-ndjson"}) as answer:  # fmt: skip
        assert (await answer.text()).startswith(("PASS", "VOID"))


async def test_a_long_stop_of_the_loop_is_noticed(call, playground, control):
    import time

    await call("sendMessage", chat_id=1, text="a")
    await asyncio.sleep(0)
    time.sleep(0.03)  # noqa: ASYNC251  (this is the stop)
    await call("sendMessage", chat_id=1, text="b")
    await call("getMe")
    verdict = await control("GET", "judge")
    assert verdict["timestamp_error_ms"] >= 30
    assert verdict["void"]


async def test_a_full_ledger_says_so():
    playground = await start_playground(config=Config(ledger_limit=2))
    try:
        for _ in range(3):
            playground.world.ledger.add(1, 1, "sendMessage", 1, "x")
        summary = playground.world.ledger.summary()
    finally:
        await playground.close()
    assert (summary["calls"], summary["dropped"]) == (2, 1)
    assert "1 later calls were NOT recorded" in summary["statement"]


def test_the_ledger_over_many_blocks():
    ledger = Ledger(10 * ROWS)
    for number in range(2 * ROWS + 5):
        ledger.answer(ledger.add(number, 1, "sendMessage", number, f"ä{number}"), 200, number, flags=1)
    last = ledger[2 * ROWS + 4]
    assert (last.text, last.message_id, last.taken) == (f"ä{2 * ROWS + 4}", 2 * ROWS + 4, True)
    assert ledger.summary()["bytes"] / len(ledger) < 300
    ledger.clear()
    ledger.answer(last.seq, 200)  # late, from before: nothing is overwritten
    assert ledger.add(1, 1, "getMe", 0, "") == last.seq + 1
    assert ledger[last.seq + 1].status == 0


async def test_reset_keeps_who_listens(call, control):
    await call("setWebhook", url="http://127.0.0.1:9/")
    await call("sendMessage", chat_id=1, text="x")
    await control("PUT", "faults", {"kind": "hang"})
    await control("POST", "reset")
    assert (await control("GET", "ledger"))["calls"] == []
    state = await control("GET", "state")
    assert (state["faults"], state["bots"][0]["listening"]) == (0, "webhook")
    assert TOKEN not in json.dumps(state)


async def test_events_tell_what_happens(call, http, control):
    async with http.get("/playground/events") as stream:
        await control("POST", "updates", {"chat": 1001, "text": "hello"})
        await call("sendChatAction", chat_id=1001, action="typing")
        sent = (await call("sendMessage", chat_id=1001, text="hi"))["result"]["message_id"]
        await call("editMessageText", chat_id=1001, message_id=sent, text="ho")
        await call("deleteMessage", chat_id=1001, message_id=sent)
        await call("sendMessage", chat_id=42, text="of a chat that no page has open")
        await call("sendMessage", chat_id=1001, text="end")
        found = []
        async with asyncio.timeout(5):
            async for line in stream.content:
                if line.startswith(b"data: "):
                    found.append(json.loads(line[6:]))
                if b'"end"' in line:
                    break
    assert [event["kind"] for event in found] == ["message", "action", "message", "changed", "changed", "message"]
    answer = found[2]["entry"]
    assert answer["after_ms"] == pytest.approx(answer["at"] - found[0]["entry"]["at"])
    timeline = await control("GET", "timeline?chat=1001")
    assert [entry["side"] for entry in timeline] == ["user", "bot", "bot"]
    assert timeline[1]["deleted_at"] >= timeline[1]["edited_at"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "nothing", None, 404), ("POST", "ledger", None, 405), ("POST", "updates", b"{", 422),
        ("POST", "updates", b'{"chat":-1,"text":"x"}', 422), ("POST", "updates", b'{"chat":1}', 422),
        ("POST", "updates", b'{"chat":1,"text":"x","bot":9}', 404), ("GET", "ledger?since=x", None, 422),
        ("POST", "updates", b'{"chat":1,"press":{"message_id":1,"data":"x"}}', 422),
        ("POST", "chats", b'{"chat":-9}', 422), ("DELETE", "faults?id=5", None, 404),
    ],
)  # fmt: skip
async def test_refusals(http, method, path, body, status):
    async with http.request(method, f"/playground/{path}", data=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]


async def _use(url: str) -> None:
    """The program runs on uvloop, whose transports differ from those of the other tests."""
    async with aiohttp.ClientSession(url) as session:
        sent = {"chat_id": 1001, "text": "hello"}
        async with session.get("/playground/events"), session.post(f"/bot{TOKEN}/sendMessage", json=sent) as answer:
            assert (await answer.json())["result"]["text"] == "hello"
        async with session.put("/playground/faults", json={"kind": "reset_after"}):
            pass
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"/bot{TOKEN}/sendMessage", json=sent)
        async with session.get("/playground/judge") as answer:
            assert (await answer.json())["taken"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_starts_and_stops(number):
    command = [sys.executable, "-m", "bot.playground", "--bind", "127.0.0.1:0", "--token", TOKEN, "--nice", "1"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
            assert line.startswith(b"playground ready on http://127.0.0.1:")
            await _use(line.split()[-1].decode())
            process.send_signal(number)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("arguments", [["--bind", "0.0.0.0:0"], ["--bind", "x"], ["--limit-bot", "30"]])
async def test_wrong_arguments(arguments):
    command = [sys.executable, "-m", "bot.playground", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said.count(b"\n") == 1


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_loopback(host, loopback):
    assert is_loopback(host) == loopback
