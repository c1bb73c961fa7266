"""The fixed sets of values that metrics show as labels; all else counts as "other"."""

import re

from telegram import Bot

REASONS = frozenset(
    {
        # of the sender, see bot/outcomes.py
        "bad_answer",
        "bad_request",
        "blocked",
        "chat_not_found",
        "conflict",
        "file_gone",
        "flood",
        "forbidden",
        "forbidden_method",
        "internal_error",
        "local_file",
        "malformed",
        "migrated",
        "network",
        "no_answer",
        "query_expired",
        "queue_unavailable",
        "server_error",
        "too_large",
        "unauthorized",
        "unknown_bot",
        "unknown_method",
        # of the queue: all attempts are used up; they were, but in an outage
        "attempts",
        "outage",
        # and: three processes that held it died
        "poison",
        # a message that it had to come after was not sent
        "parent_dead",
        # it may have arrived, and is held for a person
        "uncertain",
    }
)
"""Why a message is sent again, or not at all."""

METHODS = frozenset(name for name in dir(Bot) if re.fullmatch("[a-z]+[A-Z][A-Za-z]*", name))
"""The methods of the Bot API: PTB has each of them under its own name, too."""
