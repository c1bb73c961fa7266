"""Updates: long polling and webhooks, with python-telegram-bot and with a bare server on the other end."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from telegram import Update
from telegram.ext import ApplicationBuilder, CallbackQueryHandler, MessageHandler, filters

from .conftest import TOKEN, eventually


class Hook:
    """A webhook that answers as told, and remembers when what came."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[float, dict]] = []
        self.secrets: set[str | None] = set()
        self.answers: list[int] = []  # statuses still to give; then 200
        self.headers: dict[str, str] = {}
        self.hold: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.Response:
        update = await request.json()
        self.got.append((time.monotonic(), update))
        self.secrets.add(request.headers.get("X-Telegram-Bot-Api-Secret-Token"))
        if self.hold is not None and update["message"]["chat"]["id"] == 1:
            await self.hold.wait()
        return web.Response(status=self.answers.pop(0) if self.answers else 200, headers=self.headers)

    def texts(self) -> list[str]:
        return [update["message"]["text"] for _, update in self.got]


@pytest_asyncio.fixture
async def hook() -> AsyncIterator[Hook]:
    found = Hook()
    app = web.Application()
    app.router.add_post("/hook", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


async def test_webhook_delivers_with_secret(call, control, hook):
    await call("setWebhook", url=hook.url, secret_token="s3cret")
    await control("POST", "updates", [{"chat": 1, "text": f"t{n}"} for n in range(50)])
    await eventually(lambda: len(hook.got) == 50)
    assert hook.texts() == [f"t{n}" for n in range(50)]
    assert hook.secrets == {"s3cret"}
    info = await call("getWebhookInfo")
    assert info["result"]["url"] == hook.url


async def test_a_failing_update_is_retried_and_holds_its_chat(call, control, hook):
    hook.answers = [500, 500, 500, 500]
    await call("setWebhook", url=hook.url)
    await control("POST", "updates", [{"chat": 1, "text": "a"}, {"chat": 1, "text": "b"}])
    await eventually(lambda: "b" in hook.texts())
    assert hook.texts() == ["a"] * 5 + ["b"]
    pauses = [later - earlier for (earlier, _), (later, _) in zip(hook.got, hook.got[1:], strict=False)]
    # at once, then 2, 4, 8 s, a hundred times as fast
    assert pauses[0] < 0.02
    for pause, least in zip(pauses[1:4], (0.02, 0.04, 0.08), strict=True):
        assert least <= pause + 0.002
    info = (await call("getWebhookInfo"))["result"]
    assert info["last_error_message"] == "Wrong response from the webhook: 500 Internal Server Error"


async def test_retry_after_is_honoured(call, control, hook):
    hook.answers, hook.headers = [503], {"Retry-After": "30"}
    await call("setWebhook", url=hook.url)
    await control("POST", "updates", {"chat": 1, "text": "a"})
    await eventually(lambda: len(hook.got) == 2)
    assert 0.29 < hook.got[1][0] - hook.got[0][0] < 2


async def test_a_slow_chat_holds_up_no_other(call, control, hook):
    hook.hold = asyncio.Event()
    await call("setWebhook", url=hook.url)
    await control("POST", "updates", [{"chat": 1, "text": "a"}, {"chat": 1, "text": "b"}, {"chat": 2, "text": "c"}])
    await eventually(lambda: "c" in hook.texts())
    assert "b" not in hook.texts()
    assert (await call("getWebhookInfo"))["result"]["pending_update_count"] == 2
    hook.hold.set()
    await eventually(lambda: "b" in hook.texts())


async def test_a_refused_connection_is_told(playground, call, control):
    await call("setWebhook", url="http://127.0.0.1:9/")
    await control("POST", "updates", {"chat": 1, "text": "a"})
    webhook = playground.world.bots[123456].mailbox.delivery.webhook
    await eventually(lambda: webhook.last_error_message == "Connection refused")
    assert (await call("deleteWebhook", drop_pending_updates=True))["result"] is True
    assert (await call("getUpdates"))["result"] == []


@pytest.mark.parametrize("params", [{"url": "ftp://x"}, {"url": "nonsense"}, {"url": "http://x", "secret_token": "ä"}])
async def test_wrong_webhooks(call, params):
    assert (await call("setWebhook", **params))["error_code"] == 400


async def test_polling_confirms_by_offset(call, control):
    done = await control("POST", "updates", [{"chat": 1, "text": str(n)} for n in range(3)])
    first = (await call("getUpdates", limit=2))["result"]
    assert [update["message"]["text"] for update in first] == ["0", "1"]
    last = (await call("getUpdates", offset=done[2]["update_id"]))["result"]
    assert [update["update_id"] for update in last] == [done[2]["update_id"]]
    assert (await call("getUpdates", offset=done[2]["update_id"] + 1))["result"] == []


async def test_a_long_poll_waits_and_a_second_ends_it(playground, call, control, hook):
    first = asyncio.create_task(call("getUpdates", timeout=30))
    await eventually(lambda: len(playground.world.ledger) == 1)
    second = asyncio.create_task(call("getUpdates", timeout=30))
    assert (await first)["error_code"] == 409
    await control("POST", "updates", {"chat": 1, "text": "x"})
    assert (await second)["result"][0]["message"]["text"] == "x"
    await call("setWebhook", url=hook.url)
    assert "while webhook is active" in (await call("getUpdates"))["description"]


async def test_only_allowed_updates(call, control):
    await call("getUpdates", allowed_updates=["callback_query"])
    assert (await control("POST", "updates", {"chat": 1, "text": "x"}))["update_id"] == 0
    assert (await control("POST", "updates", {"chat": 1, "kind": "callback_query", "content": {"id": "7"}}))[
        "update_id"
    ]


async def test_an_application_by_polling(playground, control):
    async def echo(update: Update, _: object) -> None:
        await update.effective_message.reply_text(f"echo {update.effective_message.text}", do_quote=True)

    async def press(update: Update, _: object) -> None:
        await update.callback_query.answer("noted")
        await update.callback_query.edit_message_text(f"chose {update.callback_query.data}")

    app = (
        ApplicationBuilder().token(TOKEN).base_url(f"{playground.url}/bot").base_file_url(f"{playground.url}/file/bot")
    ).build()
    app.add_handler(MessageHandler(filters.TEXT, echo))
    app.add_handler(CallbackQueryHandler(press))
    ledger, bot = playground.world.ledger, playground.world.bot(TOKEN)
    async with app:
        await app.start()
        await app.updater.start_polling()
        await control("POST", "updates", {"chat": -7, "user": 3, "text": "/start me"})
        await eventually(lambda: bot.message(-7, 2))
        assert bot.message(-7, 2)["text"] == "echo /start me"
        await control("POST", "updates", {"chat": -7, "user": 3, "press": {"message_id": 2, "data": "yes"}})
        await eventually(lambda: bot.message(-7, 2)["text"] == "chose yes")
        await app.updater.stop()
        await app.stop()
    methods = [found.method for found in ledger.select()]
    assert methods.index("answerCallbackQuery") < methods.index("editMessageText")


async def test_thousands_of_updates(call, control):
    began = time.monotonic()
    done = await control("POST", "updates", [{"chat": n % 100 + 1, "text": str(n)} for n in range(5000)])
    assert len(done) == 5000
    assert time.monotonic() - began < 5
    assert (await call("getWebhookInfo"))["result"]["pending_update_count"] == 5000
