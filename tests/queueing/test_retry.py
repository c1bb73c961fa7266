"""What becomes of a message, as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueing.message import Uncertain
from queueing.retry import (
    Ack,
    Bury,
    Decision,
    Hold,
    Move,
    Moved,
    Outcome,
    Rejected,
    Release,
    RetryLater,
    RetryPolicy,
    Sent,
    Unsent,
    decide,
)

NO_JITTER = RetryPolicy(max_attempts=3, base=0.0)


@pytest.mark.parametrize(
    ("outcome", "attempts", "decision"),
    [
        (Sent("5"), 0, Ack("5")),
        (Sent(), 2, Ack(None)),
        (Unsent(), 2, Release()),
        (Rejected("blocked by the user", "blocked"), 0, Bury("blocked", "blocked by the user")),
        (RetryLater("refused", "network"), 0, Release(0, "network", "refused", counts=True)),
        (RetryLater("refused", "network"), 1, Release(0, "network", "refused", counts=True)),
        (RetryLater("refused", "network"), 2, Bury("attempts", "refused (after 3 attempts)")),
        (RetryLater("no answer", "x", uncertain=True), 0, Release(0, "x", "no answer", counts=True, uncertain=True)),
        (RetryLater("no answer", "x", uncertain=True), 2, Bury("attempts", "no answer (after 3 attempts)", True)),
        (RetryLater("slow down", "flood", after=7), 2, Release(7, "flood", "slow down", counts=False)),
        (Moved("-1007", "upgraded"), 2, Move("-1007", "upgraded")),
        (Moved("-1007", "upgraded"), 3, Bury("attempts", "upgraded (after 3 attempts)")),
        (Sent("5", "-1007"), 0, Ack("5", "-1007")),
        (RetryLater("slow down", "flood", after=0), 99, Release(0, "flood", "slow down", counts=False)),
    ],
)
def test_decide(outcome: Outcome, attempts: int, decision: Decision) -> None:
    assert decide(outcome, attempts=attempts, policy=NO_JITTER) == decision


def test_a_message_may_have_its_own_number_of_attempts() -> None:
    failure = RetryLater("refused", "network")
    assert isinstance(decide(failure, attempts=0, policy=NO_JITTER, max_attempts=1), Bury)
    assert isinstance(decide(failure, attempts=8, policy=NO_JITTER, max_attempts=10), Release)


@given(attempts=st.integers(1, 10_000))
def test_backoff_doubles_up_to_its_cap_with_jitter(attempts: int) -> None:
    ceiling = min(300.0, 1.0 * 2.0 ** min(attempts - 1, 60))
    assert ceiling / 2 <= RetryPolicy().delay(attempts) <= ceiling


@pytest.mark.parametrize(
    ("own", "default", "held"),
    [
        (None, Uncertain.RESEND, False),
        (None, Uncertain.HOLD, True),
        (Uncertain.HOLD, Uncertain.RESEND, True),
        (Uncertain.RESEND, Uncertain.HOLD, False),
    ],
)
def test_in_doubt_a_message_is_held_if_it_or_the_policy_says_so(
    own: Uncertain | None, default: Uncertain, held: bool
) -> None:
    policy = RetryPolicy(uncertain=default)
    doubt = RetryLater("no answer", "no_answer", uncertain=True)
    assert isinstance(decide(doubt, attempts=0, policy=policy, uncertain=own), Hold) is held
    certain = RetryLater("refused", "network")
    assert isinstance(decide(certain, attempts=0, policy=policy, uncertain=own), Release)
