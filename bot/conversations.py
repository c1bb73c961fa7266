"""Where an update's conversations are: read before its run, stored with its commit, and in no process in between.

PTB has no hook for it, so its handlers' own dicts are replaced by ones that each run has for itself. What this needs of
PTB's inside is held together by one test (tests/bot/test_ptb_inside.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from telegram import Update
from telegram.ext import BaseHandler, ConversationHandler
from telegram.ext._handlers.conversationhandler import PendingState

from bot.changes import Change
from bot.pickling import Pickler
from bot.run_local import Locals, RunLocal
from bot.stateful import AnyApplication
from queueing.inbox import Write

Handler = ConversationHandler[Any]
Key = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one conversation of an update is kept. name: the handler's."""

    name: str
    handler: Handler
    key: Key

    @property
    def field(self) -> str:
        return f"conversation {self.name} {' '.join(map(str, self.key))}"


def conversations_of(application: AnyApplication) -> dict[str, Handler]:
    """All ConversationHandlers, those within others too, by name: a persistent one's own, else its place among the
    conversations of its group or parent, such as "0/1". One used in several places has the name of the first."""
    found: dict[str, Handler] = {}
    seen: set[int] = set()
    for group, handlers in application.handlers.items():
        _collect(handlers, str(group), found, seen)
    return found


def _collect(
    handlers: Sequence[BaseHandler[Any, Any, Any]], path: str, found: dict[str, Handler], seen: set[int]
) -> None:
    conversations = (handler for handler in handlers if isinstance(handler, ConversationHandler))
    for number, handler in enumerate(conversations):
        if id(handler) in seen:
            continue
        seen.add(id(handler))
        name = handler.name if handler.persistent and handler.name else f"{path}/{number}"
        found[name] = handler
        inner = [*handler.entry_points, *chain.from_iterable(handler.states.values()), *handler.fallbacks]
        _collect(inner, name, found, seen)


def places(application: AnyApplication, update: Update) -> list[Place]:
    """The conversations that the update may belong to."""
    found = []
    for name, handler in conversations_of(application).items():
        if (key := _key(handler, update)) is not None:
            found.append(Place(name, handler, key))
    return found


def _key(handler: Handler, update: Update) -> Key | None:
    """PTB's key of the update's conversation; None: it is none for this handler."""
    query = update.callback_query
    if update.channel_post or update.edited_channel_post or (query and handler.per_chat and not query.message):
        return None
    try:
        return handler._get_key(update)  # noqa: SLF001
    except RuntimeError:  # the update has no chat, user or message, and the key needs one
        return None


def put(
    places: Sequence[Place], stored: Sequence[bytes | None], job_of: Callable[[str], Any], pickler: Pickler
) -> None:
    """Gives the caller's run what is stored at these places. job_of: finds the job of a timeout by its id."""
    for place, packed in zip(places, stored, strict=True):
        states, timeouts = _dicts(place.handler)
        if packed is not None:
            state, job = pickler.loads(packed, place.field)
            if state is not None:
                states[place.key] = state
            if job is not None:
                timeouts[place.key] = job_of(job)


def changes(
    places: Sequence[Place], stored: Sequence[bytes | None], pickler: Pickler, run: Locals, key: str
) -> Iterator[Change]:
    """What is to be stored at these places. Raises StateError if a state does not pickle."""
    for place, before in zip(places, stored, strict=True):
        packed = _packed(place, pickler, run)
        if packed != before:
            yield Change(Write(key, place.field, packed, before), _stays(packed))


def _stays(packed: bytes | None) -> Any:
    return lambda holds: packed


def _packed(place: Place, pickler: Pickler, run: Locals) -> bytes | None:
    states, timeouts = _dicts(place.handler)
    state = states.of(run).get(place.key)
    if isinstance(state, PendingState):
        state = _resolved(state)
    if state == ConversationHandler.END:
        state = None
    timeout = timeouts.of(run).get(place.key)
    job = None if timeout is None else timeout.job.id
    return None if state is None and job is None else pickler.dumps((state, job), place.field)


def _resolved(pending: PendingState) -> object:
    """What a handler with `block=False` has made of the state. Its task has ended with the run; one that was cancelled
    has made nothing of it."""
    return pending.old_state if not pending.done() or pending.task.cancelled() else pending.resolve()


def _dicts(handler: Handler) -> tuple[RunLocal[Key, Any], RunLocal[Key, Any]]:
    """The handler's states and timeouts, which are made the runs' own when they are first needed: PTB replaces them
    when it starts."""
    inside: Any = handler
    if not isinstance(inside._conversations, RunLocal):  # noqa: SLF001
        inside._conversations = RunLocal({})  # noqa: SLF001
        inside.timeout_jobs = RunLocal({})
    return inside._conversations, inside.timeout_jobs  # noqa: SLF001
