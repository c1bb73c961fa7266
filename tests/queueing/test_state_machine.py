"""Both queues, driven at random against a model of what they must do (model.py), in a time of the test's own."""

import os
from collections.abc import Iterator

import pytest

from tests.queueing.machine_desk import run_machine
from tests.queueing.virtual import RedisWorld, World, stop_time

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))


@pytest.fixture(params=["redis", "memory"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[World]:
    clock = stop_time(monkeypatch)
    world = RedisWorld(clock, redis_url) if request.param == "redis" else World(clock)
    yield world
    world.close()


def test_whatever_happens_the_queue_does_what_the_model_says(world: World) -> None:
    run_machine(world, examples=EXAMPLES)
