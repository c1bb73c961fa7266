"""What the processes of one bot share in Redis beside the queues: the leader, who the bot is, what clients of the
HTTP API repeat, and when people last saw how a broadcast goes on.

| key                   | type   | holds                                                      | TTL           |
|-----------------------|--------|------------------------------------------------------------|---------------|
| {Q}:leader:BOT        | string | a lock: the process that polls, or has set the webhook     | 3 s, renewed  |
| {Q}:me:BOT            | string | getMe's answer (JSON)                                      | 24 h          |
| {Q}:line:BOT          | zset   | who asks the chat backend, by when they came               | 60 s, renewed |
| {Q}:line:heard:BOT    | zset   | the same, by when each was last heard of                   | 60 s, renewed |
| {Q}:first:KEY         | string | fingerprint of what came first with an Idempotency-Key     | STATUS_TTL    |
| {Q}:file:KEY          | hash   | a file that is to be sent, in pieces: bot/file_store.py    | 7 d or 1 h    |
| {Q}:file:KEY:uses     | set    | what needs it                                              | as the file   |
| {Q}:shown:ID          | string | a lock: a broadcast's progress was shown a moment ago      | 5 s           |

Q is `telegram_messages`; the hash tag puts them into the queue's cluster slot. The queue's own keys: queueing/keys.py;
those of jobs: bot/job_store.py.
"""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from queueing import connection

QUEUE = "telegram_messages"


def below_tag(name: str) -> str:
    """The key of that name; see queueing.inbox.Write."""
    return f"{{{QUEUE}}}:{name}"


def leader_key(bot: str) -> str:
    return below_tag(f"leader:{bot}")


def me_key(bot: str) -> str:
    return below_tag(f"me:{bot}")


def line_keys(bot: str) -> tuple[str, str]:
    return below_tag(f"line:{bot}"), below_tag(f"line:heard:{bot}")


def idempotency_key(key: str) -> str:
    return below_tag(f"first:{key}")


def file_key(key: str) -> str:
    return below_tag(f"file:{key}")


def file_uses_key(key: str) -> str:
    return below_tag(f"file:{key}:uses")


def shown_key(broadcast: str) -> str:
    return below_tag(f"shown:{broadcast}")


def connect(redis_url: str, timeout: float) -> "Redis":
    """A client for the keys above. `timeout`: seconds for which an answer is awaited.

    It tries again once, for the connections that a restarted server left dead. Everything asked here may run twice;
    a lock whose reply was lost only keeps its place until it expires.
    """
    once_more = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.1), 1)
    return connection.connect(redis_url, retry=once_more, timeout=timeout, key=QUEUE, name="telequeue-bot")
