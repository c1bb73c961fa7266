"""`telequeue bench`, with all that it starts."""

import json
import os
import subprocess
import sys
from pathlib import Path


def bench(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory)} | environ
    command = [str(Path(sys.executable).with_name("telequeue")), "bench", *arguments]
    return subprocess.run(command, cwd=directory, env=given, capture_output=True, text=True, timeout=100, check=False)


def test_bench_sends_all_that_it_was_told_to_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environ = {"WEB_CONCURRENCY": "2", "QUEUE_WORKERS": "3"}
    # What is set up here is not what is measured.
    environ |= {"REDIS_URL": "redis://127.0.0.1:1/0", "TELEGRAM_API_URL": "http://127.0.0.1:1", "RATE_GLOBAL": "1/1h"}
    ended = bench(tmp_path, "--messages", "200", "--json", **environ)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["messages"], told["processes"], told["workers"]) == (200, 2, 3)
    assert told["rate"] > 0
    assert told["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_bench_of_no_messages_is_a_wrong_usage(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--messages", "0")
    assert ended.returncode == 2
    assert "--messages" in ended.stderr
