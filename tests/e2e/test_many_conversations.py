"""Many conversations at once, on six processes: nothing lost, repeated, out of order, or about the wrong message."""

from collections import defaultdict
from typing import Any

from tests.conftest import wait_until
from tests.e2e.conftest import Stack
from tests.e2e.talk import Talk

CHATS, STEPS = 200, 6


async def calls_by_chat(stack: Stack) -> dict[int, list[Any]]:
    found = await stack.get("/playground/ledger?limit=100000", stack.telegram)
    calls = defaultdict(list)
    for call in found["calls"]:
        if call["taken"] and call["method"] in ("sendMessage", "editMessageText"):
            calls[call["chat"]].append(call)
    return calls


async def said(stack: Stack, many: int) -> None:
    async def all_there() -> bool:
        return sum(map(len, (await calls_by_chat(stack)).values())) >= many

    await wait_until(all_there, f"the bot said {many} things", timeout=90)
    await stack.drained()


async def post(stack: Stack, deeds: list[dict[str, Any]]) -> None:
    await stack.send("POST", "/playground/updates", deeds, stack.telegram)


async def test_200_chats_hold_a_conversation_of_six_steps_at_once(stack: Stack) -> None:
    await stack.start_bot(BOT_APP="tests.e2e.bots.steps:setup", SEND_TIMEOUT="10s")
    words = ["/start", *(f"w{number}" for number in range(1, STEPS + 1))]
    await post(stack, [{"chat": chat, "text": word} for word in words for chat in range(1, CHATS + 1)])
    await said(stack, CHATS * (STEPS + 1))
    calls = await calls_by_chat(stack)
    expected = ["step 0", *(f"step {number}: {' '.join(words[1 : number + 1])}" for number in range(1, STEPS + 1))]
    for chat in range(1, CHATS + 1):
        assert [call["text"] for call in calls[chat]] == expected, chat
    handled = [process["sent"] for process in (await stack.queue())["updates"]["processes"]]
    assert len(handled) == 6
    assert all(handled), f"every process handled some: {handled}"


async def test_working_becomes_done_a_thousand_times_within_the_limits(stack: Stack) -> None:
    await stack.start_bot(
        BOT_APP="tests.e2e.bots.working:setup", RATE_GLOBAL="400/1s", RATE_CHAT="1/1s", SEND_TIMEOUT="10s"
    )
    chats, each = 250, 4
    await post(stack, [{"chat": chat, "text": f"job {n}"} for n in range(each) for chat in range(1, chats + 1)])
    await said(stack, 2 * chats * each)
    calls = await calls_by_chat(stack)
    for chat in range(1, chats + 1):
        texts = [call["text"] for call in calls[chat]]
        assert texts == [text for n in range(each) for text in (f"Working on job {n} …", f"Done: job {n}")], chat
        for sent, edit in zip(calls[chat][::2], calls[chat][1::2], strict=True):
            assert edit["target_message_id"] == sent["message_id"], chat
    talk = Talk(stack, chats + 1)
    await talk.say("/longest")
    await talk.hears(r"0\.\d+")
    longest = float((await calls_by_chat(stack))[chats + 1][0]["text"])
    assert longest < 0.9, "an edit leaves a second after its message: no handler waited for that"
