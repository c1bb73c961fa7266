"""The tables of docs/benchmarks.md: which measures each shows, and in which units."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """factor: from the book's unit to that of the title. spread: is shown, too."""

    measure: str
    title: str
    factor: float = 1.0
    digits: int = 0
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """first: the title of the first column. sign: 1 where more is better. ratios: of the first measure, to two of the
    entrants. plotted: there is a picture of it."""

    scenario: str
    title: str
    columns: tuple[Column, ...]
    note: str = ""
    first: str = "entrant"
    sign: int = 1
    ratios: bool = False
    plotted: bool = False


def _drain() -> tuple[Column, ...]:
    return (
        Column("rate", "messages/s", spread=True),
        Column("cpu", "CPU, ms/message", 1e3, 3),
        Column("server_cpu", "server, ms/message", 1e3, 3),
        Column("commands", "commands/message", digits=1),
        Column("bytes", "bytes/message"),
    )


def _wait(scenario: str, title: str, note: str) -> Table:
    columns = (
        Column("p50", "p50, ms", 1e3, 2, spread=True),
        Column("p99", "p99, ms", 1e3, 2),
        Column("rate", "messages/s"),
    )
    return Table(scenario, title, columns, note, sign=-1, plotted=scenario == "idle")


_SLOW = (Column("rate", "messages/s", spread=True), Column("share", "of what is possible, %", 100, 1))

TABLES = (
    Table("drain", "Drain, 0 ms, six processes", _drain(), ratios=True, plotted=True),
    Table(
        "counting",
        "Drain without sending, six processes",
        _drain(),
        "The queue alone: handlers count, and do nothing else. Commands include those in scripts.",
        ratios=True,
        plotted=True,
    ),
    Table("slow6", "Drain, 50 ms, six processes", _SLOW, "60 coroutines can send 1,200 messages a second then."),
    *(
        Table(f"drain{many}", f"Drain, 0 ms, {many} process{'es' * (many > 1)}", _drain()[:3], ratios=True)
        for many in (1, 2, 4)
    ),
    *(
        Table(f"slow{many}", f"Drain, 50 ms, {many} process{'es' * (many > 1)}", _SLOW, f"Possible are {200 * many}/s.")
        for many in (1, 2, 4)
    ),
    _wait("idle", "From enqueue to arrival, at idle", "One message every 20 ms, by one producer, 300 of them a round."),
    _wait("half", "From enqueue to arrival, at half load", "At half the rate of the entrant's own drain."),
    Table(
        "bulk",
        "Enqueue, in bulk",
        _drain()[:3],
        "One producer, the queue's own fastest call; encoding included.",
        ratios=True,
        plotted=True,
    ),
    Table("single", "Enqueue, one by one", _drain()[:3], "One producer, which awaits each call.", ratios=True),
    Table(
        "api",
        "Enqueue, by the HTTP API",
        (Column("one", "messages/s, one a call", spread=True), Column("array", "messages/s, 100 a call", spread=True)),
        "Over 20 connections, to six processes; nothing may leave meanwhile.",
    ),
    Table(
        "memory", "Memory, per waiting bulk message", (Column("bytes", "bytes"),), sign=-1, ratios=True, plotted=True
    ),
    Table(
        "backlog",
        "Backlogs",
        (
            Column("cost", "in all, µs/message", 1e6, 1, spread=True),
            Column("cpu", "CPU, µs/message", 1e6, 1),
            Column("server_cpu", "server, µs/message", 1e6, 1),
        ),
        "Two processes whose handlers count, in turns of 1,000 messages, after which as many come anew.",
        first="backlog",
        sign=-1,
        plotted=True,
    ),
    Table(
        "webhook",
        "Webhook, 500 updates a second",
        (
            Column("rate", "updates/s"),
            Column("p50", "own time, p50, ms", 1e3, 2, spread=True),
            Column("p99", "p99, ms", 1e3, 2),
            Column("answer50", "answer, p50, ms", 1e3, 2),
            Column("answer99", "p99, ms", 1e3, 2),
            Column("cpu", "CPU, ms/update", 1e3, 3),
        ),
        "Each is stored, handled, answered with a message. Own time is the metric `webhook_seconds`: from the headers "
        "to the answer. The other is the client's, from the writing of the request.",
    ),
    Table(
        "limits",
        "Waiting for the limits",
        (
            Column("rate", "messages/s", digits=1, spread=True),
            Column("cpu", "CPU, % of a core", 100, 2),
            Column("server_cpu", "server, % of a core", 100, 2),
        ),
        "A backlog for 1,000 chats at the default limits, 30 a second.",
    ),
    Table(
        "rest",
        "At rest",
        (Column("cpu", "CPU, % of a core", 100, 2, spread=True), Column("server_cpu", "server, % of a core", 100, 2)),
        "Six processes, an empty queue, 20 s.",
    ),
    Table(
        "start",
        "Start",
        (Column("first", "first message, s", digits=2, spread=True), Column("all", "all six ready, s", digits=2)),
        "From the start of gunicorn; a message was waiting.",
    ),
)
