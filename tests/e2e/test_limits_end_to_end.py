"""The cases that `make chaos` measures, in short: whatever the figures, the guarantees must hold."""

from collections.abc import Awaitable, Callable

import pytest

from tests.chaos import limits, trouble
from tests.chaos.measure import Figure

SHORT: dict[str, Callable[[], Awaitable[Figure]]] = {
    "a backlog": lambda: limits.backlog(30, 3, least=0.5),  # so short a time says little about the use
    "a refused chat": lambda: trouble.refused_chat(2),
    "a refused bot": lambda: trouble.refused_bot(2),
    "an outage": lambda: trouble.all_fail(2, chats=20),
    "a server that is away": lambda: trouble.server_away(1, messages=150),
    "a full server": lambda: trouble.full_server(1_000),
}


@pytest.mark.parametrize("case", SHORT)
async def test_the_guarantees_hold_beside(case: str) -> None:
    figure = await SHORT[case]()
    assert not figure.failures, figure
