"""Both queues, driven at random against a model of what they must do (model.py), in a time of the test's own.

The examples are the same each time. HYPOTHESIS_PROFILE=long plays 2,500 of them on each queue, see docs/chaos.md.
"""

import os
from collections.abc import Iterator

import pytest

from tests.queueing.machine_desk import run_machine
from tests.queueing.virtual import RedisWorld, World, stop_time

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = {"redis": 2500 if LONG else 250, "memory": 2500 if LONG else 500}


@pytest.fixture(params=["redis", "memory"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[World]:
    clock = stop_time(monkeypatch)
    world = RedisWorld(clock, redis_url) if request.param == "redis" else World(clock)
    yield world
    world.close()


@pytest.mark.timeout(1800 if LONG else 300)
def test_whatever_happens_the_queue_does_what_the_model_says(world: World, request: pytest.FixtureRequest) -> None:
    run_machine(world, examples=EXAMPLES[request.node.callspec.params["world"]])
