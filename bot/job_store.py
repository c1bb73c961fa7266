"""What is kept of jobs in Redis, below the queue's hash tag: until a job is removed or over.

| key                 | type   | field → holds                                                                 |
|---------------------|--------|-------------------------------------------------------------------------------|
| jobs:BOT            | hash   | id → Spec: what the job is (pickled)                                          |
| jobs:BOT:next       | hash   | id → Due: its next occurrence, and its data (pickled)                         |
| jobs:BOT:name:NAME  | hash   | id → "": the jobs of a name (as its digest)                                   |
| jobs:BOT:made       | hash   | id → "time print": jobs made at start, when last, and the digest of how       |
| jobs:BOT:ran:ID     | string | a job made at start that runs once; until an hour after that                  |
| jobs:BOT:failed:TOKEN | hash | spec, due: an occurrence that is a dead letter; TTL 30 days                   |

Only those who schedule write a Spec; an occurrence writes the Due of the one after it, or removes the job after its
last, and that only if it finds them as they were. So a job that is removed, paused or rescheduled while it runs
elsewhere stays so. A Due without a Spec is taken away by the next occurrence.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import WatchError

from bot.blocking import BlockingRedis
from bot.job_callbacks import place_of
from bot.job_records import WITH_NAME, Due, Record, Spec, as_dict, digest_of, may_be_of_start
from bot.pickling import Pickler, StateError
from bot.run import Run, current_run
from bot.store import below_tag
from queueing.contract import DEAD_DAYS
from queueing.inbox import Conflict, Inbox, Write
from queueing.message import MOST_SECONDS, Message, encode

_logger = logging.getLogger(__name__)

_RAN_KEPT = 3600
_FAR = MOST_SECONDS - 86_400
"""Seconds for which a message is scheduled at most; an occurrence that is farther gets there in several steps."""

_Pair = tuple[bytes | None, bytes | None]
_NOTHING: _Pair = (None, None)
_SAME: Final = object()


class JobStore:
    """The jobs of one bot. Within a run, changes are part of its commit, and reads see them; outside they are made at
    once. Methods that are no coroutines hold up the process for a round trip. All raise QueueUnavailable.
    """

    def __init__(self, bot: str, inbox: Inbox, blocking: BlockingRedis, pickler: Callable[[], Pickler]) -> None:
        self._bot = bot
        self._front = below_tag(f"updates:{bot}")
        self._inbox = inbox
        self._blocking = blocking
        self._pickler = pickler
        self._specs = f"jobs:{bot}"
        self._dues = f"jobs:{bot}:next"
        self._made = f"jobs:{bot}:made"

    async def load(self, id: str, token: str) -> tuple[Record, Record]:
        """A job as it is stored, and what is kept of that occurrence if it failed for good before."""
        failed = self._failed(token)
        places = [(self._specs, id), (self._dues, id), (failed, "spec"), (failed, "due")]
        spec, due, *of_failed = await self._inbox.read(places)
        if run := current_run():
            run.seen.update(zip(places, (spec, due), strict=False))
        return self._record(id, spec, due), self._record(id, *of_failed)

    def keep_failed(self, spec: Spec, due: Due) -> None:
        """Keeps what a failed occurrence needs to be run after all, as long as its dead letter is kept."""
        self._change(self._failed_writes(spec, due), [])

    def forget_failed(self, token: str) -> None:
        self._change([Write(self._failed(token), part, None) for part in ("spec", "due")], [])

    async def made_at(self, id: str) -> float:
        """Unix seconds at which a process last made this job at its start; 0 for another job."""
        if not may_be_of_start(id):
            return 0.0
        (made,) = await self._inbox.read([(self._made, id)])
        return float((made or b"0").split()[0])

    def find(self, id: str) -> Record:
        """A job as the caller's run sees it."""
        return self._record(id, *self._stored([id])[id])

    def named(self, name: str) -> Mapping[str, Record]:
        """The jobs of a name."""
        key = self._name_key(digest_of(name.encode()))
        ids = self._blocking.ask(lambda redis: _fields_of(redis, below_tag(key)))
        return self._records(self._stored(list(dict.fromkeys([*ids, *_changed(key)]))))

    def all(self) -> Mapping[str, Record]:
        stored = self._blocking.ask(self._read_all)
        specs, dues = _changed(self._specs), _changed(self._dues)
        return self._records(
            {id: _over(id, stored.get(id, _NOTHING), specs, dues) for id in dict.fromkeys([*stored, *specs])}
        )

    def put(self, id: str, spec: Spec, due: Due) -> None:
        """Adds a job, or replaces it."""
        self._change(self._writes(id, spec, due), self._messages(id, spec, due))

    def plan(self, id: str, spec: Spec, due: Due) -> None:
        """Sets its next occurrence."""
        self._change([self._due(id, due)], self._messages(id, spec, due))

    def follow(self, id: str, spec: Spec, due: Due) -> None:
        """Sets what follows the occurrence that the caller's run is of, unless others change the job before it ends."""
        self._change([self._due(id, due)], self._messages(id, spec, due), merge=True)

    def set_apart(self, id: str, spec: Spec, due: Due, following: Due) -> None:
        """Sets what follows an occurrence now, whatever becomes of its run, which goes on as one that failed."""
        run, next_write = current_run(), self._due(id, following)
        writes = [*self._failed_writes(spec, due), next_write]
        messages = self._messages(id, spec, following)
        self._blocking.ask(lambda redis: self._apply(redis, writes, messages))
        self.forget_failed(due.token)
        if run is not None:
            run.seen[self._dues, id] = next_write.value
        self._change([next_write], [], merge=True)

    def keep_data(self, id: str, due: Due) -> None:
        """Sets its data, `due` being the occurrence that is set already."""
        run, place = current_run(), (self._dues, id)
        gives_way = run is not None and place in run.merge
        self._change([self._due(id, due)], [], merge=gives_way)
        if run is not None and gives_way:
            run.merge[place] = partial(self._give_way, run, data=due.data)

    def planned(self, id: str) -> Due | None:
        """The next occurrence, if the caller's run has set it."""
        due = _changed(self._dues).get(id)
        return None if due is None else self._record(id, None, due)[1]

    def finish(self, id: str, name: str) -> None:
        """Removes the job with the run of its last occurrence, unless others change it before."""
        self._change(self._removal(id, name), [], merge=True)

    def remove(self, id: str, name: str | None = None) -> None:
        """No further occurrence is run. name: the job's, if the caller has it at hand."""
        self._change(self._removal(id, name), [])

    def _removal(self, id: str, name: str | None) -> list[Write]:
        found = WITH_NAME.fullmatch(id)
        if name is None and found is None and (spec := self.find(id)[0]):
            name = spec.name
        digest = found[1] if found else digest_of((name or "").encode())
        writes = [Write(self._specs, id, None), Write(self._dues, id, None), Write(self._name_key(digest), id, None)]
        if may_be_of_start(id):
            writes.append(Write(self._made, id, None))
        return writes

    def make(self, id: str, spec: Spec, due: Due, once: bool, print: str) -> None:
        """Adds a job that every process makes at its start: it is there once, and anew only if the code makes it in
        another way."""
        writes, messages = self._writes(id, spec, due), self._messages(id, spec, due)
        kept = max(0, int((due.at.timestamp() if due.at else 0) - time.time())) + _RAN_KEPT if once else 0
        self._blocking.ask(lambda redis: self._make(redis, id, writes, messages, kept, print))

    def dumps(self, value: object, name: str) -> bytes:
        return self._pickler().dumps(value, name)

    async def _make(
        self, redis: "Redis", id: str, writes: Sequence[Write], messages: Sequence[Message], kept: int, print: str
    ) -> None:
        made, ran = below_tag(self._made), below_tag(f"jobs:{self._bot}:ran:{id}")
        async with redis.pipeline(transaction=True) as pipeline:
            while True:
                await pipeline.watch(below_tag(self._specs), ran)
                there = bool(await pipeline.hexists(below_tag(self._specs), id))
                before: Any = await pipeline.hget(made, id) or b""
                is_over = bool(await pipeline.exists(ran)) and not there
                pipeline.multi()  # type: ignore[no-untyped-call]
                if not is_over:
                    pipeline.hset(made, id, f"{time.time():.3f} {print}")
                if not is_over and (not there or before.decode().rpartition(" ")[2] != print):
                    self._store(pipeline, writes, messages)
                    if kept:
                        pipeline.set(ran, "", ex=kept)
                try:
                    await pipeline.execute()
                except WatchError:
                    continue
                return

    def _change(self, writes: Sequence[Write], messages: Sequence[Message], *, merge: bool = False) -> None:
        """merge: what the run has seen is not overwritten with this if others have changed it by its commit."""
        run = current_run()
        if run is None:
            self._blocking.ask(lambda redis: self._apply(redis, writes, messages))
            return
        ids = {write.field for write in writes if write.key == self._dues}
        if any(write.key == self._specs for write in writes) or messages:
            run.updates[:] = [update for update in run.updates if update.body.get("job") not in ids]
        for write in writes:
            place = write.key, write.field
            run.writes[place] = write
            run.merge.pop(place, None)
            if merge and place in run.seen:
                run.writes[place] = replace(write, seen=run.seen[place])
                run.merge[place] = partial(self._give_way, run)
        run.updates += messages

    def _give_way(self, run: Run, conflict: Conflict, data: object = _SAME) -> None:
        """What others have made of the job stands, but for the data that the run has changed."""
        id, failed = conflict.write.field, self._failed("")
        for place in [(key, field) for key, field in run.writes if field == id and not key.startswith(failed)]:
            del run.writes[place]
        run.updates[:] = [update for update in run.updates if update.body.get("job") != id]
        if data is not _SAME and conflict.holds is not None:
            theirs = self._record(id, None, conflict.holds)[1]
            assert theirs is not None
            run.writes[self._dues, id] = replace(self._due(id, replace(theirs, data=data)), seen=conflict.holds)

    async def _apply(self, redis: "Redis", writes: Sequence[Write], messages: Sequence[Message]) -> None:
        async with redis.pipeline(transaction=True) as pipeline:
            self._store(pipeline, writes, messages)
            await pipeline.execute()

    def _store(self, pipeline: Any, writes: Sequence[Write], messages: Sequence[Message]) -> None:
        for write in writes:
            if write.value is None:
                pipeline.hdel(below_tag(write.key), write.field)
            else:
                pipeline.hset(below_tag(write.key), write.field, write.value)
            if write.ttl is not None:
                pipeline.expire(below_tag(write.key), write.ttl)
        for message in messages:
            pipeline.rpush(self._front, b'{"open":true,' + encode(message)[1:])  # as RedisInbox puts it

    def _writes(self, id: str, spec: Spec, due: Due) -> list[Write]:
        name_key = self._name_key(digest_of(spec.name.encode()))
        spec_write = Write(self._specs, id, self.dumps(as_dict(spec), f"job {spec.name}"))
        return [spec_write, self._due(id, due), Write(name_key, id, b"")]

    def _due(self, id: str, due: Due) -> Write:
        return Write(self._dues, id, self.dumps(as_dict(due), "the data of a job"))

    def _messages(self, id: str, spec: Spec, due: Due) -> list[Message]:
        """What brings the occurrence to some process, in the turn of its chat; nothing of one that is paused."""
        if due.at is None:
            return []
        chat, user = (None if about is None else str(about) for about in (spec.chat_id, spec.user_id))
        body: dict[str, Any] = {
            "job": id,
            "name": spec.name,
            "token": due.token,
            "chat": spec.chat_id,
            "user": spec.user_id,
        }
        if fields := place_of(due.data):
            body["timeout_of"] = fields
        lane = chat or user or f"job.{digest_of(id.encode())}"
        return [
            Message(
                bot=self._bot,
                chat=lane,
                also=user,
                id=f"j{due.token}",
                body=body,
                send_at=max(0.0, min(due.at.timestamp(), time.time() + _FAR)),
            )
        ]

    def _failed_writes(self, spec: Spec, due: Due) -> list[Write]:
        key, ttl = self._failed(due.token), DEAD_DAYS * 86_400
        parts = (("spec", spec), ("due", due))
        return [Write(key, part, self.dumps(as_dict(it), spec.name), ttl=ttl) for part, it in parts]

    def _failed(self, token: str) -> str:
        return f"{self._specs}:failed:{token}"

    def _name_key(self, digest: str) -> str:
        return f"{self._specs}:name:{digest}"

    def _stored(self, ids: Sequence[str]) -> Mapping[str, _Pair]:
        """Of these jobs, what the caller's run sees; Redis is asked only for what the run did not change itself."""
        specs, dues = _changed(self._specs), _changed(self._dues)
        unknown = [id for id in ids if id not in specs or id not in dues]
        stored = self._blocking.ask(lambda redis: self._read(redis, unknown)) if unknown else {}
        return {id: _over(id, stored.get(id, _NOTHING), specs, dues) for id in ids}

    async def _read(self, redis: "Redis", ids: Sequence[str]) -> Mapping[str, _Pair]:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(below_tag(self._specs), list(ids))
            pipeline.hmget(below_tag(self._dues), list(ids))
            specs, dues = await pipeline.execute()
        return {id: (spec, due) for id, spec, due in zip(ids, specs, dues, strict=True)}

    async def _read_all(self, redis: "Redis") -> Mapping[str, _Pair]:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(below_tag(self._specs))
            pipeline.hgetall(below_tag(self._dues))
            specs, dues = await pipeline.execute()
        return {id.decode(): (spec, dues.get(id)) for id, spec in specs.items()}

    def _records(self, found: Mapping[str, _Pair]) -> Mapping[str, Record]:
        records = {}
        for id, (spec, due) in found.items():
            if spec is not None:
                try:
                    records[id] = self._record(id, spec, due)
                except StateError:  # a bot that lists its jobs shall not lose them all by one
                    _logger.exception("a job is left out of what is listed")
        return records

    def _record(self, id: str, spec: bytes | None, due: bytes | None) -> Record:
        pickler = self._pickler()
        return (
            None if spec is None else Spec(**pickler.loads(spec, f"job {id}")),
            None if due is None else Due(**pickler.loads(due, f"the data of job {id}")),
        )


def _changed(key: str) -> dict[str, bytes | None]:
    """What the caller's run set and deleted of a hash; the last change of a field counts."""
    run = current_run()
    return {} if run is None else {field: it.value for (its, field), it in run.writes.items() if its == key}


def _over(id: str, stored: _Pair, specs: Mapping[str, bytes | None], dues: Mapping[str, bytes | None]) -> _Pair:
    return specs.get(id, stored[0]), dues.get(id, stored[1])


async def _fields_of(redis: "Redis", key: str) -> Sequence[str]:
    found: Any = await redis.hkeys(key)
    return [field.decode() for field in found]
