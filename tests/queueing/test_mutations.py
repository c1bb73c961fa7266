"""The state machine would notice: three ways to break the queue, as patches, each of which must make it fail.

A patch holds the fault for both queues. It is applied by what its lines say, not by their numbers, to a copy of
queueing/, so that it goes on to apply while the files around it change.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Server

ROOT = Path(__file__).parents[2]
PATCHES = ROOT / "tests" / "mutations"

# → what the machine may say: the first words of the properties that break. Which breaks first is up to the examples.
MUTATIONS = {
    # The latter two where a counter goes below nought, and order where what was in flight comes back.
    "lane-released-twice": ("one in flight", "order", "idle", "nothing lost"),
    "limit-checked-after-it-is-written": ("idle", "nothing lost"),
    # The latter because what was tried is noted of the head, and holds up another than it should.
    "retry-put-at-the-tail": ("order", "attempts", "backoff", "status", "priority"),
}

RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import pytest, queueing
assert queueing.__file__.startswith(sys.argv[1]), queueing.__file__
from tests.queueing.machine_desk import run_machine
from tests.queueing.virtual import RedisWorld, World, stop_time
clock = stop_time(pytest.MonkeyPatch())
world = RedisWorld(clock, sys.argv[3]) if sys.argv[2] == "redis" else World(clock)
try:
    run_machine(world, examples=300, shrink=False)
finally:
    world.close()
"""


def patched(name: str, to: Path) -> None:
    """A copy of queueing/ with the patch. Fails if the patch does not fit any more."""
    shutil.copytree(ROOT / "queueing", to / "queueing", ignore=shutil.ignore_patterns("__pycache__"))
    path = to
    for part in re.split(r"^(?=\+\+\+ b/|@@ )", (PATCHES / f"{name}.patch").read_text(), flags=re.MULTILINE):
        if part.startswith("+++ b/"):
            path = to / part.splitlines()[0].removeprefix("+++ b/")
        elif part.startswith("@@ "):
            lines = [line for line in part.splitlines(keepends=True)[1:] if line[0] in " +-"]
            lines = lines[: next((i for i, line in enumerate(lines) if line.startswith("--- a/")), len(lines))]
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            text = path.read_text()
            assert text.count(before) == 1, f"{name}.patch does not fit {path.name} any more: make it anew"
            path.write_text(text.replace(before, after))


def test_every_patch_is_tried() -> None:
    assert {path.stem for path in PATCHES.iterdir()} == set(MUTATIONS)


@pytest.mark.parametrize("backend", ["redis", "memory"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_machine_notices(name: str, backend: str, tmp_path: Path, shared_server: Server) -> None:
    patched(name, tmp_path)
    command = [sys.executable, "-c", RUN, str(tmp_path), backend, shared_server.url]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert ran.returncode, f"{name} survived on {backend}"
    said = re.findall(r"^AssertionError: (.*)$", ran.stderr, re.MULTILINE)
    assert said, ran.stderr
    assert any(words.startswith(MUTATIONS[name]) for words in said), said
