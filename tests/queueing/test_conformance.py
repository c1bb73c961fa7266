"""What both queues must do alike. Each test runs on Redis (real Valkey), on a cluster of it, and in process."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from queueing.contract import Claim, Lease, Queue, Settlement
from queueing.errors import MalformedMessage, QueueFull
from queueing.memory_queue import MemoryQueue
from queueing.message import Message, MessageState
from queueing.redis_queue import RedisQueue
from queueing.retry import Ack, Bury, Release
from tests.conftest import wait_until

MakeQueue = Callable[..., Queue]


@pytest.fixture(params=["redis_url", "cluster_url", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    """Of the server; empty for the queue in process."""
    return "" if request.param == "memory" else str(request.getfixturevalue(request.param))


@pytest.fixture
async def make_queue(url: str) -> AsyncIterator[MakeQueue]:
    made: list[Queue] = []

    def make(**options: int) -> Queue:
        queue: Queue = RedisQueue(url, **options) if url else MemoryQueue(**options)
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.close()


@pytest.fixture
async def queue(make_queue: MakeQueue) -> Queue:
    queue = make_queue()
    await queue.start()
    return queue


def message(n: int = 1, chat: str = "42", **fields: object) -> Message:
    return Message(bot="123", chat=chat, body={"text": f"{chat}-{n}"}, **fields)  # type: ignore[arg-type]


def texts(claim: Claim) -> list[str]:
    return [lease.message.body["text"] for lease in claim.leases]


async def only_lease(queue: Queue) -> Lease:
    claim = await queue.claim(10)
    assert len(claim.leases) == 1
    return claim.leases[0]


async def settle(queue: Queue, lease: Lease, decision: Ack | Release | Bury, want: int = 0) -> Claim:
    return await queue.claim(want, [Settlement(lease, decision)])


async def test_enqueue_then_claim_brings_the_message_as_it_was(queue: Queue) -> None:
    body = {
        "text": "hé \U0001f600 \u2028",
        "kwargs": {"reply_markup": {"a": [1, None, True, 1.5]}},
        "method": "sendMessage",
    }
    sent = Message(bot="123", chat="-100123456789012", body=body, track=True, max_attempts=7)
    await queue.enqueue([sent])
    lease = await only_lease(queue)
    assert lease.message.accepted is not None
    assert (lease.message.bot, lease.message.chat, lease.message.body) == (sent.bot, sent.chat, sent.body)
    assert (lease.message.id, lease.message.track, lease.message.max_attempts) == (sent.id, True, 7)
    assert (lease.attempts, lease.takeovers) == (0, 0)


async def test_claim_of_an_empty_queue_brings_nothing(queue: Queue) -> None:
    claim = await queue.claim(10)
    assert not claim.leases
    assert claim.next_due is None
    assert not claim.more


async def test_claim_brings_no_more_than_wanted(queue: Queue) -> None:
    await queue.enqueue([message(chat=str(chat)) for chat in range(5)])
    first = await queue.claim(2)
    second = await queue.claim(10, held=first.leases)
    assert [len(first.leases), len(second.leases)] == [2, 3]
    assert not (await queue.claim(0, held=[*first.leases, *second.leases])).leases


async def test_one_of_a_lane_is_in_flight_and_order_holds(queue: Queue) -> None:
    await queue.enqueue([message(n) for n in range(3)])
    seen = []
    lease = await only_lease(queue)
    for _ in range(3):
        assert not (await queue.claim(10, held=[lease])).leases, "a second of the same chat while one is in flight"
        seen.append(lease.message.body["text"])
        claim = await settle(queue, lease, Ack(), want=10)
        if claim.leases:
            lease = claim.leases[0]
    assert seen == ["42-0", "42-1", "42-2"]


async def test_rule_11_chats_take_turns(queue: Queue) -> None:
    await queue.enqueue([message(n, chat) for chat in ("1", "2") for n in range(3)])
    seen = []
    claim = await queue.claim(1)
    while claim.leases:
        seen += texts(claim)
        # Turns are ordered by the server's milliseconds.
        await asyncio.sleep(0.002)
        claim = await settle(queue, claim.leases[0], Ack(), want=1)
    assert seen == ["1-0", "2-0", "1-1", "2-1", "1-2", "2-2"]


async def test_the_same_chat_of_two_bots_is_two_lanes(queue: Queue) -> None:
    await queue.enqueue([Message(bot=bot, chat="42", body={"text": bot}) for bot in ("1", "2")])
    assert sorted(texts(await queue.claim(10))) == ["1", "2"]


async def test_release_keeps_the_head_in_its_place_and_holds_its_own_chat_only(queue: Queue) -> None:
    await queue.enqueue([message(1), message(2), message(1, "43")])
    claim = await queue.claim(10)
    first = next(lease for lease in claim.leases if lease.message.chat == "42")
    quick = next(lease for lease in claim.leases if lease.message.chat == "43")
    after = await queue.claim(
        10, [Settlement(first, Release(0.2, "network", "refused", counts=True)), Settlement(quick, Ack())]
    )
    assert not after.leases
    assert after.next_due == pytest.approx(0.2, abs=0.1)
    await queue.enqueue([message(2, "43")])
    other = await queue.claim(10)
    assert texts(other) == ["43-2"], "another chat is not held up"
    while not (again := await queue.claim(10, held=other.leases)).leases:
        await queue.wait(again.next_due or 0.05)
    assert texts(again) == ["42-1"]
    assert again.leases[0].attempts == 1


async def test_release_that_tried_nothing_costs_nothing(queue: Queue) -> None:
    await queue.enqueue([message()])
    claim = await settle(queue, await only_lease(queue), Release(), want=1)
    assert texts(claim) == ["42-1"]
    assert claim.leases[0].attempts == 0


async def test_release_for_a_flood_costs_no_attempt(queue: Queue) -> None:
    await queue.enqueue([message()])
    claim = await settle(queue, await only_lease(queue), Release(0, "flood", "retry after 0"), want=1)
    assert claim.leases[0].attempts == 0


async def test_bury_moves_it_to_the_dead_letters_and_the_lane_goes_on(queue: Queue) -> None:
    await queue.enqueue([message(1, track=True), message(2)])
    lease = await only_lease(queue)
    claim = await settle(queue, lease, Release(0, "network", "refused", counts=True), want=1)
    claim = await settle(queue, claim.leases[0], Bury("blocked", "the bot was blocked"), want=1)
    assert texts(claim) == ["42-2"]
    (letter,) = await queue.dead_letters()
    assert (letter.id, letter.reason, letter.error) == (lease.message.id, "blocked", "the bot was blocked")
    assert (letter.bot, letter.chat) == ("123", "42")
    assert '"text":"42-1"' in letter.element
    assert [line["reason"] for line in letter.history] == ["network", "blocked"]
    status = await queue.status(lease.message.id)
    assert status
    assert (status.state, status.error) == (MessageState.DEAD, "the bot was blocked")
    assert (await queue.stats()).dead == 1


async def test_attempts_start_anew_with_the_next_message(queue: Queue) -> None:
    await queue.enqueue([message(1), message(2)])
    claim = await settle(queue, await only_lease(queue), Release(0, "network", "refused", counts=True), want=1)
    claim = await settle(queue, claim.leases[0], Ack(), want=1)
    assert texts(claim) == ["42-2"]
    assert claim.leases[0].attempts == 0


async def test_a_stale_token_changes_nothing(queue: Queue) -> None:
    await queue.enqueue([message(1), message(2)])
    first = await only_lease(queue)
    second = (await settle(queue, first, Ack(), want=1)).leases[0]
    for decision in (Ack(), Release(60), Bury("bug", "stale")):
        claim = await queue.claim(0, [Settlement(first, decision)], held=[second])
        assert list(claim.stale) == [first.token]
    assert (await queue.stats()).dead == 0
    assert not (await queue.claim(0, [Settlement(second, Ack())])).stale


async def test_rule_1_a_lease_the_process_does_not_know_of_goes_back_to_the_head(queue: Queue) -> None:
    await queue.enqueue([message(1), message(2)])
    await only_lease(queue)
    again = await queue.claim(10)  # holds nothing, by its own account
    assert texts(again) == ["42-1"]
    assert (again.leases[0].attempts, again.leases[0].takeovers) == (0, 0)


async def test_a_token_that_is_not_ours_is_reported_lost(queue: Queue) -> None:
    await queue.enqueue([message()])
    lease = await only_lease(queue)
    await settle(queue, lease, Ack())
    assert list((await queue.claim(0, held=[lease])).lost) == [lease.token]


async def test_status_follows_a_tracked_message(queue: Queue) -> None:
    tracked = message(track=True)
    await queue.enqueue([tracked])

    async def state() -> MessageState:
        status = await queue.status(tracked.id)
        assert status
        return status.state

    assert await state() is MessageState.PENDING
    lease = await only_lease(queue)
    assert await state() is MessageState.SENDING
    claim = await settle(queue, lease, Release(0.05, "network", "refused", counts=True))
    assert await state() is MessageState.RETRYING
    while not claim.leases:
        await queue.wait(0.05)
        claim = await queue.claim(1)
    await settle(queue, claim.leases[0], Ack("77"))
    status = await queue.status(tracked.id)
    assert status
    assert (status.state, status.result, status.attempts) == (MessageState.SENT, "77", 1)
    assert status.created_at <= (status.sent_at or 0)
    assert (status.bot, status.chat) == ("123", "42")


async def test_status_of_an_unknown_or_untracked_message_is_none(queue: Queue) -> None:
    untracked = message()
    await queue.enqueue([untracked])
    assert await queue.status(untracked.id) is None
    assert await queue.status("nobody") is None


async def test_enqueue_takes_a_tracked_id_once(queue: Queue) -> None:
    tracked = message(track=True)
    await queue.enqueue([tracked, tracked])
    await queue.enqueue([tracked])
    lease = await only_lease(queue)
    assert not (await settle(queue, lease, Ack(), want=10)).leases
    await queue.enqueue([tracked])
    assert not (await queue.claim(10)).leases, "not even after it was sent"


async def test_rule_6_enqueue_refuses_when_full_and_takes_all_or_none(make_queue: MakeQueue) -> None:
    queue = make_queue(queue_max=3)
    await queue.start()
    await queue.enqueue([message(1), message(2)])
    with pytest.raises(QueueFull):
        await queue.enqueue([message(3), message(4)])
    assert (await queue.stats()).depth == 2
    lease = await only_lease(queue)
    with pytest.raises(QueueFull):  # what is in lanes or in flight counts too
        await queue.enqueue([message(3), message(4)])
    await settle(queue, lease, Ack())
    await queue.enqueue([message(3), message(4)])
    assert (await queue.stats()).depth == 3


async def test_enqueue_refuses_a_body_that_is_no_json_and_takes_none(queue: Queue) -> None:
    with pytest.raises(MalformedMessage):
        await queue.enqueue([message(1), Message(bot="1", chat="2", body={"text": object()})])
    assert (await queue.stats()).depth == 0


async def test_credentials_are_what_was_registered(queue: Queue) -> None:
    assert list(await queue.credentials("123")) == []
    await queue.register("123", "123:old")
    await queue.register("123", "123:new")
    assert list(await queue.credentials("123")) == ["123:new"]


async def test_wait_returns_when_something_is_enqueued_or_notified(queue: Queue) -> None:
    waiting = asyncio.create_task(queue.wait(30))
    await asyncio.sleep(0)
    await queue.enqueue([message()])
    await asyncio.wait_for(waiting, 10)
    queue.notify()
    await asyncio.wait_for(queue.wait(30), 10)
    await queue.wait(0.01)


async def test_stats_count_every_message_in_one_state(queue: Queue) -> None:
    await queue.enqueue([message(n, chat) for chat in ("1", "2", "3") for n in range(4)])
    claim = await queue.claim(3)
    for_later = next(lease for lease in claim.leases if lease.message.chat == "1")
    dead = next(lease for lease in claim.leases if lease.message.chat == "2")
    inflight = next(lease for lease in claim.leases if lease.message.chat == "3")
    await queue.claim(
        0, [Settlement(for_later, Release(60, "network", "refused")), Settlement(dead, Bury("bug", "x"))], [inflight]
    )
    stats = await queue.stats()
    assert (stats.ready, stats.waiting, stats.inflight, stats.dead) == (3 + 3, 4, 1, 1)
    assert stats.depth == 11
    assert stats.oldest_age is not None
    assert (len(stats.processes), stats.processes[0].inflight) == (1, 1)


async def test_stats_count_what_was_processed(queue: Queue) -> None:
    await queue.enqueue([message()])
    await settle(queue, await only_lease(queue), Ack())
    stats = await queue.stats()
    assert (stats.processed, stats.depth, stats.oldest_age) == (1, 0, None)
    assert stats.processes[0].sent == 1


async def test_a_message_gets_its_parents_results_and_ends_are_told_and_counted(queue: Queue) -> None:
    heard: list[str] = []
    queue.hear_ends(heard.append)
    await queue.enqueue([message(1, id="p1", provisional=True, group="g"), message(2, after=("p1",), group="g")])
    await queue.enqueue([message(3, "43", after=("p1",), also="42")])
    await settle(queue, await only_lease(queue), Ack("17"))
    leases = {lease.message.chat: lease for lease in (await queue.claim(5)).leases}
    assert {chat: dict(lease.message.results) for chat, lease in leases.items()} == {
        "42": {"p1": "17"},
        "43": {"p1": "17"},
    }
    await queue.claim(0, [Settlement(lease, Bury("blocked", "by the user")) for lease in leases.values()])
    assert dict(await queue.group("g")) == {"sent": 1, "dead:blocked": 1}
    await queue.cancel_group("h")
    await queue.enqueue([message(4, group="h"), message(5)])
    claim = await queue.claim(5)
    assert texts(claim) == ["42-5"]
    await settle(queue, claim.leases[0], Ack())

    async def hears() -> bool:
        await queue.enqueue([message(6 + len(heard), awaited=True)])
        await settle(queue, await only_lease(queue), Ack())
        return bool(heard)

    await wait_until(hears, "an end to be told")


async def test_remaining_says_how_long_a_lease_is_surely_ours(queue: Queue) -> None:
    await queue.claim(0)
    assert queue.remaining() > 10
