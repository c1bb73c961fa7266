"""Leases on their way from the worker's puller to its coroutines."""

import asyncio

import pytest

from queueing.contract import Lease
from queueing.grants import Grants
from queueing.message import Message
from queueing.tasks import end

LEASES = [Lease(str(n), f"1:{n}", Message(bot="1", chat=str(n), body={})) for n in range(4)]


@pytest.fixture
async def grants() -> Grants:
    return Grants(asyncio.get_running_loop())


async def test_who_asked_first_gets_the_first(grants: Grants) -> None:
    asking = [asyncio.create_task(grants.get()) for _ in LEASES]
    await asyncio.sleep(0)
    for lease in LEASES:
        grants.put(lease)
    assert await asyncio.gather(*asking) == LEASES


async def test_what_came_before_anybody_asked_waits(grants: Grants) -> None:
    for lease in LEASES:
        grants.put(lease)
    assert [await grants.get() for _ in LEASES] == LEASES


async def test_one_that_was_ended_gets_none(grants: Grants) -> None:
    ended, asking = asyncio.create_task(grants.get()), asyncio.create_task(grants.get())
    await asyncio.sleep(0)
    await end(ended)
    grants.put(LEASES[0])
    assert await asking is LEASES[0]
