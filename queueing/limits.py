"""What may leave: n messages in a period, per bot, private chat, and group or channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """The limits of every bot, private chat, and group or channel (a chat whose id is negative or an @name).

    paid:  of every bot, for paid messages, which then use nothing of `bot`.
    chats: of single chats, by their canonical names, instead of `chat` and `group`.
    """

    bot: Rate = OFF
    chat: Rate = OFF
    group: Rate = OFF
    paid: Rate = OFF
    chats: Mapping[str, Rate] = field(default_factory=dict)

    def of_bot(self, *, paid: bool) -> Rate:
        return self.paid if paid else self.bot

    def of_chat(self, chat: str) -> Rate:
        own = self.chats.get(chat)
        if own is not None:
            return own
        return self.group if chat.startswith(("-", "@")) else self.chat

    @property
    def limit_all(self) -> bool:
        """Whether some limit holds for each message, whatever its chat."""
        return bool((self.bot.count and self.paid.count) or (self.chat.count and self.group.count and not self.chats))

    def limits(self, chat: str, *, paid: bool = False) -> bool:
        """Whether any limit holds for a message to this chat."""
        return bool(self.of_bot(paid=paid).count or self.of_chat(chat).count)
