"""A local Telegram: Bot API server, ledger and judge of every call, faults to order, and a page to chat on.

It imports nothing of the rest of the project: a judge is no relative of the judged.
"""

from bot.playground.server import Playground, start_playground
from bot.playground.world import Config

__all__ = ["Config", "Playground", "start_playground"]
