"""The sender against the stand-in, and against servers that misbehave: which outcome, which token, which chat."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from bot import sender as sender_module
from bot.playground import Playground
from bot.playground.faults import Fault
from bot.playground.ledger import Call
from bot.sender import Sender
from bot.transport import AiohttpRequest
from queueing.errors import QueueUnavailable
from queueing.memory_queue import MemoryQueue
from queueing.message import Message
from queueing.retry import Moved, Outcome, Rejected, RetryLater, Sent, Unsent
from tests.bot.raw_server import Move, RawServer, answer, disconnect, hang, ok, refuse

BOT = "110201543"
TOKEN = f"{BOT}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
ROTATED = f"{BOT}:AAHrotatedCH1vGWJxfSeofSAs0K5PALDsaw"
Eventually = Callable[..., Awaitable[None]]
UNAUTHORIZED = refuse(401, "Unauthorized")


class Stored:
    """Tokens as a queue keeps them: the registered one first, then the newest that came with a message."""

    def __init__(self, *tokens: str, away: bool = False) -> None:
        self.tokens = list(tokens)
        self.away = away
        self.registered: list[str] = []
        self.asked = 0

    async def credentials(self, bot: str) -> Sequence[str]:
        self.asked += 1
        if self.away:
            raise QueueUnavailable
        return list(self.tokens)

    async def register(self, bot: str, credential: str) -> None:
        if self.away:
            raise QueueUnavailable
        self.registered.append(credential)

    async def proven(self, bot: str) -> bool:
        return bool(self.registered)


@pytest.fixture
async def request_() -> AsyncIterator[AiohttpRequest]:
    request = AiohttpRequest(5.0)
    yield request
    await request.shutdown()


@pytest.fixture
async def sender(playground: Playground, request_: AiohttpRequest) -> Sender:
    """A sender to the stand-in, which finds its token in a real queue."""
    queue = MemoryQueue()
    await queue.register(BOT, TOKEN)
    return Sender(queue, api_url=playground.url, send_timeout=5.0, request=request_)


def to(server: RawServer, request: AiohttpRequest, stored: Stored, timeout: float = 5.0) -> Sender:
    return Sender(stored, api_url=server.url, send_timeout=timeout, request=request)


def message(chat: str = "1001", **body: object) -> Message:
    return Message(bot=BOT, chat=chat, body=body or {"text": "hi"})


async def deliver(sender: Sender, message: Message, *, may_write: bool = True) -> Outcome:
    return await sender.deliver(message, lambda: may_write)


def calls(playground: Playground) -> list[Call]:
    return [playground.world.ledger[seq] for seq in range(len(playground.world.ledger))]


def inject(playground: Playground, fault: Fault, chat: int | None = None) -> None:
    playground.world.faults.add(fault, chat)


# --- what is sent


async def test_a_text_arrives_and_its_message_id_is_the_result(sender: Sender, playground: Playground) -> None:
    outcome = await deliver(sender, message(text="hello", kwargs={"parse_mode": "HTML", "disable_notification": True}))
    [call] = calls(playground)
    assert (call.method, call.chat, call.text, call.taken) == ("sendMessage", 1001, "hello", True)
    assert outcome == Sent(str(call.message_id))


async def test_any_method_can_be_called(sender: Sender, playground: Playground) -> None:
    sent = await deliver(sender, message())
    assert isinstance(sent, Sent)
    edit = {"message_id": int(sent.result or 0), "text": "better"}
    assert isinstance(await deliver(sender, message(method="editMessageText", kwargs=edit)), Sent)
    assert await deliver(sender, message(method="sendChatAction", kwargs={"action": "typing"})) == Sent("true")
    assert [call.method for call in calls(playground)] == ["sendMessage", "editMessageText", "sendChatAction"]


async def test_nested_kwargs_are_json(request_: AiohttpRequest) -> None:
    markup = {"inline_keyboard": [[{"text": "a", "url": "https://x"}]]}
    async with RawServer(ok({"message_id": 1})) as server:
        await deliver(to(server, request_, Stored(TOKEN)), message(text="hi", kwargs={"reply_markup": markup}))
        assert server.requests[0].json == {"chat_id": 1001, "text": "hi", "reply_markup": markup}


@pytest.mark.parametrize("name", ["photo", "document"])
async def test_a_string_is_a_string_and_no_file(
    request_: AiohttpRequest, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """PTB's own methods would read the file that it names, and upload it."""
    secret = tmp_path_factory.mktemp("files") / "secret.txt"
    secret.write_text("the secret")
    async with RawServer(ok({"message_id": 1})) as server:
        body = message(method=f"send{name.capitalize()}", kwargs={name: str(secret)})
        await deliver(to(server, request_, Stored(TOKEN)), body)
        assert server.requests[0].json == {"chat_id": 1001, name: str(secret)}


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        ({"message_id": 7, "text": "x"}, "7"),
        ([{"message_id": 7}, {"message_id": 8}], "[7, 8]"),
        (True, "true"),
        ({"url": "https://x"}, '{"url": "https://x"}'),
        ([], "[]"),
        ({"long": "x" * 2000}, None),
    ],
)
async def test_what_is_kept_of_an_answer(request_: AiohttpRequest, result: object, kept: str | None) -> None:
    async with RawServer(ok(result)) as server:
        assert await deliver(to(server, request_, Stored(TOKEN)), message()) == Sent(kept)


@pytest.mark.parametrize(
    "result",
    [
        {"url": f"https://x/bot{TOKEN}/setWebhook", "list": [TOKEN], TOKEN: 1},
        f"{TOKEN} is yours",
        {"message_id": TOKEN},
        [{"message_id": TOKEN}],
    ],
)
async def test_nothing_that_is_kept_of_an_answer_holds_a_token(request_: AiohttpRequest, result: object) -> None:
    async with RawServer(ok(result)) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN)), message())
    assert isinstance(outcome, Sent)
    assert outcome.result is not None
    assert TOKEN.partition(":")[2] not in outcome.result
    assert json.loads(outcome.result)


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413, 418, 429, 500])
async def test_what_telegram_says_is_kept_without_a_token(request_: AiohttpRequest, status: int) -> None:
    async with RawServer(refuse(status, f"No: bot{TOKEN} and {TOKEN}")) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN)), message())
    assert isinstance(outcome, (Rejected, RetryLater))
    assert TOKEN.partition(":")[2] not in outcome.error


# --- what is not


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"kwargs": {}}, "malformed"),
        ({"method": "setWebhook", "kwargs": {"url": "https://x"}}, "forbidden_method"),
        ({"method": "sendDocument", "kwargs": {"document": "file:///etc/passwd"}}, "local_file"),
    ],
)
async def test_a_body_that_is_no_call_is_rejected_unsent(
    sender: Sender, playground: Playground, body: dict[str, object], reason: str
) -> None:
    outcome = await deliver(sender, message(**body))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason
    assert calls(playground) == []


async def test_an_oversized_text_is_rejected_in_telegrams_words(sender: Sender) -> None:
    outcome = await deliver(sender, message(text="x" * 5000))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "bad_request"
    assert "too long" in outcome.error


async def test_rule_2_nothing_is_sent_once_the_lease_has_ended(sender: Sender, playground: Playground) -> None:
    assert await deliver(sender, message(), may_write=False) == Unsent()
    assert calls(playground) == []
    assert isinstance(await deliver(sender, message()), Sent)


@pytest.mark.parametrize(
    ("kind", "reason", "uncertain", "taken"),
    [
        (Fault("reset_before"), "no_answer", True, False),
        (Fault("reset_after"), "no_answer", True, True),
        (Fault("error", code=500), "server_error", False, False),
        (Fault("flood", retry_after=7), "flood", False, False),
        (Fault("unauthorized"), "unauthorized", False, False),
    ],
)
async def test_faults_that_pass(
    sender: Sender, playground: Playground, kind: Fault, reason: str, uncertain: bool, taken: bool
) -> None:
    assert isinstance(await deliver(sender, message("1002")), Sent)
    inject(playground, kind)
    outcome = await deliver(sender, message())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain) == (reason, uncertain)
    assert calls(playground)[-1].taken is taken


async def test_a_flood_says_how_long(sender: Sender, playground: Playground) -> None:
    inject(playground, Fault("flood", retry_after=7))
    outcome = await deliver(sender, message())
    assert isinstance(outcome, RetryLater)
    assert outcome.after == 7


async def test_faults_that_stay(sender: Sender, playground: Playground) -> None:
    inject(playground, Fault("blocked"), 1001)
    inject(playground, Fault("chat_not_found"), 1002)
    reasons = []
    for chat in ("1001", "1002"):
        outcome = await deliver(sender, message(chat))
        assert isinstance(outcome, Rejected)
        reasons.append(outcome.reason)
    assert reasons == ["blocked", "chat_not_found"]


async def test_it_ends_within_its_timeout(request_: AiohttpRequest) -> None:
    async with RawServer(hang) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN), timeout=0.1), message())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain) == ("no_answer", True)


async def test_all_calls_of_a_delivery_share_its_timeout(request_: AiohttpRequest) -> None:
    """A refusal of the first token leaves less time to the second."""

    async def slowly_refuse(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await UNAUTHORIZED(writer)

    async with RawServer(slowly_refuse, hang) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN, ROTATED), timeout=1.5), message())
    assert isinstance(outcome, RetryLater)
    left = re.fullmatch(r"no answer within ([0-9.]+) s", outcome.error)
    assert left
    assert float(left[1]) < 1.3


async def test_a_server_that_is_away_costs_no_doubt(request_: AiohttpRequest) -> None:
    async with RawServer(ok()) as server:
        gone = to(server, request_, Stored(TOKEN))
    outcome = await deliver(gone, message())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain) == ("network", False)


@pytest.mark.parametrize(
    ("move", "reason", "uncertain"),
    [
        (answer(200, "<html>captive portal"), "bad_answer", True),
        (answer(200, '{"ok":true'), "bad_answer", True),
        (answer(404, "<html>no such page"), "bad_answer", False),
        (answer(502, "<html>Bad Gateway"), "server_error", True),
        (refuse(400, 'Bad Request: failed to send message #1 with the error "retry after 9"'), "flood", False),
    ],
)
async def test_answers_of_others(request_: AiohttpRequest, move: Move, reason: str, uncertain: bool) -> None:
    async with RawServer(move) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN)), message())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain) == (reason, uncertain)


async def test_an_edit_that_changes_nothing_is_done(request_: AiohttpRequest) -> None:
    edit = message(method="editMessageText", kwargs={"message_id": 5, "text": "same"})
    async with RawServer(refuse(400, "Bad Request: message is not modified: …")) as server:
        assert await deliver(to(server, request_, Stored(TOKEN)), edit) == Sent("true")


# --- tokens


async def test_a_bot_nobody_knows_is_rejected(request_: AiohttpRequest) -> None:
    stranger = "999:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
    for stored in (Stored(), Stored("no token"), Stored(stranger), Stored(f"{TOKEN}/../x")):
        async with RawServer(ok()) as server:
            outcome = await deliver(to(server, request_, stored), message())
        assert isinstance(outcome, Rejected)
        assert outcome.reason == "unknown_bot"
        assert server.requests == []


async def test_a_token_that_worked_is_kept_and_stored(request_: AiohttpRequest) -> None:
    stored = Stored(TOKEN)
    async with RawServer(ok()) as server:
        sender = to(server, request_, stored)
        for _ in range(3):
            await deliver(sender, message())
    assert (stored.asked, stored.registered) == (1, [TOKEN])


async def test_a_refusal_by_telegram_itself_shows_that_a_token_works(request_: AiohttpRequest) -> None:
    stored = Stored(TOKEN)
    async with RawServer(refuse(400, "Bad Request: chat not found")) as server:
        await deliver(to(server, request_, stored), message())
    assert stored.registered == [TOKEN]


@pytest.mark.parametrize("move", [disconnect, answer(502, "<html>"), refuse(500, "Oops"), UNAUTHORIZED])
async def test_a_failure_shows_nothing_of_a_token(request_: AiohttpRequest, move: Move) -> None:
    stored = Stored(TOKEN)
    async with RawServer(move) as server:
        await deliver(to(server, request_, stored), message())
    assert stored.registered == []


async def test_rule_10_a_rotated_token_takes_over(
    sender: Sender, playground: Playground, request_: AiohttpRequest
) -> None:
    stored = Stored(TOKEN)
    sender = Sender(stored, api_url=playground.url, send_timeout=5.0, request=request_)
    assert isinstance(await deliver(sender, message()), Sent)
    inject(playground, Fault("unauthorized", token=TOKEN))
    stored.tokens = [TOKEN, ROTATED]
    for _ in range(2):
        assert isinstance(await deliver(sender, message()), Sent)
    assert stored.registered == [TOKEN, ROTATED]
    assert [call.status for call in calls(playground)] == [200, 401, 200, 200]


async def test_the_second_token_is_tried_when_the_first_never_worked(request_: AiohttpRequest) -> None:
    stored = Stored(TOKEN, ROTATED)
    async with RawServer(UNAUTHORIZED, ok({"message_id": 3})) as server:
        assert await deliver(to(server, request_, stored), message()) == Sent("3")
    assert [request.target for request in server.requests] == [f"/bot{t}/sendMessage" for t in (TOKEN, ROTATED)]
    assert stored.registered == [ROTATED]


async def test_rule_10_tokens_that_never_worked_are_a_dead_letter(request_: AiohttpRequest) -> None:
    async with RawServer(UNAUTHORIZED) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN, ROTATED)), message())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "unauthorized"
    assert len(server.requests) == 2


async def test_rule_10_a_token_that_stopped_working_keeps_its_messages(request_: AiohttpRequest) -> None:
    async with RawServer(ok(), UNAUTHORIZED) as server:
        sender = to(server, request_, Stored(TOKEN))
        await deliver(sender, message())
        for _ in range(2):
            outcome = await deliver(sender, message())
            assert isinstance(outcome, RetryLater)
            assert (outcome.reason, outcome.after) == ("unauthorized", 60.0)


async def test_rule_10_a_method_that_does_not_exist_is_told_from_a_bad_token(
    sender: Sender, playground: Playground
) -> None:
    outcome = await deliver(sender, message(method="sendNonsense"))
    assert outcome == Rejected("the Bot API has no method sendNonsense", "unknown_method")
    assert [call.method for call in calls(playground)] == ["sendNonsense", "getMe"]


def slow_answers() -> Callable[[], bool]:
    """One request may be written; when its answer is there, it is too late for a second."""
    return iter([True, *[False] * 10]).__next__


async def test_rule_10_a_rotated_token_takes_over_however_late_a_refusal_comes(request_: AiohttpRequest) -> None:
    async with RawServer(ok(), UNAUTHORIZED, ok({"message_id": 3})) as server:
        sender = to(server, request_, stored := Stored(TOKEN))
        await deliver(sender, message())
        stored.tokens.append(ROTATED)
        assert await sender.deliver(message(), slow_answers()) == Unsent()
        for _ in range(2):
            assert await sender.deliver(message(), slow_answers()) == Sent("3")
    used = [TOKEN, TOKEN, ROTATED, ROTATED]
    assert [request.target for request in server.requests] == [f"/bot{token}/sendMessage" for token in used]


async def test_rule_10_tokens_that_are_all_refused_are_tried_in_turn_however_late(request_: AiohttpRequest) -> None:
    async with RawServer(UNAUTHORIZED) as server:
        sender = to(server, request_, Stored(TOKEN, ROTATED))
        assert await sender.deliver(message(), slow_answers()) == Unsent()
        for _ in range(2):
            assert isinstance(await sender.deliver(message(), slow_answers()), Rejected)
    used = [TOKEN, ROTATED, TOKEN]
    assert [request.target for request in server.requests] == [f"/bot{token}/sendMessage" for token in used]


async def test_rule_10_a_method_that_does_not_exist_is_told_however_late(request_: AiohttpRequest) -> None:
    me = {"id": int(BOT), "is_bot": True, "first_name": "x", "username": "x_bot"}
    async with RawServer(refuse(404, "Not Found"), ok(me)) as server:
        outcome = await to(server, request_, Stored(TOKEN)).deliver(message(method="sendNonsense"), slow_answers())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "unknown_method"


async def test_rule_10_a_404_for_the_token_is_as_a_401(request_: AiohttpRequest) -> None:
    async with RawServer(refuse(404, "Not Found")) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN)), message())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "unauthorized"
    assert server.requests[1].target.endswith("/getMe")


async def test_rule_10_a_token_that_cannot_be_checked_is_not_condemned(request_: AiohttpRequest) -> None:
    async with RawServer(refuse(404, "Not Found"), disconnect) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN)), message())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.uncertain) == ("network", False)


async def test_without_a_queue_to_ask_the_message_waits(request_: AiohttpRequest) -> None:
    stored = Stored(TOKEN, away=True)
    async with RawServer(ok()) as server:
        outcome = await deliver(to(server, request_, stored), message())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after) == ("queue_unavailable", 1.0)
    assert server.requests == []


async def test_a_message_that_was_sent_is_sent_even_if_its_token_cannot_be_stored(request_: AiohttpRequest) -> None:
    stored = Stored(TOKEN)

    async def queue_goes_away(writer: asyncio.StreamWriter) -> None:
        stored.away = True
        await ok({"message_id": 4})(writer)

    async with RawServer(queue_goes_away) as server:
        assert await deliver(to(server, request_, stored), message()) == Sent("4")


async def test_only_the_bots_used_last_are_remembered(
    request_: AiohttpRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "_KNOWN_BOTS", 2)

    class EveryBot(Stored):
        async def credentials(self, bot: str) -> Sequence[str]:
            self.asked += 1
            return [f"{bot}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"]

    stored = EveryBot()
    async with RawServer(ok()) as server:
        sender = to(server, request_, stored)
        for bot in ("1", "2", "1", "3", "1", "2"):
            await sender.deliver(Message(bot=bot, chat="42", body={"text": "hi"}), lambda: True)
    assert stored.asked == 4  # 1, 2, 3, and 2 again


# --- chats that moved


async def test_rule_13_a_chat_that_migrated_is_told_and_not_followed(sender: Sender, playground: Playground) -> None:
    inject(playground, Fault("migrate", to=-1007, count=1), -42)
    outcome = await deliver(sender, message("-42"))
    assert isinstance(outcome, Moved)
    assert outcome.chat == "-1007"
    assert [(call.chat, call.taken) for call in calls(playground)] == [(-42, False)]


async def test_rule_13_the_id_of_a_name_is_told(sender: Sender) -> None:
    by_name = await deliver(sender, message("@news"))
    assert isinstance(by_name, Sent)
    assert by_name.chat is not None
    assert by_name.chat.startswith("-100")
    by_id = await deliver(sender, message(by_name.chat))
    assert isinstance(by_id, Sent)
    assert by_id.chat is None


@pytest.mark.parametrize(
    ("result", "chat"),
    [
        ({"message_id": 4, "chat": {"id": -1007, "username": "News"}}, "-1007"),
        ([{"message_id": 4, "chat": {"id": -1007, "username": "news"}}], "-1007"),
        ({"message_id": 4, "chat": {"id": -1007, "username": "other"}}, None),
        ({"message_id": 4, "chat": {"id": -1007}}, None),
        ({"message_id": 4, "chat": {"id": "-1007", "username": "news"}}, None),
        ({"message_id": 4}, None),
        ([], None),
        (True, None),
    ],
)
async def test_an_id_is_taken_from_the_answer_only_if_it_is_of_that_name(
    request_: AiohttpRequest, result: object, chat: str | None
) -> None:
    async with RawServer(ok(result)) as server:
        outcome = await deliver(to(server, request_, Stored(TOKEN)), message("@news"))
    assert isinstance(outcome, Sent)
    assert outcome.chat == chat


# --- mistakes of ours


async def test_an_unforeseen_exception_costs_one_attempt_and_shows_no_token(
    request_: AiohttpRequest, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Stored):
        async def credentials(self, bot: str) -> Sequence[str]:
            raise KeyError(f"http://x/bot{TOKEN}/sendMessage")

    async with RawServer(ok()) as server:
        outcome = await deliver(to(server, request_, Broken()), message())
    assert isinstance(outcome, RetryLater)
    assert outcome.reason == "internal_error"
    secret = TOKEN.partition(":")[2]
    assert secret not in outcome.error
    assert "Traceback" in caplog.text
    assert secret not in caplog.text


async def test_no_outcome_and_no_log_shows_a_token(request_: AiohttpRequest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shown = []
    for move in (disconnect, UNAUTHORIZED, refuse(404, "Not Found"), answer(200, f"<html>/bot{TOKEN}/x")):
        async with RawServer(move) as server:
            shown.append(repr(await deliver(to(server, request_, Stored(TOKEN)), message())))
    assert TOKEN.partition(":")[2] not in "".join(shown) + caplog.text


async def test_a_cancelled_delivery_is_cancelled(request_: AiohttpRequest, eventually: Eventually) -> None:
    async with RawServer(hang) as server:
        task = asyncio.create_task(deliver(to(server, request_, Stored(TOKEN)), message()))
        await eventually(lambda: bool(server.requests), "the request")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
