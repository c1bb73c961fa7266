"""deploy/: what stands in it fits the code."""

import re

from bot.queues import _UNSENT
from tests.bot.served import ROOT


def test_the_systemd_unit_lets_a_stop_write_down_what_is_unsent() -> None:
    unit = (ROOT / "deploy" / "telequeue.service").read_text()
    found = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert found["ProtectSystem"] == "strict"  # or nobody need be let
    kept_in = f"{found['WorkingDirectory']}/{_UNSENT.parts[0]}"
    assert found["ReadWritePaths"] == kept_in
    assert found["ExecStartPre"].endswith(kept_in)
