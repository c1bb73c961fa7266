"""Which names of chats mean the same, within one process."""

ALIASES_MOST = 100_000
"""Names that are known; beyond, the oldest are forgotten. They would be learnt again by their next message."""


class Aliases:
    """Names of lanes ("bot:chat"), each with the one that it stands for. The newest word wins."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def lane(self, bot: str, chat: str) -> str:
        """The name of the lane of a chat, whatever it is called."""
        return self.resolve(f"{bot}:{chat}")

    def resolve(self, name: str) -> str:
        return self.known.get(name, name)

    def learn(self, name: str, other: str) -> str | None:
        """From now on the one stands for the other. → the lane that the first one's becomes a part of; None: it was
        known, or is the same name."""
        into = self.resolve(other)
        if into == name:
            into = other  # it was told the opposite before
        if name == into or self.known.get(name) == into:
            return None
        self.known.pop(into, None)
        # No chains: with a chat stand its other names.
        for alias, meant in self.known.items():
            if meant == name:
                self.known[alias] = into
        self.known[name] = into
        if len(self.known) > ALIASES_MOST:
            del self.known[next(iter(self.known))]
        return into
