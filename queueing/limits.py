"""What may leave: n messages in a period, per bot, private chat, and group or channel."""

from dataclasses import dataclass

MARGIN = 0.010
"""Seconds added to every period. A message that travels quickly after one that travelled slowly arrives closer to it
than both left; this much, and the 10 ms that G3 grants, may be lost on the way. It costs 1 % of a one-second limit."""

WRITE_WITHIN = 0.5
"""Seconds from its grant within which a limited message must be written; later it goes back unsent and is granted anew.
Until its settlement tells when it was written, it counts as written that late."""

WRITE_AT_ONCE = MARGIN + 0.010
"""The same for the queue within a process, whose log keeps the grant's time: later is too close to the next."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` messages in any `period` seconds; a count of 0 means no limit."""

    count: int
    period: float = 1.0


OFF = Rate(0)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of every bot, private chat, and group or channel (a chat whose id is negative or an @name)."""

    bot: Rate = OFF
    chat: Rate = OFF
    group: Rate = OFF

    def of_chat(self, chat: str) -> Rate:
        return self.group if chat.startswith(("-", "@")) else self.chat

    def limits(self, chat: str) -> bool:
        """Whether any limit holds for a message to this chat."""
        return bool(self.bot.count or self.of_chat(chat).count)
