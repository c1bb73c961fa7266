"""Faults, limits, and what the ledger says of them."""

import asyncio

import aiohttp
import pytest

from bot.playground.faults import Fault, Faults
from bot.playground.limits import Limits, LimitSettings, Rate, parse_rate

from .conftest import TOKEN, eventually

SECOND = 10**9


async def test_latency_comes_after_the_stamp(playground, call, control):
    await control("PUT", "faults", {"kind": "latency", "ms": 60})
    await call("sendMessage", chat_id=1, text="x")
    found = playground.world.ledger[0]
    assert 55e6 < found.answered_ns - found.arrival_ns < 500e6
    assert (found.fault, found.taken, found.status) == ("latency", True, 200)


@pytest.mark.parametrize(
    ("fault", "code", "description", "taken"),
    [
        ({"kind": "error", "code": 503}, 503, "Service Unavailable", False),
        ({"kind": "error", "taken": True}, 502, "Bad Gateway", True),
        ({"kind": "blocked"}, 403, "Forbidden: bot was blocked by the user", False),
        ({"kind": "chat_not_found"}, 400, "Bad Request: chat not found", False),
        ({"kind": "unauthorized", "token": TOKEN}, 401, "Unauthorized", False),
        ({"kind": "flood", "retry_after": 7}, 429, "Too Many Requests: retry after 7", False),
        ({"kind": "migrate", "chat": -5, "to": -1001}, 400, None, False),
    ],
)
async def test_refusals(playground, call, control, fault, code, description, taken):
    shown = await control("PUT", "faults", fault)
    assert TOKEN not in str(shown)
    answer = await call("sendMessage", chat_id=-5, text="x")
    assert answer["error_code"] == code
    assert description in (None, answer["description"])
    found = playground.world.ledger[0]
    assert (found.status, found.taken, found.fault) == (code, taken, fault["kind"])


@pytest.mark.parametrize(("kind", "taken"), [("reset_before", False), ("reset_after", True)])
async def test_resets(playground, call, control, kind, taken):
    await control("PUT", "faults", {"kind": kind, "count": 1})
    with pytest.raises(aiohttp.ClientConnectionError):
        await call("sendMessage", chat_id=1, text="x")
    found = playground.world.ledger[0]
    assert (found.taken, found.status, found.fault) == (taken, 0, kind)
    assert (await call("sendMessage", chat_id=1, text="y"))["result"]["message_id"] == 1 + taken


async def test_a_hang_is_taken_and_the_client_leaves(playground, call, control):
    await control("PUT", "faults", {"kind": "hang"})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call("sendMessage", chat_id=1, text="x"), 0.1)
    ledger = playground.world.ledger
    await eventually(lambda: ledger[0].client_gone)
    assert (ledger[0].taken, ledger[0].status) == (True, 0)
    await control("PUT", "faults", {"kind": "hang", "seconds": 0.05})
    assert (await call("sendMessage", chat_id=1, text="x"))["ok"]


async def test_a_flood_lasts(playground, call, control):
    await control("PUT", "faults", {"kind": "flood", "retry_after": 30, "scope": "bot", "count": 1, "chat": 1})
    first = await call("sendMessage", chat_id=1, text="x")
    other = await call("sendMessage", chat_id=2, text="x")
    assert first["parameters"] == other["parameters"] == {"retry_after": 30}
    assert [found.fault for found in playground.world.ledger.select()] == ["flood", "penalty"]
    await control("DELETE", "faults")
    assert (await call("sendMessage", chat_id=1, text="x"))["ok"]


async def test_a_penalty_spends_no_strike(playground, call, control):
    await control("PUT", "faults", {"kind": "flood", "retry_after": 1, "count": 2})
    for _ in range(3):
        await call("sendMessage", chat_id=1, text="x")
    assert (await control("GET", "faults"))[0]["fired"] == 1
    playground.world.limits.clear()  # as if the second had passed
    await call("sendMessage", chat_id=1, text="x")
    assert [found.fault for found in playground.world.ledger.select()] == ["flood", "penalty", "penalty", "flood"]


async def test_a_migrated_group_stays_migrated(call, control):
    await control("PUT", "faults", {"kind": "migrate", "chat": -5, "to": -1001, "count": 1})
    for _ in range(2):
        assert (await call("sendMessage", chat_id=-5, text="x"))["parameters"] == {"migrate_to_chat_id": -1001}
    assert (await call("sendMessage", chat_id=-1001, text="x"))["ok"]


async def test_enforced_limits(playground, call, control):
    await control("PUT", "limits", {"chat": "1/30s", "bot": "3/30s"})
    answers = [await call("sendMessage", chat_id=chat, text="x") for chat in (1, 1, 2, 3, 4)]
    assert [answer["ok"] for answer in answers] == [True, False, True, True, False]
    assert answers[1]["parameters"]["retry_after"] == 30
    assert [found.fault for found in playground.world.ledger.select()] == ["", "limit", "", "", "limit"]


async def test_wrong_faults_and_limits_are_refused(http):
    for path, body in (
        ("faults", {"kind": "nonsense"}), ("faults", {"kind": "hang", "typo": 1}), ("limits", {"chat": "many"}),
        ("faults", {"kind": "hang", "chat": "?"}), ("faults", {"kind": "migrate", "chat": -5}),
    ):  # fmt: skip
        async with http.put(f"/playground/{path}", json=body) as answer:
            assert answer.status == 422
            assert (await answer.json())["error"]


def test_scope_skip_count_and_seed():
    def fired(seed: int = 0, **fault: object) -> list[bool]:
        faults = Faults()
        faults.add(Fault("hang", seed=seed, **fault), fault.get("chat"))
        return [faults.pick(1, 5, "sendMessage", "t")[0] is not None for _ in range(20)]

    assert fired(chat=6) == fired(bot=2) == fired(method="sendPhoto") == [False] * 20
    assert fired(chat=5, bot=1, method="SENDMESSAGE") == [True] * 20
    assert fired(skip=2, count=3) == [False, False, True, True, True, *[False] * 15]
    assert fired(probability=0.5, seed=1) == fired(probability=0.5, seed=1) != fired(probability=0.5, seed=2)


@pytest.mark.parametrize(
    ("text", "rate"), [("30/1s", Rate(30, 1)), ("20/1m", Rate(20, 60)), ("1/500ms", Rate(1, 0.5)), ("off", None)]
)
def test_rates(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["30", "0/1s", "1/0s", "a/1s", "1/1d", "-1/1s"])
def test_wrong_rates(text):
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


def test_a_window_slides_and_a_penalty_lengthens():
    limits = Limits(LimitSettings(group="2/1s", lengthen=5))
    assert [limits.admit(1, -5, 1, at) for at in (0, SECOND // 2, SECOND - 1)] == [0, 0, 1]
    assert limits.penalty(1, -5, SECOND + 1) == 0
    assert limits.admit(1, -5, 1, SECOND) == 0
    limits.penalise(1, 0, 0, 10)
    limits.penalise(1, 0, 0, 3)  # the later deadline holds
    assert limits.penalty(1, 9, SECOND) == 14
    assert limits.penalty(1, 9, SECOND) == 19
