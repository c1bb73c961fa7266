"""Messages of which nobody knows whether they were delivered, held for a person (rule 12, G8): on both queues."""

from queueing.message import MessageState
from queueing.retry import Hold, Scope
from tests.queueing.both import StartAny, make_queue, start
from tests.queueing.desk import drained, message, settle, state

__all__ = ["make_queue", "start"]

DOUBT = Hold("no answer within 10 s", Scope.RECEIVER)


async def test_rule_12_a_held_message_leaves_its_lane_which_goes_on(start: StartAny) -> None:
    queue = await start()
    await queue.enqueue([message("a"), message("b")])
    (lease,) = (await queue.claim(1)).leases
    claim = await settle(queue, [lease], DOUBT, want=1)
    assert [lease.message.id for lease in claim.leases] == ["b"]
    assert await state(queue, "a") is MessageState.UNCERTAIN
    letter = await queue.dead_letter("a")
    assert letter
    assert (letter.reason, letter.error) == ("uncertain", "no answer within 10 s")


async def test_rule_12_sending_a_held_message_later_is_a_replay(start: StartAny) -> None:
    queue = await start()
    await queue.enqueue([message("a")])
    await settle(queue, (await queue.claim(1)).leases, DOUBT)
    assert await queue.redrive(["a"]) == 1
    assert await state(queue, "a") is MessageState.PENDING
    assert await drained(queue) == ["a"]


async def test_in_an_outage_too_it_is_held(start: StartAny) -> None:
    queue = await start()
    await queue.enqueue([message(str(chat), chat) for chat in range(5)])
    await settle(queue, (await queue.claim(4)).leases, DOUBT)
    assert {letter.reason for letter in await queue.dead_letters()} == {"uncertain"}
    assert not (await queue.claim(1)).leases, "three chats in a row are an outage"
