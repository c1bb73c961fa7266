"""What can go wrong. One base; the docstring of a class is its message, details are attributes."""


class QueueError(Exception):
    """The queue could not do what was asked."""

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip()


class QueueUnavailable(QueueError):
    """The queue's server does not answer; what was asked may or may not have been done."""


class QueueFull(QueueError):
    """As many messages wait as the queue takes; try again later."""


class MalformedMessage(QueueError):
    """This cannot be a message."""
