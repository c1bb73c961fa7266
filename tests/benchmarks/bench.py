"""What the scenarios are given, and how they take turns."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.benchmarks.book import Book
from tests.benchmarks.entrants import Entrant
from tests.benchmarks.place import Crew, Place, Void

PROCESSES = 6


@dataclass
class Bench:
    """rounds: of each entrant. seconds: that a round is to last, about. sizes: messages of a round that lasts so long,
    by scenario and entrant, once it is known."""

    place: Place
    entrants: Sequence[Entrant]
    rounds: int
    seconds: float
    quick: bool
    book: Book = field(default_factory=Book)
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)

    def take_turns(self, name: str, entrants: Sequence[Entrant], turn: Callable[[Entrant], None]) -> None:
        """Round after round, so that what else the machine does hits all; each round begins with another."""
        for number in range(self.rounds):
            first = number % max(1, len(entrants))
            for entrant in (*entrants[first:], *entrants[:first]):
                with self.judged(f"{name}, {entrant.name}, round {number + 1}"):
                    turn(entrant)

    @contextmanager
    def judged(self, what: str) -> Iterator[None]:
        """A round that is void says so, and leaves nothing behind. Whoever was void is still given the next."""
        self.at = what
        try:
            yield
        except Void as error:
            self.book.void(f"{what}: {error}")
            self.say(f"VOID: {error}")
        finally:
            self.place.forget()
            self.place.tally.delay = 0.0

    def say(self, text: str) -> None:
        print(f"  {self.at:<60} {text}", flush=True)

    def crew(self, entrant: Entrant, processes: int = PROCESSES, **environ: str) -> Crew:
        return Crew(self.place, entrant, processes, **environ)

    def chosen(self, *names: str) -> list[Entrant]:
        """Those of these names that take part."""
        return [entrant for entrant in self.entrants if entrant.name in names]
