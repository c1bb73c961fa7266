"""Messages at hand: what a process took for the coroutines that end next, so that they need not wait for the queue."""

import time
from collections import deque

from queueing.contract import Lease

MOST = 2
"""Messages. In the time of a call, of coroutines that do not end together, seldom more end than that."""

_KEPT_FOR = 0.2
"""Seconds after which a message that no coroutine came for goes back. One of a limited chat is too old after 0.5."""

_TIMES_A_CALL = 10, 400
"""Where attempts take fewer times what a call to the queue takes, many end within one, and their successors come
together with the next. Where they take more, a call is next to nothing; so it is to a queue within the process."""

_WEIGHT = 1 / 8
"""Of the last attempt, and call, among those before."""


class AtHand:
    """The leases that no coroutine has begun, in order, and how many there may be, `most` at most. Each is one more
    that is uncertain if the process dies, so there are some only where they save time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._leases: deque[tuple[Lease, float]] = deque()
        self._attempt = self._call = 0.0

    def __len__(self) -> int:
        return len(self._leases)

    def note_attempt(self, seconds: float) -> None:
        self._attempt += (seconds - self._attempt) * _WEIGHT

    def note_call(self, seconds: float) -> None:
        self._call += (seconds - self._call) * _WEIGHT

    @property
    def room(self) -> int:
        """How many more may be asked for."""
        least, most = (times * self._call for times in _TIMES_A_CALL)
        pays = least <= self._attempt <= min(most, _KEPT_FOR)
        return max(0, self._most - len(self._leases)) if pays else 0

    @property
    def seconds_left(self) -> float:
        """Until the first one goes back."""
        return self._leases[0][1] + _KEPT_FOR - time.monotonic()

    def put(self, lease: Lease) -> None:
        self._leases.append((lease, time.monotonic()))

    def take(self) -> Lease:
        return self._leases.popleft()[0]

    def give_up(self) -> list[Lease]:
        """All of them."""
        given_up = [lease for lease, _ in self._leases]
        self._leases.clear()
        return given_up

    def give_up_old(self) -> list[Lease]:
        """Those for which no coroutine came. They all hang, so nothing more is taken for them until some were quick."""
        given_up = []
        while self._leases and self.seconds_left <= 0:
            self._attempt = 5 * _KEPT_FOR
            given_up.append(self.take())
        return given_up
