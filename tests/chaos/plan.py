"""What is sent and what goes wrong, drawn from one seed: the same seed is the same run, as far as machines allow."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill", "stop", "redis", "error", "outage", "hang", "reset_before", "reset_after", "flood_chat", "flood_bot"
]
KINDS: Sequence[Kind] = (
    "kill", "stop", "redis", "error", "outage", "hang", "reset_before", "reset_after", "flood_chat", "flood_bot",
)  # fmt: skip

TOKENS = (
    "123456:AAFakeTokenOfTheEndToEndTests_0123456",
    "123457:AAFakeTokenOfTheSecondBot_0123456789a",
    "123458:AAFakeTokenOfTheThirdBot_0123456789ab",
)
BOTS = tuple(int(token.partition(":")[0]) for token in TOKENS)

BURSTS = 3
"""Times at which one chat gets messages, several at once, so that its own limit is felt."""

BUSY = 0.6
"""The share of the run in which the bots' limits would let everything through, if nothing went wrong."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is sent: `messages` in all, spread over the chats of three bots."""

    messages: int = 20_000
    private: int = 500
    groups: int = 20

    def rates(self, seconds: float) -> dict[str, str]:
        """The bot's environment: limits that are felt, and that leave time for what goes wrong."""
        a_second = max(10, round(self.messages / len(BOTS) / seconds / BUSY))
        return {"RATE_GLOBAL": f"{a_second}/1s", "RATE_CHAT": "2/1s", "RATE_GROUP": "5/3s"}


@dataclass(frozen=True, slots=True)
class Push:
    """Elements that one producer pushes at once. at: seconds from the start."""

    at: float
    elements: Sequence[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Trouble:
    """at, seconds: when it begins, and for how long. chance: 0 to 1, which process or bot is hit. seed: for the dice
    of the stand-in."""

    at: float
    kind: Kind
    seconds: float
    chance: float
    seed: int


@dataclass(frozen=True, slots=True)
class Series:
    """Messages m-<chat>-0 to m-<chat>-<count - 1> of a bot."""

    bot: int
    chat: int
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    series: Sequence[Series]
    pushes: Sequence[Push]
    troubles: Sequence[Trouble]


def draw(seed: int, seconds: float, load: Load) -> Plan:
    """The run of this seed. Every kind of trouble comes once a minute, and once at least."""
    dice = random.Random(seed)
    series = list(_series(load))
    kinds = [kind for _ in range(max(1, round(seconds / 60))) for kind in KINDS]
    dice.shuffle(kinds)
    starts = sorted(dice.uniform(0.08, 0.85) * seconds for _ in kinds)
    troubles = [
        Trouble(at, kind, dice.uniform(1.5, 4.0), dice.random(), dice.randrange(1 << 30))
        for at, kind in zip(starts, kinds, strict=True)
    ]
    return Plan(series, _pushes(dice, series, seconds), troubles)


def _series(load: Load) -> Iterator[Series]:
    chats = [*range(1, load.private + 1), *range(-1, -load.groups - 1, -1)]
    lanes = [(bot, chat) for chat in chats for bot in BOTS]
    for number, (bot, chat) in enumerate(lanes):
        yield Series(bot, chat, load.messages // len(lanes) + (number < load.messages % len(lanes)))


def _pushes(dice: random.Random, series: Sequence[Series], seconds: float) -> list[Push]:
    """Waves, two seconds apart; each chat takes part in a few of them. Within a wave, chats take turns."""
    waves: list[list[tuple[int, float, dict[str, object]]]] = [[] for _ in range(max(4, int(seconds * 0.9 / 2)))]
    tokens = dict(zip(BOTS, TOKENS, strict=True))
    for one in series:
        mine = sorted(dice.randrange(len(waves)) for _ in range(BURSTS))
        for n in range(one.count):
            element: dict[str, object] = {
                "bot_token": tokens[one.bot], "chat_id": one.chat, "text": f"m-{one.chat}-{n}", "kwargs": {},
            }  # fmt: skip
            waves[mine[n * BURSTS // one.count]].append((n, dice.random(), element))
    ordered = [sorted(wave, key=lambda entry: entry[:2]) for wave in waves]
    return [Push(2.0 * number, [element for _, _, element in wave]) for number, wave in enumerate(ordered)]
