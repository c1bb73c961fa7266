"""An error in words for the operator, without what must not be told."""

import traceback
from typing import Final

from monitoring.logs import mask

MOST: Final = 8_000
"""Characters of a traceback; of a longer one the middle is left out."""


def summary(error: BaseException) -> str:
    """One line: the error, and where it was raised."""
    words = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return mask(words[:1_000] + where)


def with_traceback(error: BaseException) -> str:
    """The summary, and below it the traceback as Python prints it."""
    text = "".join(traceback.format_exception(error)).rstrip()
    if len(text) > MOST:
        text = f"{text[: MOST // 2]}\n…\n{text[-MOST // 2 :]}"
    return f"{summary(error)}\n{mask(text)}"
