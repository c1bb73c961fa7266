"""A plugin of pytest, for PTB's own tests: the stand-in on this machine is Telegram for all of their bots."""

import os
from typing import Any

from tests.auxil import pytest_classes  # PTB's

TELEGRAM = os.environ["PTB_SUITE_TELEGRAM"] + "/bot"


def _redirect(kind: Any) -> Any:
    class Redirected(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            if len(args) < 2:
                options.setdefault("base_url", TELEGRAM)
            super().__init__(*args, **options)

    Redirected.__name__ = kind.__name__
    return Redirected


pytest_classes.PytestExtBot = _redirect(pytest_classes.PytestExtBot)
pytest_classes.PytestBot = _redirect(pytest_classes.PytestBot)
