"""Each method of the Bot API that PTB knows goes one way, and nothing that is not for a chat gets into a lane."""

import inspect
import re

import pytest
from telegram import Bot

from bot import methods
from bot.labels import METHODS
from bot.methods import Way, way_of, way_of_call

ALL = METHODS | {"close"}
PARAMETERS = {name: set(inspect.signature(getattr(Bot, name)).parameters) for name in METHODS}


def test_every_known_method_has_one_way() -> None:
    derived, of_a_chat, of_none = methods._DERIVED, methods._DIRECT_OF_A_CHAT, methods._ABOUT_NO_CHAT
    verbs = {name for name in ALL if name.startswith(methods._DIRECT_VERBS)}
    ways = [derived, of_a_chat, of_none, verbs]
    assert sum(map(len, ways)) == len(set().union(*ways)), "a method is in two of the sets"
    assert set().union(*ways) <= ALL, "a method that is none"


def test_what_waits_or_is_derived_is_for_a_chat_and_all_else_is_direct() -> None:
    for name in METHODS:
        if "chat_id" not in PARAMETERS[name]:
            assert way_of(name) is Way.DIRECT, name


def test_the_methods_of_a_chat_that_are_direct() -> None:
    direct = {name for name in METHODS if "chat_id" in PARAMETERS[name] and way_of(name) is Way.DIRECT}
    asking = {name for name in direct if name.startswith("get")}
    assert direct - asking == methods._DIRECT_OF_A_CHAT


def test_a_derived_method_returns_a_message_or_true() -> None:
    for name in methods._DERIVED:
        returned = str(inspect.signature(getattr(Bot, name)).return_annotation)
        assert re.search("Message|bool", returned), name


@pytest.mark.parametrize("name", ["sendMessage", "sendPhoto", "aMethodOfNextYear"])
def test_a_call_without_a_chat_is_direct(name: str) -> None:
    assert way_of_call(name, {}) is Way.DIRECT
    assert way_of_call(name, {"chat_id": 5}) is not Way.DIRECT


def test_a_method_of_next_year_waits_and_a_question_of_next_year_does_not() -> None:
    assert way_of("sendHologram") is Way.AWAITED
    assert way_of("getHologram") is Way.DIRECT
