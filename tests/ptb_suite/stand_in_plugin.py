"""A plugin of pytest, for PTB's own tests: the stand-in on this machine is Telegram for all of their bots."""

import os
from typing import Any

import httpx
from tests.auxil import ci_bots, pytest_classes  # PTB's

TELEGRAM = os.environ["PTB_SUITE_TELEGRAM"] + "/bot"


def _redirect(kind: Any) -> Any:
    class Redirected(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            if len(args) < 2:
                options.setdefault("base_url", TELEGRAM)
            super().__init__(*args, **options)

    Redirected.__name__ = kind.__name__
    return Redirected


def _open_chats() -> None:
    """Those that PTB's test bots write to."""
    for bot in ci_bots.FALLBACKS:
        for name, chat in bot.items():
            if name.endswith("_id") and str(chat).lstrip("-").isdigit():
                httpx.post(
                    f"{os.environ['PTB_SUITE_TELEGRAM']}/playground/chats",
                    json={"chat": int(chat), "people": {1: "Ada"}},
                )


_open_chats()
pytest_classes.PytestExtBot = _redirect(pytest_classes.PytestExtBot)
pytest_classes.PytestBot = _redirect(pytest_classes.PytestBot)
