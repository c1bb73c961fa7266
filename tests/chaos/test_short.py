"""A short run of `make chaos`, and its own parts: the plan is the seed's, and the audit sees what is wrong."""

import pytest

from tests.chaos.audit import Hit, judge_doubles
from tests.chaos.plan import KINDS, Load, draw
from tests.chaos.run import chaos

SMALL = Load(messages=1_500, private=40, groups=4)
SECOND = 10**9


def call(arrival: float, answered: float, *, status: int = 200, text: str = "m-1-0") -> dict[str, object]:
    return {
        "bot": 1, "chat": 1, "text": text, "taken": True, "status": status, "client_gone": False,
        "arrival_ns": int(arrival * SECOND), "answered_ns": int(answered * SECOND),
    }  # fmt: skip


async def test_twenty_seconds_of_everything_that_can_go_wrong() -> None:
    report = await chaos(20, 1, SMALL)
    assert not report.violations, report.table()
    assert report.accepted == report.sent == SMALL.messages
    assert report.hits == {"kill": 1, "stop": 1}


def test_a_seed_is_one_plan() -> None:
    assert draw(7, 20, SMALL) == draw(7, 20, SMALL)
    assert draw(7, 20, SMALL) != draw(8, 20, SMALL)


def test_a_plan_has_every_message_once_in_order_and_every_trouble() -> None:
    plan = draw(7, 20, SMALL)
    texts: dict[tuple[object, object], list[object]] = {}
    for push in plan.pushes:
        for element in push.elements:
            texts.setdefault((element["bot_token"], element["chat_id"]), []).append(element["text"])
    assert sum(map(len, texts.values())) == sum(one.count for one in plan.series) == SMALL.messages
    assert all(lane == [f"m-{chat}-{n}" for n in range(len(lane))] for (_, chat), lane in texts.items())
    assert sorted(trouble.kind for trouble in plan.troubles) == sorted(KINDS)


@pytest.mark.parametrize(
    ("calls", "unexcused"),
    [
        ([call(1, 1.1), call(2, 2.1)], 1),  # answered long before the hit
        ([call(4.9, 5.2), call(8, 8.1)], 0),  # in flight when it came
        ([call(1, 0, status=0), call(3, 3.1)], 0),  # never answered
        ([call(4.9, 5.2), call(8, 8.1), call(9, 9.1)], 1),  # the third has no excuse
        ([call(6, 6.1), call(8, 8.1)], 1),  # sent after the hit, and again
        ([call(4.9, 5.2, text=f"m-1-{n // 2}") for n in range(22)], 11),  # the second did not come after the hit
    ],
)
def test_a_duplicate_needs_an_excuse(calls: list[dict[str, object]], unexcused: int) -> None:
    assert len(judge_doubles(calls, [Hit("kill", 5 * SECOND)], [])) == unexcused


def test_a_hit_excuses_ten() -> None:
    calls = [call(at, at + 0.2, text=f"m-1-{n}") for at in (4.9, 8) for n in range(11)]
    assert len(judge_doubles(calls, [Hit("stop", 5 * SECOND)], [])) == 1


def test_an_answer_that_could_not_be_recorded_excuses() -> None:
    calls = [call(3, 3.1), call(8, 8.1)]
    assert judge_doubles(calls, [Hit("kill", 5 * SECOND)], [])
    assert not judge_doubles(calls, [Hit("kill", 5 * SECOND)], [(2 * SECOND, 6 * SECOND)])
