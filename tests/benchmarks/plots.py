"""The pictures of docs/benchmarks.md."""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

from tests.benchmarks.book import Book
from tests.benchmarks.entrants import TELEQUEUE
from tests.benchmarks.tables import TABLES, Table

_OURS, _OTHERS = "#1b7f5c", "#9aa5b1"


def draw(book: Book, directory: Path) -> None:
    """A bar chart of the first column of each table that is to be plotted, as small files."""
    for table in TABLES:
        if table.plotted and book.entrants(f"{table.scenario}.{table.columns[0].measure}"):
            _bars(book, table, directory / f"{table.scenario}.png")


def _bars(book: Book, table: Table, path: Path) -> None:
    column = table.columns[0]
    measure = f"{table.scenario}.{column.measure}"
    values = {name: (book.median(measure, name) or 0.0) * column.factor for name in book.entrants(measure)}
    names = sorted(values, key=lambda name: table.sign * values[name])
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.3 * len(names)))
    colours = [_OURS if name == TELEQUEUE.name or table.first == "backlog" else _OTHERS for name in names]
    bars = axes.barh(names, [values[name] for name in names], color=colours)
    axes.bar_label(bars, [f" {values[name]:,.{column.digits}f}" for name in names], fontsize=8)
    axes.set_title(f"{table.title}: {column.title}", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
