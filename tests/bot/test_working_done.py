"""Working… → Done, a thousand times."""

import re

from bot.playground import Playground
from queueing.limits import Rate, RateLimits
from tests.bot.hooked import at_telegram, called, process, run_of
from tests.conftest import wait_until

TIMES, CHATS = 1_000, 50


async def test_a_thousand_edits_hit_the_right_message_within_the_limits_and_no_handler_waits(
    redis_url: str, playground: Playground
) -> None:
    limits = RateLimits(bot=Rate(500), chat=Rate(20))
    async with (
        process(redis_url, playground, sends=False, limits=limits) as one,
        process(redis_url, playground, sends=False, limits=limits) as other,
    ):
        for number in range(TIMES):
            with run_of(f"1:update:{number}") as run:
                working = await one.bot.send_message(1 + number % CHATS, f"Working {number}")
                await other.bot.edit_message_text(f"Done {number}", working.chat_id, working.message_id)
                await one.outbox.flush(run)
        assert called(playground) == []  # all handlers have ended, and the network saw nothing yet
        await one.send.start()
        await other.send.start()
        await wait_until(lambda: len(called(playground)) == 2 * TIMES, "all to arrive", timeout=90)
        await one.send.stop()
        await other.send.stop()
    texts = {(call.chat, call.message_id): call.text for call in called(playground, "sendMessage")}
    edits = called(playground, "editMessageText")
    assert len(texts) == len(edits) == TIMES
    for edit in edits:
        number = re.sub(r"\D", "", texts[edit.chat, edit.message_id])
        assert (at_telegram(playground, edit.message_id, edit.chat) or {})["text"] == f"Done {number}"
