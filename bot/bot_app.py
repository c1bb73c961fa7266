"""BOT_APP: the function that adds a bot's handlers. Found by its name, and called with what it asks for."""

import importlib
import inspect
import os
import sys
import traceback
import typing
from collections.abc import Callable
from operator import attrgetter
from types import ModuleType
from typing import Any

from telegram.ext import Application, ApplicationBuilder

from bot.settings import SettingsError

_OWN = ("bot", "monitoring", "queueing")

BotApp = Callable[[Any], Any]
"""Takes PTB's Application or ApplicationBuilder; may be a coroutine function."""


def find(reference: str) -> BotApp:
    """The function that `package.module:function` names. The working directory is looked in, too.

    Raises SettingsError, one line, if there is none, if its module cannot be imported, or if it takes no argument.
    """
    name, _, attribute = reference.partition(":")
    here = os.getcwd()  # noqa: PTH109  sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _function(_module(name, here), attribute)
    except _Wrong as wrong:
        own = name.partition(".")[0]
        hint = f" (`{own}` is a package of telequeue: a module of yours needs another name)" if own in _OWN else ""
        raise SettingsError(f"BOT_APP={reference!r}: {wrong}{hint}") from wrong.__cause__


def wants_builder(function: BotApp) -> bool:
    """Whether it takes an ApplicationBuilder: its annotation says so or, where that says nothing, its name."""
    try:
        parameter = next(iter(inspect.signature(function).parameters.values()))
    except (ValueError, StopIteration):
        return False
    annotation = _resolved(function, parameter)
    if isinstance(annotation, str):  # a name that exists for type checkers only
        return "ApplicationBuilder" in annotation
    annotation = typing.get_origin(annotation) or annotation
    if isinstance(annotation, type) and issubclass(annotation, (Application, ApplicationBuilder)):
        return issubclass(annotation, ApplicationBuilder)
    return parameter.name == "builder"


class _Wrong(Exception):
    """What is wrong with the value, in words."""


def _module(name: str, here: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise _Wrong(f"there is no module {missing}, neither in {here} nor installed") from error
        raise _Wrong(_failure(name, error)) from error
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise _Wrong(_failure(name, error)) from error


def _failure(name: str, error: BaseException) -> str:
    """Why the import failed, and where: in the innermost line that is not Python's own import machinery."""
    text = " ".join(str(error).split())[:200]
    where = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    place = f" ({where[-1].filename}, line {where[-1].lineno})" if len(where) > 1 else ""
    return f"{name} cannot be imported: {type(error).__name__}{': ' if text else ''}{text}{place}"


def _function(module: ModuleType, attribute: str) -> BotApp:
    try:
        function = attrgetter(attribute)(module)
    except AttributeError as error:
        raise _Wrong(f"{module.__name__} has no function {attribute}") from error
    if not callable(function):
        raise _Wrong(f"{attribute} of {module.__name__} is no function")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise _Wrong(f"{attribute} must take one argument, an Application or an ApplicationBuilder") from error
    except ValueError:  # one that is not written in Python
        pass
    return typing.cast(BotApp, function)


def _resolved(function: BotApp, parameter: inspect.Parameter) -> Any:
    try:
        return typing.get_type_hints(function).get(parameter.name, parameter.annotation)
    except Exception:  # noqa: BLE001  evaluates whatever stands there
        return parameter.annotation
