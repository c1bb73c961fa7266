"""The chat page in a real browser, with a small bot behind it."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from bot.playground import Playground

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEYBOARD = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]}


@pytest_asyncio.fixture
async def page(playground: Playground) -> AsyncIterator[Page]:
    """The page, whose scripts must raise nothing and load nothing from elsewhere."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        found = await browser.new_page(viewport={"width": 390, "height": 780})
        wrong: list[str] = []
        found.on("pageerror", lambda error: wrong.append(str(error)))
        found.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        found.on(
            "request", lambda asked: None if asked.url.startswith(playground.url + "/") else wrong.append(asked.url)
        )
        await found.goto(playground.url)
        await found.wait_for_selector("html[data-live]")
        yield found
        await browser.close()
        assert wrong == []


@pytest_asyncio.fixture
async def small_bot(call) -> AsyncIterator[None]:
    """Echoes by long polling; a press edits the message."""

    async def run() -> None:
        offset = 0
        while True:
            for update in (await call("getUpdates", offset=offset, timeout=10))["result"]:
                offset = update["update_id"] + 1
                if "message" in update:
                    message = update["message"]
                    text = f"echo <b>{message['text']}</b>, or /help"
                    await call("sendMessage", chat_id=message["chat"]["id"], text=text, parse_mode="HTML",
                               reply_markup=KEYBOARD)  # fmt: skip
                else:
                    query = update["callback_query"]
                    await call("answerCallbackQuery", callback_query_id=query["id"], text="noted")
                    await call("editMessageText", chat_id=query["message"]["chat"]["id"],
                               message_id=query["message"]["message_id"], text="you said yes")  # fmt: skip

    task = asyncio.create_task(run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_talk(page, small_bot):
    await page.fill("#message", "hello")
    await page.press("#message", "Enter")
    answer = page.locator(".bubble.bot")
    await expect(page.locator(".bubble.user .body")).to_have_text("hello")
    await expect(answer.locator(".body")).to_have_text("echo hello, or /help")
    await expect(answer.locator(".body strong")).to_have_text("hello")
    await expect(answer.locator("time")).to_contain_text(".")
    await expect(answer.locator(".after")).to_contain_text("ms")
    await expect(page.locator("#status")).to_be_hidden()
    await answer.locator(".inline button").click()
    await expect(answer.locator(".body")).to_have_text("you said yes")
    await expect(answer.locator(".time")).to_contain_text("edited")
    await expect(page.locator("#toast")).to_have_text("noted")


async def test_a_command_can_be_clicked(page, small_bot):
    await page.fill("#message", "hello")
    await page.click("#send")
    await page.locator(".bubble.bot .command").click()
    await expect(page.locator(".bubble.user .body").nth(1)).to_have_text("/help")


async def test_a_group_and_a_new_chat(page, small_bot):
    await page.click('[data-chat="-2001"]')
    await page.select_option("#as", label="Ben")
    await page.fill("#message", "from Ben")
    await page.press("#message", "Enter")
    await expect(page.locator(".bubble.user .author")).to_have_text("Ben")
    await expect(page.locator(".bubble.bot")).to_have_count(1)
    await page.fill("#new-chat", "Dora")
    await page.press("#new-chat", "Enter")
    await expect(page.locator("#title")).to_have_text("Dora")
    await expect(page.locator("[data-chat]")).to_have_count(3)
    await expect(page.locator("#as-box")).to_be_hidden()


async def test_it_says_what_is_wrong(page, call, control):
    await expect(page.locator("#status")).to_contain_text("No bot is listening yet")
    await control("POST", "updates", {"chat": 1001, "text": "x"})
    await call("setWebhook", url="http://127.0.0.1:9/")
    await expect(page.locator("#status")).to_contain_text("Connection refused")


async def test_deleted_and_typing(page, call):
    sent = (await call("sendMessage", chat_id=1001, text="gone soon"))["result"]["message_id"]
    await call("sendChatAction", chat_id=1001, action="typing")
    await expect(page.locator("#typing")).to_contain_text("is typing")
    await call("deleteMessage", chat_id=1001, message_id=sent)
    await expect(page.locator(".bubble.deleted .time")).to_contain_text("deleted")
