"""A plugin of pytest: writes what became of each test into the file that PTB_SUITE_OUTCOMES names."""

import json
import os
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test is what its worst part is: it counts as passed only if set-up and tear-down did."""
    outcome = "xfailed" if hasattr(report, "wasxfail") and report.outcome == "skipped" else report.outcome
    if report.when == "call" or outcome != "passed":
        _outcomes[report.nodeid] = outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["PTB_SUITE_OUTCOMES"]).write_text(json.dumps(_outcomes))
