"""Telegram's limits, enforced when asked: exact sliding windows, and penalties (429) that run until a deadline."""

from __future__ import annotations

import math
import re
from collections import deque

import msgspec

_RATE = re.compile(r"(\d+)/(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Rate(msgspec.Struct, frozen=True):
    """At most `count` messages in any window of `period` seconds."""

    count: int
    period: float

    def __str__(self) -> str:
        return f"{self.count}/{self.period:g}s"


def parse_rate(text: str) -> Rate | None:
    """`30/1s`, `20/1m`, `off`: the rate, or None for off. Anything else raises ValueError."""
    if text in ("off", ""):
        return None
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) < 1 or float(match[2]) <= 0:
        raise ValueError(f"{text!r} is no rate: expected <count>/<period>, such as 30/1s, or off")
    return Rate(int(match[1]), float(match[2]) * _UNITS[match[3] or "s"])


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is enforced: rates as text (`30/1s` or `off`); `lengthen` adds seconds for each call during a penalty."""

    bot: str = "off"
    chat: str = "off"
    group: str = "off"
    lengthen: float = 0.0


class Limits:
    """Says for each counted call how many seconds the sender has to wait, 0 for none."""

    def __init__(self, settings: LimitSettings) -> None:
        self.apply(settings)

    def apply(self, settings: LimitSettings) -> None:
        """Take new rates and begin with empty windows; a rate that can't be read raises ValueError."""
        self._bot = parse_rate(settings.bot)
        self._chat = parse_rate(settings.chat)
        self._group = parse_rate(settings.group)
        self.settings = settings
        self.clear()

    def clear(self) -> None:
        self._windows: dict[tuple[int, int], deque[int]] = {}
        self._penalties: dict[tuple[int, int], int] = {}

    @property
    def active(self) -> bool:
        return bool(self._bot or self._chat or self._group or self._penalties)

    def penalise(self, bot: int, chat: int, now_ns: int, seconds: float) -> None:
        """Refuse this chat (0: the whole bot) for so long; of two penalties the later deadline holds."""
        key, until = (bot, chat), now_ns + int(seconds * 1e9)
        self._penalties[key] = max(until, self._penalties.get(key, 0))

    def penalty(self, bot: int, chat: int, now_ns: int) -> int:
        """Whole seconds this call is still refused by a running penalty; asking during one may lengthen it."""
        wait = 0
        for key in ((bot, 0), (bot, chat)):
            until = self._penalties.get(key, 0)
            if until > now_ns:
                until = self._penalties[key] = until + int(self.settings.lengthen * 1e9)
                wait = max(wait, math.ceil((until - now_ns) / 1e9))
            elif until:
                del self._penalties[key]
        return wait

    def admit(self, bot: int, chat: int, weight: int, now_ns: int) -> int:
        """0 and the call is counted, or the whole seconds after which it would fit (which become a penalty)."""
        checked = []
        for key, rate in (((bot, 0), self._bot), ((bot, chat), self._chat if chat > 0 else self._group)):
            if rate is None:
                continue
            window = self._windows.setdefault(key, deque())
            horizon = now_ns - int(rate.period * 1e9)
            while window and window[0] <= horizon:
                window.popleft()
            if window and len(window) + weight > rate.count:
                wait = max(1, math.ceil((window[0] - horizon) / 1e9))
                self.penalise(bot, key[1], now_ns, (window[0] - horizon) / 1e9)
                return wait
            checked.append(window)
        for window in checked:
            window.extend([now_ns] * weight)
        return 0
