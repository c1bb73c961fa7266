"""Which updates were handled, where that is done within one process: Telegram may deliver one twice, and while it is
still being handled. With Redis the inbox knows (queueing/inbox.py)."""

from queueing.inbox import Standing

_MOST = 100_000
"""Updates that a process remembers: about 10 MB."""


class UpdateLog:
    """The newest 100,000 updates of one bot."""

    def __init__(self) -> None:
        self._handling: set[int] = set()
        self._done: dict[int, None] = {}

    def begin(self, update_id: int) -> Standing:
        """Takes the update, if nobody has it."""
        if update_id in self._handling:
            return Standing.HANDLING
        if update_id in self._done:
            return Standing.DONE
        self._handling.add(update_id)
        return Standing.NEW

    def end(self, update_id: int, *, done: bool) -> None:
        """The update was handled, and everything that came of it is safe; or it was not, and may be given again."""
        self._handling.discard(update_id)
        if not done:
            return
        self._done[update_id] = None
        if len(self._done) > _MOST:
            del self._done[next(iter(self._done))]
