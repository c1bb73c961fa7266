"""What was measured: of each measure of each entrant the values of all rounds, of which the median counts."""

import statistics
from collections.abc import Sequence


class Book:
    """Measures are called "scenario.measure". Seconds, bytes and messages a second, never in other units."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}
        self.voids: list[str] = []

    def note(self, measure: str, entrant: str, value: float) -> None:
        self._values.setdefault((measure, entrant), []).append(value)

    def void(self, what: str) -> None:
        """A round that means nothing; its values are not here."""
        self.voids.append(what)

    def values(self, measure: str, entrant: str) -> Sequence[float]:
        return self._values.get((measure, entrant), ())

    def median(self, measure: str, entrant: str) -> float | None:
        values = self.values(measure, entrant)
        return statistics.median(values) if values else None

    def spread(self, measure: str, entrant: str) -> float | None:
        """Half the distance from the least to the greatest, as a share of the median."""
        values, middle = self.values(measure, entrant), self.median(measure, entrant)
        return (max(values) - min(values)) / 2 / middle if middle else None

    def ratio(self, measure: str, entrant: str, to: str) -> float | None:
        """Of two entrants' medians."""
        return quotient(self.median(measure, entrant), self.median(measure, to))

    def entrants(self, measure: str) -> list[str]:
        """Those who have it, in the order in which they came."""
        return [entrant for name, entrant in self._values if name == measure]

    def measures(self) -> list[str]:
        """All that were measured, in the order in which they came."""
        return list(dict.fromkeys(measure for measure, _ in self._values))

    def has(self, scenario: str) -> bool:
        return any(measure.partition(".")[0] == scenario for measure, _ in self._values)


def quotient(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def percentile(values: Sequence[float], share: float) -> float:
    """Of at least one value."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def quantile(buckets: dict[float, float], share: float) -> float:
    """Of a Prometheus histogram: bounds, and how many are not above each. Between two it is drawn as a line; what is
    above the last bound is infinite."""
    below, before, total = 0.0, 0.0, buckets[float("inf")]
    for bound, many in sorted(buckets.items()):
        if many >= share * total:
            return below + (share * total - before) / max(1.0, many - before) * (bound - below)
        below, before = bound, many
    return below
