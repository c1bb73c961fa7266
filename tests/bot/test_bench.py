"""`telequeue bench`, with all that it starts."""

import json
import os
import signal
import subprocess
import sys
import time
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


def test_bench_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("telequeue")), "bench", "--messages", "200000"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "WEB_CONCURRENCY": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as it:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("telequeue-bench-*/server.log")):  # its server has begun
            assert time.monotonic() < deadline
            time.sleep(0.01)
        it.terminate()
        assert it.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_bench_of_no_messages_is_a_wrong_usage(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--messages", "0")
    assert ended.returncode == 2
    assert "--messages" in ended.stderr
