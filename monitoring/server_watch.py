"""Keeps an eye on the queue's server: what it lacks is told in the log when it begins and when it ends."""

import logging
from collections.abc import Callable, Sequence

from queueing.contract import Finding, Front
from queueing.errors import QueueError

_logger = logging.getLogger(__name__)


class ServerWatch:
    """may_speak: whether this process is to log what all that use the server find."""

    def __init__(self, queue: Front, may_speak: Callable[[], bool]) -> None:
        self._queue = queue
        self._may_speak = may_speak
        self._findings: Sequence[Finding] = ()
        self._said: Sequence[Finding] = ()

    @property
    def problem(self) -> str | None:
        """Why the queue cannot work with this server; None if it can."""
        return next((finding.words for finding in self._findings if finding.fatal), None)

    @property
    def warnings(self) -> Sequence[str]:
        """What weakens its promises."""
        return [finding.words for finding in self._findings if not finding.fatal]

    async def look(self) -> None:
        """To be called every few seconds: a failover changes the server, and an operator its settings."""
        try:
            self._findings = await self._queue.check()
        except QueueError:
            self._findings = ()  # the worker tells that it does not answer
            return
        if self._may_speak():
            self._speak()

    def _speak(self) -> None:
        for finding in self._findings:
            if finding not in self._said:
                level = logging.ERROR if finding.fatal else logging.WARNING
                _logger.log(level, "the queue's server: %s", finding.words)
        for finding in self._said:
            if finding not in self._findings:
                _logger.info("the queue's server, not so any more: %s", finding.words)
        self._said = self._findings
