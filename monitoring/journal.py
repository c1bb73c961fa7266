"""The queue's events as log lines: those that an operator wants to read of, not the thousands a second that go well."""

import logging

from queueing.events import (
    Acked,
    Available,
    Buried,
    Claimed,
    ClockJumped,
    Event,
    Fenced,
    Reaped,
    Released,
    Trimmed,
    Unavailable,
)

_GOES_WELL = frozenset((Claimed, Acked))

_logger = logging.getLogger(__name__)


class UpdateJournal:
    """An Observer of the queue of updates. What a handler raised is in the log already, and the server's outage is the
    other queue's to tell."""

    def __call__(self, event: Event, /) -> None:
        match event:
            case Buried(message, reason, error) if message is not None:
                first = error.partition("\n")[0]
                _logger.warning("update %s is now a dead letter: %s (%s)", message.id, first, reason)
            case Buried(None, reason, error):
                _logger.warning("an element of the updates' list is now a dead letter: %s (%s)", error, reason)
            case Reaped(incarnation, recovered) if recovered:
                _logger.warning("process %s is presumed dead; %d of its updates go to others", incarnation, recovered)
            case Trimmed(dropped):
                _logger.warning("%d dead updates are dropped: there were too many, or they were too old", dropped)
            case Fenced(message):
                _logger.warning("update %s was settled too late: another process has taken it over", message.id)


class Journal:
    """An Observer that logs. An outage of the queue's server is two lines, its beginning and its end."""

    def __init__(self) -> None:
        self._away = False

    def __call__(self, event: Event, /) -> None:
        if type(event) in _GOES_WELL:
            return
        match event:
            case Released(message, "unauthorized", error, delay, _):
                pause = "its token worked and is refused now; its messages wait for a person"
                _logger.error("bot %s is paused for %.0f s: %s: %s", message.bot, delay, pause, error)
            case Released(message, reason, error, delay, _) if reason is not None:
                again = f"will be tried again in {delay:.1f} s"
                _logger.info("message %s to chat %s %s: %s (%s)", message.id, message.chat, again, error, reason)
            case Buried():
                _note_burial(event)
            case Reaped():
                _note_death(event)
            case ClockJumped(seconds):
                _logger.warning(
                    "the clock of the queue's server was set by %+.1f s; the queue goes on as before", seconds
                )
            case Trimmed(dropped):
                _logger.warning("%d dead letters are dropped: there were too many, or they were too old", dropped)
            case Fenced(message):
                _logger.warning("message %s was settled too late: another process has taken it over", message.id)
            case Unavailable() | Available():
                self._note_server(event)

    def _note_server(self, event: Unavailable | Available) -> None:
        if isinstance(event, Available):
            _logger.warning("the queue's server answers again, after %.1f s", event.seconds)
        elif not self._away:
            _logger.error("the queue's server does not answer, sending waits for it: %s", event.error)
        self._away = isinstance(event, Unavailable)


def _note_burial(event: Buried) -> None:
    if event.message is None:
        _logger.warning("an element of the list is now a dead letter: %s (%s)", event.error, event.reason)
    elif event.reason == "uncertain":
        _logger.warning("message %s may have been sent, and is held for a person: %s", event.message.id, event.error)
    else:
        _logger.warning("message %s is now a dead letter: %s (%s)", event.message.id, event.error, event.reason)


def _note_death(event: Reaped) -> None:
    others = event.recovered - event.held
    _logger.warning("process %s is presumed dead; %d of its messages go to others", event.incarnation, others)
    if event.held:
        _logger.warning("%d of its messages may have been sent, and are held for a person", event.held)
