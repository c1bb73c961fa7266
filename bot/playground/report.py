"""A verdict as one plain-text table."""

from __future__ import annotations

from bot.playground.judge import DeliveryVerdict, Finding, Verdict, WindowVerdict


def as_text(verdict: Verdict) -> str:
    """What a person reads first: the outcome, then each count, then the first examples of what is wrong."""
    outcome = "VOID" if verdict.void else "PASS" if verdict.ok else "FAIL"
    lines = [f"{outcome}  {verdict.calls} calls, {verdict.sends} sends, {verdict.taken} taken", ""]
    lines += [f"void: {reason}" for reason in verdict.void]
    lines += _table(_rows(verdict))
    lines += _examples(verdict.delivery)
    return "\n".join(lines) + "\n"


def _rows(verdict: Verdict) -> list[tuple[str, str, str]]:
    delivery = verdict.delivery
    rows = [("judged", "found", "remark"), ("expected", str(delivery.expected), f"by {delivery.basis}")]
    rows.append(("arrived", str(delivery.arrived), ""))
    for name in ("lost", "duplicated", "out_of_order", "unexpected"):
        count = getattr(delivery, name)
        rows.append((name.replace("_", " "), str(count), "WRONG" if count else ""))
    rows.append(("calls during a penalty", str(verdict.calls_during_penalty), ""))
    for window in verdict.windows:
        rows += _window_rows(window)
    rows.append(("timestamp error", f"{verdict.timestamp_error_ms:.1f} ms", "void above 10 ms"))
    return rows


def _window_rows(window: WindowVerdict) -> list[tuple[str, str, str]]:
    name = f"{window.rate} per {window.scope}"
    if not window.keys:
        return [(name, "-", "no arrivals")]
    exceeded = f"WRONG: {window.exceeded} windows exceeded" if window.exceeded else "never exceeded"
    lowest, mean = window.lowest_utilisation, window.mean_utilisation
    used = "-" if lowest is None or mean is None else f"{lowest:.1%} lowest, {mean:.1%} mean"
    return [
        (name, f"worst {window.worst}", f"{exceeded}; {window.arrivals} arrivals, {window.keys} keys"),
        ("  used", used, f"longest gap {window.longest_gap_ms:.0f} ms"),
    ]


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [table[0], "-" * (sum(widths) + 4), *table[1:]]


def _examples(delivery: DeliveryVerdict) -> list[str]:
    lines: list[str] = []
    for name, examples in (
        ("lost", delivery.lost_examples), ("duplicated", delivery.duplicate_examples),
        ("out of order", delivery.disorder_examples), ("unexpected", delivery.unexpected_examples),
    ):  # fmt: skip
        lines += [f"{name}: {_example(finding)}" for finding in examples]
    return ["", *lines] if lines else []


def _example(finding: Finding) -> str:
    text = f"bot {finding.bot} chat {finding.chat} {finding.key!r}"
    if finding.priority:
        text += f" ({finding.priority})"
    if finding.seqs:
        text += " seq " + ", ".join(map(str, finding.seqs))
    if finding.apart_ms:
        text += f", {finding.apart_ms:.1f} ms apart"
    processes = sorted({process for process in finding.processes if process})
    return text + (" from " + ", ".join(processes) if processes else "")
