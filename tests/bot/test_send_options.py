"""rate_limit_args: what is understood, and what is refused with a word that helps."""

import pytest

from bot.send_options import Options, options_of
from queueing.message import Priority


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (None, Options()),
        (5, Options()),
        ({}, Options()),
        ({"wait": True}, Options(wait=True)),
        ({"wait": 2.5}, Options(wait=2.5)),
        ({"wait": False}, Options(wait=False)),
        ({"priority": "bulk"}, Options(priority=Priority.BULK)),
        ({"priority": Priority.NORMAL}, Options(priority=Priority.NORMAL)),
        ({"dedup_key": "k", "ttl": 60}, Options(dedup_key="k", ttl=60)),
        ({"direct": True}, Options(direct=True)),
    ],
)
def test_what_is_understood(given: object, options: Options) -> None:
    assert options_of(given) == options


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("wait", "must be a dict"),
        ({"wiat": True}, "wiat is no option; there are wait, priority"),
        ({"wait": 0}, "wait must be"),
        ({"wait": "long"}, "wait must be"),
        ({"priority": "urgent"}, "urgent"),
        ({"dedup_key": ""}, "dedup_key must be"),
        ({"ttl": -1}, "ttl must be"),
        ({"direct": 1}, "direct must be"),
        ({"direct": True, "ttl": 5}, "no other option"),
    ],
)
def test_what_is_not_is_named(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        options_of(given)
