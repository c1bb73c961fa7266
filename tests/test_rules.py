"""Each of the rules that settle the hard cases, 1 to 22, has a test named after it: `test_rule_N_…`."""

import re
from pathlib import Path

RULES = range(1, 23)
_NAMED = re.compile(r"^(?:async )?def test_rule_(\d+)_", re.MULTILINE)


def test_every_rule_has_a_test_of_its_name() -> None:
    texts = [path.read_text() for path in Path(__file__).parent.rglob("test_*.py")]
    named = {int(number) for text in texts for number in _NAMED.findall(text)}
    assert set(RULES) - named == set(), "no test carries the number of these rules"
