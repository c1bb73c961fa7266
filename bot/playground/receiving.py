"""Methods by which a bot receives its updates: getUpdates and the webhook's."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

from bot.playground.params import bad_request
from bot.playground.registry import Context, method
from bot.playground.webhooks import Webhook

LONGEST_POLL = 50.0  # seconds, as in Telegram
MOST_UPDATES = 100
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")


@method("getUpdates")
def get_updates(call: Context) -> asyncio.Future[list[dict[str, Any]]]:
    params = call.params
    _set_allowed(call)
    limit = min(max(params.integer("limit", MOST_UPDATES), 1), MOST_UPDATES)
    timeout = min(max(params.number("timeout"), 0.0), LONGEST_POLL)
    return call.bot.mailbox.poll(params.integer("offset"), limit, timeout)


@method("setWebhook")
async def set_webhook(call: Context) -> bool:
    params, mailbox = call.params, call.bot.mailbox
    url = params.text("url")
    secret = params.text("secret_token")
    _check_url(url)
    if secret and not _SECRET.fullmatch(secret):
        raise bad_request("secret token contains unallowed characters")
    _set_allowed(call)
    if params.flag("drop_pending_updates"):
        await mailbox.clear()
    connections = min(max(params.integer("max_connections", 40), 1), 100)
    await mailbox.set_webhook(Webhook(url, secret, connections) if url else None)
    call.world.events.publish("listening", bot=call.bot.id)
    return True


@method("deleteWebhook")
async def delete_webhook(call: Context) -> bool:
    if call.params.flag("drop_pending_updates"):
        await call.bot.mailbox.clear()
    await call.bot.mailbox.set_webhook(None)
    call.world.events.publish("listening", bot=call.bot.id)
    return True


@method("getWebhookInfo")
def get_webhook_info(call: Context) -> dict[str, Any]:
    mailbox = call.bot.mailbox
    info = {"url": "", "has_custom_certificate": False, "pending_update_count": len(mailbox)}
    if mailbox.allowed:
        info["allowed_updates"] = mailbox.allowed
    return info if mailbox.delivery is None else {**info, **mailbox.delivery.info()}


def _set_allowed(call: Context) -> None:
    allowed = call.params.json("allowed_updates")
    if isinstance(allowed, list):
        call.bot.mailbox.allowed = [str(kind) for kind in allowed]


def _check_url(url: str) -> None:
    """Telegram wants HTTPS; this stand-in runs beside the bot and takes HTTP too."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise bad_request("bad webhook: invalid webhook URL specified")
