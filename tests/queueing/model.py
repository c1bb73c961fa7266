"""What a queue must do, in few words: lists, logs and pauses in plain Python, against which the state machine holds the
answers of the real ones. It shares no line with them.

It does not say whose turn it is. It says what may leave, what surely may, in which order of its own chat, and where
everything is. Times: ms. Each assertion begins with the name of the property that it holds up.

`now` goes on evenly. The server's clock, by which messages are scheduled and expire, is `ahead` of it since it was set.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from queueing.limits import MARGIN, Rate, RateLimits
from queueing.message import Message, Priority, Uncertain
from tests.queueing.entries import Entry, Grant, Outage

LEASE, HEARTBEAT = 15_000, 3_000
PRIORITIES = [Priority.INTERACTIVE, Priority.NORMAL, Priority.BULK]


class Model:
    """slack: ms by which a message may be written after its grant."""

    def __init__(self, limits: RateLimits, *, slack: int) -> None:
        self.limits, self.slack = limits, slack
        self.entries: dict[str, Entry] = {}
        self.doors: list[Entry] = []
        self.lanes: dict[tuple[str, Priority], list[Entry]] = defaultdict(list)
        self.held: dict[str, Grant] = {}
        self.tokens: set[str] = set()
        self.logs: dict[str, dict[str, int]] = defaultdict(dict)
        self.left: dict[str, list[int]] = defaultdict(list)
        self.last_grant: dict[str, int] = {}
        self.hand: set[str] = set()
        self.pauses: dict[str, tuple[float, str]] = {}
        self.floods: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
        self.outages: dict[str, Outage] = defaultdict(Outage)
        self.keys: dict[tuple[str, str], str] = {}
        self.events = 0
        self.sent = 0
        self.ahead = 0
        self.names: dict[str, str] = {}

    # --- what comes in

    def enqueue(self, message: Message, now: int) -> None:
        if (message.track or message.provisional) and message.id in self.entries:
            return
        if message.dedup_key and self.keys.setdefault((message.bot, message.dedup_key), message.id) != message.id:
            return
        entry = self.entries[message.id] = Entry(message, len(self.entries), now + self.ahead)
        entry.renamed = self.names.get(entry.lane, "")
        self.doors.append(entry)

    def drain(self, now: int) -> None:
        """A call looks at the doors. What came into a lane by the same call has no order between the doors."""
        self.events += 1
        for entry in sorted(self.of("later"), key=lambda entry: (entry.due, entry.number)):
            if entry.due <= now + self.ahead:
                self._push(entry)
        for entry in self.doors:
            if entry.state != "cancelled" and entry.due > now + self.ahead:
                entry.state = "later"
            else:
                self._push(entry)
        self.doors.clear()

    def _push(self, entry: Entry) -> None:
        if entry.state in ("door", "later"):
            entry.state, entry.came = "lane", self.events
            self.lanes[entry.lane, entry.priority].append(entry)

    # --- what leaves

    def grant(self, lane: str, token: str, id: str, tries: tuple[int, int], by: tuple[int, int], now: int) -> None:
        """by: process and call. tries: attempts and take-overs, as the lease tells."""
        assert lane not in self.held, f"one in flight: a second of {lane} beside {self.held[lane].entry}"
        entry, bot = self.entries[id], lane.partition(":")[0]
        assert entry.state == "lane", f"exactly one state: {entry} was granted"
        assert token not in self.tokens, f"fencing: the token {token} was used before"
        assert entry.expires > now + self.ahead, f"expiry: {entry} was granted after its time"
        self._check_order(entry, now)
        assert all(one.state == "sent" for one in self.parents(entry)), f"parents: {entry} before {self.parents(entry)}"
        assert entry.until <= now, f"backoff: {entry} was granted {entry.until - now} ms too early"
        assert not (paused := self.paused(lane, now)), f"pauses: {entry} was granted while {paused}"
        for scope in (lane, bot):
            assert self._log_free_at(scope) <= now, f"limits: {entry} exceeds the window of {scope}"
            self.logs[scope][token] = now
        assert self.outages[bot].probe_at <= now, f"outage: {entry} is a second probe"
        if self.outages[bot].level:
            self.outages[bot].probe, self.outages[bot].probe_at = lane, now + 20_000
        assert tries == (entry.attempts, entry.takeovers), f"attempts: {entry} has {entry.attempts}, {entry.takeovers}"
        self.tokens.add(token)
        self.last_grant[bot] = now
        entry.state = "held"
        self.held[lane] = Grant(entry, token, by[0], by[1], now)

    def _check_order(self, entry: Entry, now: int) -> None:
        """Nothing before it, of its own priority; and nothing of a higher one that might go now."""
        lane = self.lanes[entry.lane, entry.priority]
        for before in lane[: lane.index(entry)]:
            if self.has_expired(before, now) or before.loose or entry.loose:
                continue
            two_doors = (before.message.send_at is None) != (entry.message.send_at is None)
            two_names = before.message.chat != entry.message.chat and before.stamp == entry.stamp
            assert two_names or (two_doors and before.came == entry.came), f"order: {entry} before {before}"
        for priority in PRIORITIES[: PRIORITIES.index(entry.priority)]:
            first = next(self._waiting(entry.lane, priority, now), None)
            assert not first or first.until > now or self.is_held_up(first), f"priority: {entry} before {first}"

    def _waiting(self, lane: str, priority: Priority, now: int) -> Iterator[Entry]:
        """Those of a lane that are to be sent, in order."""
        entries = (entry for entry in self.lanes[lane, priority] if entry.state in ("lane", "held"))
        return (entry for entry in entries if not self.has_expired(entry, now))

    def parents(self, entry: Entry) -> list[Entry]:
        return [self.entries[id] for id in entry.message.after]

    def has_to_wait(self, entry: Entry) -> bool:
        """For its parents, or to die with one."""
        return any(parent.state != "sent" for parent in self.parents(entry))

    def is_held_up(self, entry: Entry) -> bool:
        """Whether it or one before it has to wait; one that expired once may be there again."""
        lane = self.lanes[entry.lane, entry.priority]
        return any(one.state != "held" and self.has_to_wait(one) for one in lane[: lane.index(entry) + 1])

    def is_orphan(self, entry: Entry, now: int) -> bool:
        return any(
            parent.state in ("dead", "gone", "cancelled", "expired") or self.has_expired(parent, now)
            for parent in self.parents(entry)
        )

    def has_expired(self, entry: Entry, now: int) -> bool:
        entry.over = entry.over or entry.expires <= now + self.ahead
        return entry.over

    def rate(self, scope: str) -> Rate:
        _, colon, chat = scope.partition(":")
        return self.limits.of_chat(chat) if colon else self.limits.bot

    def _log_free_at(self, scope: str) -> float:
        """When one more may leave, those in flight being written as late as they may."""
        count, period = self.rate(scope).count, round((self.rate(scope).period + MARGIN) * 1000)
        in_flight = {grant.token for grant in self.held.values()}
        times = sorted(at + self.slack * (token in in_flight) for token, at in self.logs[scope].items())
        return times[-count] + period if count and len(times) >= count else 0

    def paused(self, lane: str, now: int) -> str | None:
        bot = lane.partition(":")[0]
        for scope in ("*", bot, lane):
            if scope in self.hand:
                return "paused"
            until, reason = self.pauses.get(scope, (0, ""))
            if until > now:
                return reason
        return None

    def surely_ready(self, now: int) -> Iterator[Entry]:
        """What nothing that the model knows of is in the way of."""
        for lane, priority in list(self.lanes):
            bot = lane.partition(":")[0]
            first = next(self._waiting(lane, priority, now), None)
            if not first or lane in self.held:
                continue
            slot = (self.limits.bot.period + MARGIN) * 1000 / max(1, self.limits.bot.count)
            free_at = max(self._log_free_at(lane), self._log_free_at(bot), self.last_grant.get(bot, 0) + slot)
            if self.is_held_up(first):
                continue
            if first.until <= now and free_at + 1 < now and not self.paused(lane, now) and not self.outages[bot].level:
                yield first

    # --- what becomes of it

    def departed(self, grant: Grant, written: int | None) -> None:
        """It was written so many ms after its grant, or not at all."""
        bot = grant.entry.message.bot
        for scope in (grant.entry.lane, bot):
            if written is None:
                self.logs[scope].pop(grant.token)
            else:
                self.logs[scope][grant.token] = grant.at + written
                self.left[scope].append(grant.at + written)

    def left_in_hand(self, grant: Grant, now: int) -> None:
        """Its process ended cleanly, now. That it was not written is likely, not sure."""
        self.departed(grant, self.slack)
        lane, at = grant.entry.lane, min(grant.at + self.slack, now)
        self.logs[lane][grant.token] = self.left[lane][-1] = at
        self.give_back(grant)
        grant.entry.status = "pending"

    def give_back(self, grant: Grant) -> None:
        """To the head of its lane."""
        del self.held[grant.entry.lane]
        grant.entry.state = "lane"
        self.end_probe(grant.entry)

    def unsent(self, grant: Grant) -> None:
        self.departed(grant, None)
        self.give_back(grant)
        grant.entry.status = "pending"

    def die(self, grant: Grant, status: str = "dead") -> None:
        self.end(grant, "dead")
        grant.entry.status = status

    def end(self, grant: Grant, state: str) -> None:
        self.give_back(grant)
        self.finish(grant.entry, state)
        self.sent += state == "sent"

    def finish(self, entry: Entry, state: str) -> None:
        if entry.state == "lane":
            self.lanes[entry.lane, entry.priority].remove(entry)
        entry.state = state
        entry.forget_tries()
        entry.status = state

    def take_over(self, grant: Grant) -> None:
        self.departed(grant, self.slack)
        if grant.entry.message.uncertain is Uncertain.HOLD:
            self.die(grant, "uncertain")
            return
        grant.entry.takeovers += 1
        grant.entry.note_try(0)
        self.give_back(grant)

    def pause(self, scope: str, until: float, reason: str) -> None:
        if until > self.pauses.get(scope, (0, ""))[0]:
            self.pauses[scope] = (until, reason)

    def flooded(self, entry: Entry, until: float, now: int) -> None:
        """Three chats within a second, told to wait for the same time, are the bot."""
        self.pause(entry.lane, until, "flood")
        recent = self.floods[entry.message.bot]
        recent[entry.lane] = (now, until)
        alike = [other for at, other in recent.values() if at > now - 1000 and abs(other - until) <= 1000]
        if len(alike) >= 3:
            self.pause(entry.message.bot, max(alike), "flood")

    def answered(self, bot: str) -> None:
        self.outages.pop(bot, None)

    def failed(self, entry: Entry, now: int) -> bool:
        """→ whether it is an outage: three chats in a row, nothing getting through between them."""
        outage = self.outages[entry.message.bot]
        if now - outage.last >= 60_000:
            outage.failing.clear()
        outage.failing.add(entry.lane)
        outage.last = now
        if not outage.level and len(outage.failing) < 3:
            return False
        if not outage.level or outage.probe == entry.lane:
            outage.level, outage.probe = outage.level + 1, None
            outage.probe_at = now + min(30_000, 1000 * 2 ** (outage.level - 1))
        return True

    def end_probe(self, entry: Entry) -> None:
        """Another may go out at once, unless it was heard of."""
        outage = self.outages[entry.message.bot]
        if outage.probe == entry.lane:
            outage.probe, outage.probe_at = None, 0

    # --- the operator

    def redrive(self, entry: Entry, now: int, *, head: bool) -> None:
        entry.state, entry.accepted, entry.came = "lane", now + self.ahead, self.events
        entry.status, entry.over = "pending", False
        for child in self.entries.values():
            child.loose = child.loose or entry.message.id in child.message.after
        lane = self.lanes[entry.lane, entry.priority]
        if not head:
            lane.append(entry)
            return
        first = next((i for i, other in enumerate(lane) if other.state in ("lane", "held")), len(lane))
        behind = first < len(lane) and (lane[first].state == "held" or lane[first].tried)
        lane.insert(first + behind, entry)

    def can_alias(self, lane: str, other: str, now: int) -> bool:
        """Whether the two are at rest, in order and alike: then the model knows what comes of it. Scheduled bulk
        may stand behind what was accepted later, since it came through two doors."""
        bot = lane.partition(":")[0]
        lists = [self.lanes[name, priority] for name in (lane, other) for priority in PRIORITIES]
        return not (
            self.hand
            or self.rate(lane) != self.rate(other)
            or {lane, other} & (self.names.keys() | self.held.keys())
            or any(self.paused(name, now) for name in (lane, other))
            or self.outages[bot].failing
            or any(entry.tried or entry.takeovers or entry.message.send_at for one in lists for entry in one)
            or any(entry.message.after for one in lists for entry in one)
            or any(one != sorted(one, key=lambda entry: entry.stamp) for one in lists)
        )

    def alias(self, lane: str, other: str) -> None:
        """Two lanes at rest become one, by acceptance, under one limit."""
        self.names |= {name: other for name, of in [*self.names.items(), (lane, lane)] if of == lane}
        for entry in self.entries.values():
            if entry.lane == lane:
                entry.renamed = other
        for priority in PRIORITIES:
            both = self.lanes.pop((lane, priority), []) + self.lanes[other, priority]
            self.lanes[other, priority] = sorted(both, key=lambda entry: entry.stamp)
        self.logs[other] |= self.logs.pop(lane, {})
        self.floods.pop(lane.partition(":")[0], None)

    def set_clock(self, by: int, *, keys: bool) -> None:
        """keys: what is kept for a while, to judge by it what comes next, is in keys that expire by this clock."""
        self.ahead += by
        if not keys:
            return
        for outage in self.outages.values():
            outage.last -= by
        if by > 0:
            self.floods.clear()

    # --- what can be seen

    def of(self, *states: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state in states]

    def count(self, *states: str) -> int:
        return len(self.of(*states))

    def check_windows(self) -> None:
        """As the receiver sees it: no window of any limit holds more than allowed."""
        for scope, times in self.left.items():
            rate = self.rate(scope)
            times.sort()
            for first, last in zip(times, times[rate.count :], strict=False) if rate.count else ():
                assert last - first >= rate.period * 1000, f"limits: {scope} exceeded within {last - first} ms"

    def ahead_of(self, entry: Entry, now: int) -> tuple[int, int]:
        """How many of its lane go before it: at least, and at most if all that ended are still in the way."""
        higher = PRIORITIES[: PRIORITIES.index(entry.priority)]
        own = list(self._waiting(entry.lane, entry.priority, now))
        least = sum(len(list(self._waiting(entry.lane, priority, now))) for priority in higher) + own.index(entry)
        ended = sum(
            (other.lane == entry.lane and other.state == "cancelled") or other.over for other in self.entries.values()
        )
        # Of what came by the same call, through another door.
        apart = sum(one.came == entry.came and one.message.send_at != entry.message.send_at for one in own)
        return least - apart, least + ended + apart + (entry.lane in self.held)

    def justifies(self, entry: Entry, reason: str, now: int) -> bool:
        """Whether a message can be said to wait for this."""
        lane, bot = entry.lane, entry.message.bot
        first = next(self._waiting(lane, entry.priority, now), None)
        known: Mapping[str, bool] = {
            "paused": bool(self.hand & {"*", bot, lane}),
            "schedule": entry.due > now + self.ahead and entry.state in ("door", "later"),
            "door": entry.state in ("door", "later"),
            "retry": first is not None and first.until > now,
            "chat_limit": self._log_free_at(lane) + self.slack > now,
            "bot_limit": self.limits.bot.count > 0,
            "outage": self.outages[bot].level > 0,
            "ahead": entry.state == "lane",
            "parent": entry.state == "lane" and self.is_held_up(entry),
            "turn": entry.state == "lane" and first is entry,
        }
        if reason in known:
            return known[reason]
        return any(self.pauses.get(scope, (0, ""))[0] > now for scope in (bot, lane))
