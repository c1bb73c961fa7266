"""What the webhook stands: updates offered at a fixed rate to six processes, each of which is answered once.

make webhook            1,000 updates a second for 30 s
"""

import argparse
import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from tests.chaos.arena import arena
from tests.conftest import wait_until
from tests.e2e.conftest import SECRET

CHATS = 1000
CONNECTIONS = 100
"""Kept alive, as Telegram's are, which has `max_connections` of them."""

HEADERS = {"X-Telegram-Bot-Api-Secret-Token": SECRET}
NO_LIMITS = {"RATE_GLOBAL": "off", "RATE_CHAT": "off", "RATE_GROUP": "off"}
_TRIES = 200


def text_update(update_id: int, chat: int, text: str) -> dict[str, Any]:
    person = {"id": chat, "first_name": "Ada", "is_bot": False}
    content = {"message_id": update_id, "date": 1, "chat": {"id": chat, "type": "private"}, "from": person}
    return {"update_id": update_id, "message": {**content, "text": text}}


class Poster:
    """Posts updates as Telegram does: those of a chat one after the other, again what got no 2xx.

    answers: how often each status came. seconds: of each answer.
    """

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = f"{url}/telegram/webhook"
        self._http = http
        self.answers: Counter[int] = Counter()
        self.seconds: list[float] = []
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def post(self, update: dict[str, Any]) -> None:
        async with self._turns[update["message"]["chat"]["id"]]:
            for _ in range(_TRIES):
                status = await self._try(update)
                self.answers[status] += 1
                if 200 <= status < 300:
                    return
                await asyncio.sleep(0.1)
        raise AssertionError(f"update {update['update_id']} was refused {_TRIES} times")

    async def _try(self, update: dict[str, Any]) -> int:
        """→ the status; 0 when the connection broke."""
        begun = time.perf_counter()
        try:
            async with self._http.post(self._url, json=update, headers=HEADERS) as response:
                await response.read()
        except aiohttp.ClientError:
            return 0
        self.seconds.append(time.perf_counter() - begun)
        return response.status

    async def offer(self, updates: int, rate: float, update: Callable[[int], dict[str, Any]]) -> float:
        """Posts so many, at a rate a second whether or not they are answered. → seconds until all are"""
        begun, posting = time.perf_counter(), set()
        for number in range(updates):
            if (ahead := begun + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            task = asyncio.create_task(self.post(update(number)))
            posting.add(task)
            task.add_done_callback(posting.discard)
        await asyncio.gather(*posting)
        return time.perf_counter() - begun

    def within(self, share: float) -> float:
        """Seconds in which this share of the answers came."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def times_answered(calls: Callable[[], Awaitable[list[dict[str, Any]]]], updates: int) -> Counter[str]:
    """How often each of the updates "n0", "n1" … was answered, by the texts that Telegram took."""
    words = [call["text"].split()[-1] for call in await calls() if call["status"] == 200]
    return Counter(word for word in words if word.startswith("n") and word[1:].isdigit() and int(word[1:]) < updates)


async def measure(rate: float, seconds: float) -> bool:
    updates = int(rate * seconds)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with arena(NO_LIMITS) as place, aiohttp.ClientSession(connector=connector) as http:
        poster = Poster(place.url, http)
        took = await poster.offer(updates, rate, lambda n: text_update(n + 1, 1 + n % CHATS, f"n{n}"))

        async def handled() -> bool:
            queue = await place.queue()
            return queue["updates"]["queue_depth"] == 0 and queue["queue_depth"] == 0

        await wait_until(handled, "all to be handled and answered", timeout=600)
        answered = await times_answered(place.calls, updates)
        lost, twice = updates - len(answered), sum(times > 1 for times in answered.values())
        statuses = ", ".join(f"{status}: {many}" for status, many in sorted(poster.answers.items()))
        say(f"{updates} updates offered at {rate:.0f}/s, all taken after {took:.1f} s; answers by status {statuses}")
        say(f"lost {lost}, handled twice {twice}")
        p50, p99 = (1000 * poster.within(share) for share in (0.5, 0.99))
        say(f"answer within {p50:.1f} ms (half), {p99:.1f} ms (99 of 100), as the client measures it")
        return not lost and not twice


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a command line prints


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=float, default=1000, help="updates a second")
    options.add_argument("--seconds", type=float, default=30)
    given = options.parse_args()
    raise SystemExit(0 if asyncio.run(measure(given.rate, given.seconds)) else 1)


if __name__ == "__main__":
    main()
