"""What one process of the machine does for all of them, every so often: see queueing/turns.py."""

from monitoring.health import Moves
from queueing.slots import Slots
from queueing.turns import Duty, Turn


class QueueTurns:
    """look: whether a queue has something that no bell told of. care: for what dead processes held. slots: whatever is
    due at a time."""

    def __init__(self, duty: Duty) -> None:
        self.look, self.care, self.slots = Turn(duty), Turn(duty), Slots()


class Turns:
    """To be made before the fork, and anew for processes that are to have other settings."""

    def __init__(self) -> None:
        duty = Duty()
        self.messages, self.updates = QueueTurns(duty), QueueTurns(duty)
        self.election, self.spreading, self.looking_after = Turn(duty), Turn(duty), Turn(duty)
        self.handover, self.watch = Turn(duty), Turn(duty)
        self.moves = {"redis": Moves(), "updates": Moves()}
