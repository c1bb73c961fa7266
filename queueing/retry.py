"""From what came of an attempt to what happens to the message. Pure: no clock, no I/O."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import msgspec

from queueing.message import Uncertain


class Scope(StrEnum):
    """What a failure is about, and so what has to wait.

    MESSAGE:  this message alone.
    CHAT:     its chat; where several are told the same at once, the bot.
    BOT:      all of its bot's messages.
    RECEIVER: the receiver's own trouble, or the way to it. When it hits several chats of a bot and nothing gets through
              between them, it is an outage: the bot waits, one probe at a time goes out, and no attempt is spent.
    """

    MESSAGE = "message"
    CHAT = "chat"
    BOT = "bot"
    RECEIVER = "receiver"


class Sent(msgspec.Struct, frozen=True, gc=False):
    """Delivered. `result` is JSON text that is kept with a tracked message (for Telegram: the message id).

    chat: the receiver's own name of the chat, if it turned out to be another than the message's.
    """

    result: str | None = None
    chat: str | None = None


class RetryLater(msgspec.Struct, frozen=True, gc=False):
    """Not delivered, may be later.

    error:   what happened, in one line, for the operator.
    reason:  its class, a label of `messages_retried_total`.
    after:   seconds to wait as the receiver asked; such a wait costs no attempt. None: the policy's backoff.
    uncertain: it may have been delivered after all.
    scope:   what has to wait.
    """

    error: str
    reason: str
    after: float | None = None
    uncertain: bool = False
    scope: Scope = Scope.MESSAGE


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """Will never be delivered. `reason` is a class, a label of `messages_dead_total`; `error` the receiver's words."""

    error: str
    reason: str


class Moved(msgspec.Struct, frozen=True, gc=False):
    """Not delivered: the chat has another name now, under which it is to be tried. Costs no attempt."""

    chat: str
    error: str


class Unsent(msgspec.Struct, frozen=True, gc=False):
    """Was not tried: the lease was about to end, or the process is stopping. Costs nothing."""


Outcome = Sent | RetryLater | Rejected | Moved | Unsent


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Done; leaves its lane, which is from now on that of `chat`, if one is given."""

    result: str | None = None
    chat: str | None = None


class Release(msgspec.Struct, frozen=True, gc=False):
    """Stays at the head of its lane; what `scope` names waits for `delay` seconds. `reason` and `error` are None when
    nothing was tried: then it did not leave, and costs nothing of any limit."""

    delay: float = 0.0
    reason: str | None = None
    error: str | None = None
    counts: bool = False
    uncertain: bool = False
    scope: Scope = Scope.MESSAGE


class Bury(msgspec.Struct, frozen=True, gc=False):
    """Goes to the dead letters, unless `scope` is RECEIVER and there is an outage: then it stays.

    uncertain: its last attempt may have delivered it.
    """

    reason: str
    error: str
    uncertain: bool = False
    scope: Scope = Scope.MESSAGE


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Leaves its lane for the dead letters, as `uncertain`, until a person decides; also in an outage."""

    error: str
    scope: Scope = Scope.MESSAGE


class Move(msgspec.Struct, frozen=True, gc=False):
    """Stays in its place of a lane that is from now on that of `chat`."""

    chat: str
    error: str


Decision = Ack | Release | Bury | Hold | Move


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter: attempt n waits base * 2**(n-1), capped, times a random 0.5 to 1.

    max_attempts: attempts before a message is dead. base, cap: seconds. uncertain: what is done in doubt.
    """

    max_attempts: int = 5
    base: float = 1.0
    cap: float = 300.0
    uncertain: Uncertain = Uncertain.RESEND

    def delay(self, attempts: int) -> float:
        """Seconds to wait after the `attempts`-th failure (1 or more)."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempts - 1, 60))
        return ceiling * random.uniform(0.5, 1.0)


def decide(
    outcome: Outcome,
    *,
    attempts: int,
    policy: RetryPolicy,
    max_attempts: int | None = None,
    uncertain: Uncertain | None = None,
) -> Decision:
    """What becomes of a message. `attempts`: failures counted before this one; `max_attempts`, `uncertain`: its own."""
    match outcome:
        case Sent(result, chat):
            return Ack(result, chat)
        case Unsent():
            return Release()
        case Moved(_, error) if attempts >= (max_attempts or policy.max_attempts):
            # Only a move in a circle counts as an attempt.
            return Bury("attempts", f"{error} (after {attempts} attempts)")
        case Moved(chat, error):
            return Move(chat, error)
        case Rejected(error, reason):
            return Bury(reason, error)
        case RetryLater(error, uncertain=True, scope=scope) if (uncertain or policy.uncertain) is Uncertain.HOLD:
            return Hold(error, scope)
        case RetryLater(error, reason, after, doubt, scope) if after is not None:
            return Release(after, reason, error, counts=False, uncertain=doubt, scope=scope)
        case RetryLater(error, reason, _, doubt, scope):
            if attempts + 1 >= (max_attempts or policy.max_attempts):
                return Bury("attempts", f"{error} (after {attempts + 1} attempts)", doubt, scope)
            return Release(policy.delay(attempts + 1), reason, error, counts=True, uncertain=doubt, scope=scope)
        case _:
            assert_never(outcome)
