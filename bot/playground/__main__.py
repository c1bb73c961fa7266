"""`python -m bot.playground`: run the stand-in until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys

import uvloop

from bot.playground.limits import LimitSettings, parse_rate
from bot.playground.server import is_loopback, start_playground
from bot.playground.world import Config


def main() -> int:
    """Exit code 0 after a clean stop, 1 if the address is taken, 2 for a bad argument."""
    options = _arguments()
    host, _, port = options.bind.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        return _fail(f"--bind {options.bind!r}: expected host:port")
    if not is_loopback(host) and not options.allow_remote:
        return _fail(f"--bind {host} is open to others, and there is no authentication: --allow-remote if you mean it")
    limits = LimitSettings(options.limit_bot, options.limit_chat, options.limit_group, options.lengthen)
    try:
        for rate in (limits.bot, limits.chat, limits.group):
            parse_rate(rate)
    except ValueError as error:
        return _fail(str(error))
    config = Config(options.token, options.bot_username, limits, options.ledger_limit, options.retry_speed)
    try:
        if options.nice:
            os.nice(options.nice)
    except PermissionError:
        return _fail(f"--nice {options.nice}: only root may raise a priority")
    try:
        uvloop.run(_serve(host, int(port), config, options.ready_fd))
    except OSError as error:
        print(f"playground: cannot listen on {options.bind}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


async def _serve(host: str, port: int, config: Config, ready_fd: int | None) -> None:
    # what is there now stays: the collector need not look at it again
    gc.collect()
    gc.freeze()
    playground = await start_playground(host, port, config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    line = f"playground ready on {playground.url}"
    print(line, flush=True)
    if ready_fd is not None:
        os.write(ready_fd, line.encode() + b"\n")
        os.close(ready_fd)
    await stop.wait()
    await playground.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot.playground", description="A local Telegram stand-in.")
    parser.add_argument("--bind", default="127.0.0.1:8081", help="host:port; port 0 takes a free one")
    parser.add_argument("--token", default="", help="the bot that is there from the start (any other token works too)")
    parser.add_argument("--bot-username", default="", help="its username")
    parser.add_argument("--limit-bot", default="off", help="enforce a limit per bot, such as 30/1s")
    parser.add_argument("--limit-chat", default="off", help="the same per private chat")
    parser.add_argument("--limit-group", default="off", help="the same per group or channel")
    parser.add_argument("--lengthen", type=float, default=0.0, help="seconds that a call during a penalty adds to it")
    parser.add_argument("--ledger-limit", type=int, default=5_000_000, help="calls the ledger holds")
    parser.add_argument("--retry-speed", type=float, default=1.0, help="divides the pauses between webhook deliveries")
    parser.add_argument("--ready-fd", type=int, help="also write the ready line to this file descriptor")
    parser.add_argument("--nice", type=int, default=0, help="-10 keeps timestamps right on a busy machine (as root)")
    parser.add_argument("--allow-remote", action="store_true", help="allow an address that others can reach")
    return parser.parse_args()


def _fail(reason: str) -> int:
    print(f"playground: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
