"""How long the end of a process may take, and each part of it, in seconds: what gunicorn waits for is their sum."""

from typing import Final

from bot.settings import Settings

LAST_REQUESTS: Final = 5
"""For requests under way: once the process drains, none waits for a send."""

LAST_RESULTS: Final = 4.0
"""For handlers of a process without Redis that wait for results: less than requests have to end."""

LAST_HANDLERS: Final = 10.0
"""For the handlers of updates out of the inbox. What is not done by then, others do anew."""

EMPTYING: Final = 5.0
"""For a queue within this process to empty itself, where there is no other one that sends."""

_REST: Final = 2


def graceful_seconds(settings: Settings) -> int:
    """How long a stopping process may take: requests end, handlers end, sends in flight end, their settlements reach
    Redis."""
    own = EMPTYING if settings.shared_percent == 0 else 0
    sends = settings.send_timeout + 2 * settings.redis_timeout
    return round(LAST_REQUESTS + LAST_HANDLERS + own + sends + _REST)
