"""Every Redis key, and the data model.

All names carry the hash tag of the front door, so that a cluster keeps them in one slot. Lua has the same names in
lua/keys.lua. A name that has a tag itself, as `{telegram_messages}:updates`, stands for itself: then its keys are
`{telegram_messages}:updates:handoff` and so on, in the slot of that tag. With the default name `telegram_messages`,
written Q below:

| key                  | type   | holds                                                                  | TTL       |
|----------------------|--------|------------------------------------------------------------------------|-----------|
| Q                    | list   | the front door: elements that no process has looked at yet             | no        |
| {Q}:handoff          | list   | what the doorbell moved from the front door; it comes before the rest  | no        |
| {Q}:bulk:BOT         | list   | the front door of a bot's bulk messages                                | no        |
| {Q}:doors            | zset   | bots with such a door, by when it was looked at last                   | no        |
| {Q}:laned:bulk       | hash   | bot → its bulk messages that are in lanes                              | no        |
| {Q}:lane:P:BOT:CHAT  | list   | a lane's entries of priority P (i, n, b); the head stays until settled | no        |
| {Q}:ready:P:BOT      | zset   | an account's lanes that may be served now, by their last turn's time   | no        |
| {Q}:due              | zset   | lanes that wait, by the time at which they are looked at again         | no        |
| {Q}:scheduled        | zset   | "number element" of messages for later, by the time they are due       | no        |
| {Q}:bots             | zset   | accounts with ready lanes, by the time of their last turn              | no        |
| {Q}:bots:due         | zset   | accounts that wait, by the time at which they are looked at again      | no        |
| {Q}:bots:served      | zset   | bots by the time of their last grant, if it was within the last hour   | yes: 1 h  |
| {Q}:log:bot:BOT      | zset   | tokens of what left of an account, by when: its log                    | yes       |
| {Q}:left:BOT:CHAT    | list   | when what left of a chat left: its log; not what is in flight yet      | yes       |
| {Q}:pace             | hash   | account → the time of its next slot                                    | no        |
| {Q}:aliases          | hash   | lane → the chat that it is another name of; "names BOT:CHAT" → the     | no        |
|                      |        | other names of a chat, 20 at most                                      |           |
| {Q}:aliases:index    | zset   | lanes that are another name, by when that was said; 100,000 at most    | no        |
| {Q}:merging          | zset   | "BOT:CHAT BOT:CHAT" of lanes that are one and not merged yet, in order | no        |
| {Q}:merged:P:BOT:CHAT | list  | entries that go before the rest of a lane that is being merged         | no        |
| {Q}:paused           | hash   | lane, bot or * → "until reason"; "hand SCOPE" → "since reason": by     | no        |
|                      |        | a person, until a person resumes it                                    |           |
| {Q}:floods:BOT       | hash   | lane → "told until" of a 429 of the last second, ms                    | yes: 1 s  |
| {Q}:failing:BOT      | hash   | lanes whose sends failed since anything got through                    | yes: 60 s |
| {Q}:outages          | hash   | bot → "level next-probe"; "BOT probe" → the lane that probes           | no        |
| {Q}:held:PROCESS     | hash   | lane → "token call P granted" of each lease, with p if it is paid;     | no        |
|                      |        | #call, #about, #sent, #clock; #alone: the lane that it has, or is to   |           |
|                      |        | have, all by itself; #told: what the last call refused and buried      |           |
| {Q}:processes        | zset   | incarnations, by the time at which they are presumed dead              | no        |
| {Q}:idle             | set    | incarnations that wait for work                                        | no        |
| {Q}:tries            | hash   | "P BOT:CHAT" → what was tried with the head so far                     | no        |
| {Q}:open             | hash   | id → what is known of a message that others may wait for, until it     | no        |
|                      |        | ends: see lua/open.lua                                                 |           |
| {Q}:ended:ID         | string | "=" and the result of a provisional message, or "!" and its state; or  | yes: 30 d |
|                      |        | "!", reason and error of a committed one that is to be a dead letter   |           |
| {Q}:tails            | hash   | lane → the open message that came last to hold it, see lua/parents.lua | no        |
| {Q}:group:NAME       | hash   | sent, cancelled, expired, dead:REASON: how many of a group ended so;   | yes: 30 d |
|                      |        | #cancelled: none of it is to be sent any more                          |           |
| {Q}:dead             | hash   | id → dead letter (JSON)                                                | no        |
| {Q}:dead:index       | zset   | ids of dead letters, by the time of death                              | no        |
| {Q}:tokens           | hash   | bot → token that is configured or worked                               | no        |
| {Q}:tokens:new       | hash   | bot → newest token that came with a message and may work               | no        |
| {Q}:totals           | hash   | doors (bulk at them), laned:P, sent, dead, uncertain, expired,         | no        |
|                      |        | cancelled, deduplicated, replayed, dropped, dead_dropped, clock_jumps: |           |
|                      |        | counts; ids, fence: sequences                                          |           |
| {Q}:clock            | hash   | skew, seen, wall: how queue time goes on when the clock is set         | no        |
| {Q}:msg:ID           | hash   | status of a tracked message                                            | yes: 30 d |
| {Q}:dedup:BOT:ID     | string | the id of the message that came with this dedup key (as ID)            | yes: 24 h |
| {Q}:subscribers:BOT  | set    | chats that get what a bot sends to all who want it                     | no        |
| {Q}:broadcast:ID     | hash   | bot, element, status, total, spread, recalled, all, cursor, shown,     | yes: 30 d |
|                      |        | created_at, started_at, finished_at: one body for many chats           |           |
| {Q}:todo:ID          | set    | chats of a broadcast that are not in the queue yet                     | yes: 30 d |
| {Q}:broadcasts:BOT   | zset   | a bot's broadcasts, by their start                                     | yes: 30 d |
| {Q}:spreading:BOT    | list   | those that are not all in the queue, in order                          | no        |
| {Q}:running:BOT      | set    | those that were not found finished                                     | no        |
| {Q}:op:ID            | string | a verb (enqueue, redrive, drop, trim, pause, resume) that was done     | yes: 60 s |

The channel {Q}:ends has the ids of awaited messages that ended.

The updates of a bot are a queue of the same kind, with the name `{Q}:updates:BOT` and all of these keys below it. One
more is its own, `{Q}:updates:BOT:numbers:BOT:BLOCK`: a bitmap of 25 h with a bit for each update_id of a block of 4,096
that was taken. What its commits write beside it is below `{Q}` (queueing/inbox.py, Write).

All times are milliseconds of the server's clock; those that end something are in queue time, which its jumps do not
move (lua/clock.lua). Once a message ended, its status is kept for STATUS_TTL. A process's `held` hash goes with the
process: `leave` and `reap` delete it. A lane with entries is in exactly one of `due`, a `held` hash, and the `ready`
sets of its head's account; but while it is in `merging`, not in `due` or `ready`. An empty one has no key, and is in
none. An account has a budget of its own: a bot, or "BOT$" for what it pays for; `ready`, `log` and `pace` go by it.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that Python touches itself; all others are the scripts' alone."""

    front: str

    def _named(self, name: str) -> str:
        tagged = re.search("{[^}]", self.front)
        return f"{self.front}:{name}" if tagged else f"{{{self.front}}}:{name}"

    @property
    def handoff(self) -> str:
        return self._named("handoff")

    @property
    def work(self) -> tuple[str, ...]:
        """Where there is something to be claimed, now or some time; all are empty as long as there is nothing."""
        names = ("handoff", "doors", "bots", "bots:due", "due", "scheduled", "merging")
        return (self.front, *map(self._named, names))

    @property
    def dead(self) -> str:
        return self._named("dead")

    @property
    def dead_index(self) -> str:
        return self._named("dead:index")

    @property
    def tokens(self) -> str:
        return self._named("tokens")

    @property
    def new_tokens(self) -> str:
        return self._named("tokens:new")

    @property
    def clock(self) -> str:
        return self._named("clock")

    @property
    def paused(self) -> str:
        return self._named("paused")

    @property
    def ends(self) -> str:
        return self._named("ends")

    def group(self, name: str) -> str:
        return self._named(f"group:{name}")

    def dedup(self, bot: str, key: str) -> str:
        return self._named(f"dedup:{bot}:{key}")

    def status(self, id: str) -> str:
        return self._named(f"msg:{id}")

    def subscribers(self, bot: str) -> str:
        return self._named(f"subscribers:{bot}")

    def broadcast(self, id: str) -> str:
        return self._named(f"broadcast:{id}")

    def broadcasts(self, bot: str) -> str:
        return self._named(f"broadcasts:{bot}")

    def spreading(self, bot: str) -> str:
        return self._named(f"spreading:{bot}")

    def running(self, bot: str) -> str:
        return self._named(f"running:{bot}")
