"""SharedJobQueue: PTB's JobQueue for several processes. Each occurrence of a job runs once, in whichever process gets
it, in the turn of its chat; jobs survive restarts. See docs/decisions/0020-jobs.md for what differs from one process.
"""

import inspect
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from telegram import Update
from telegram.ext import Job, JobQueue

from bot.blocking import BlockingRedis
from bot.job_callbacks import packed, reference, resolve, unpacked
from bot.job_records import Due, Record, Spec, may_be_of_start, new_token, start_id, start_print
from bot.job_schedule import ScheduledJob, Scheduler, next_run
from bot.job_store import JobStore
from bot.origin import origin_of_job
from bot.pickling import Pickler
from bot.run import current_run
from bot.runner import Work
from queueing.errors import MalformedMessage
from queueing.inbox import Inbox
from queueing.message import Message
from queueing.worker import takeovers_so_far

_logger = logging.getLogger(__name__)

_EARLY = 3600.0
"""Seconds before its time at which an occurrence is put off again: it was too far ahead for one message."""

_SUSPECT = 2
"""Take-overs after which an occurrence that kills its process once more is dead: see queueing/lua/grant.lua."""

_LOADED = frozenset({"callback", "data", "name", "chat_id", "user_id"})


class SharedJob(Job[Any]):
    """A job, known by its id. In a process there is one object for a job, as long as anyone holds it; what it is, it
    looks up when it is asked."""

    __slots__ = ("__weakref__",)

    def __init__(self, scheduled: ScheduledJob) -> None:  # what PTB's sets is looked up
        self._job = scheduled
        self._removed = False
        self._enabled = True

    def __getattr__(self, item: str) -> object:
        if item not in _LOADED:
            return super().__getattr__(item)
        queue, _ = self._job.args
        spec, due = queue.scheduler.record(self._job.id)
        self.fill(queue, spec, due)
        return getattr(self, item)

    def take(self, job: Job[Any]) -> None:
        """What PTB made of the arguments of a new job."""
        self.callback, self.data, self.name, self.chat_id, self.user_id = (
            job.callback,
            job.data,
            job.name,
            job.chat_id,
            job.user_id,
        )
        self._enabled = True

    def __reduce__(self) -> tuple[Any, ...]:
        """In what a bot keeps, a job is its id."""
        return _job_again, (self._job.args[0].bot_id, self._job.id)

    def fill(self, queue: "SharedJobQueue", spec: Spec, due: Due | None) -> None:
        self.callback = resolve(queue.application, spec.callback)
        self.data = unpacked(queue.application, due.data if due else None)
        self.name, self.chat_id, self.user_id = spec.name, spec.chat_id, spec.user_id
        self._enabled = due is not None and due.at is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self._job.id == other.id

    def __hash__(self) -> int:
        return hash(self._job.id)


_QUEUES: WeakValueDictionary[str, "SharedJobQueue"] = WeakValueDictionary()


def _job_again(bot_id: str, id: str) -> SharedJob:
    return _QUEUES[bot_id].job_of(id)


class SharedJobQueue(JobQueue[Any]):
    """See PTB's JobQueue. The methods that read jobs ask Redis, and hold up the process for as long.

    bot_id: whose jobs they are. connect: makes a client of the queue's server, which is waited for `timeout` seconds.
    """

    def __init__(self, bot_id: str, inbox: Inbox, connect: Callable[[], "Redis"], timeout: float) -> None:
        super().__init__()
        self.bot_id = bot_id
        _QUEUES[bot_id] = self
        self._blocking = BlockingRedis(connect, timeout)
        self._store = JobStore(bot_id, inbox, self._blocking, lambda: Pickler(self.application.bot))
        self.scheduler: Any = Scheduler(self, self._store)
        self._jobs: WeakValueDictionary[str, SharedJob] = WeakValueDictionary()
        self._running: set[str] = set()
        self._made: Counter[str] = Counter()
        self._own_start: set[str] = set()
        self._started_at = float("inf")

    async def start(self) -> None:
        await self.scheduler.make_the_rest()
        self.scheduler.start()
        self._started_at = time.time()

    async def stop(self, wait: bool = True) -> None:
        """Jobs that run belong to the worker of the inbox, which waits for them."""
        self.scheduler.shutdown()
        self._blocking.close()

    def run_once(self, *args: Any, **kwargs: Any) -> SharedJob:
        return self._add(super().run_once, *args, **kwargs)

    def run_repeating(self, *args: Any, **kwargs: Any) -> SharedJob:
        return self._add(super().run_repeating, *args, **kwargs)

    def run_daily(self, *args: Any, **kwargs: Any) -> SharedJob:
        return self._add(super().run_daily, *args, **kwargs)

    def run_monthly(self, *args: Any, **kwargs: Any) -> SharedJob:
        return self._add(super().run_monthly, *args, **kwargs)

    def run_custom(self, *args: Any, **kwargs: Any) -> SharedJob:
        return self._add(super().run_custom, *args, **kwargs)

    def get_jobs_by_name(self, name: str) -> tuple[Job[Any], ...]:
        return self._known(self._store.named(name))

    def jobs(self, pattern: str | re.Pattern[str] | None = None) -> tuple[SharedJob, ...]:
        """All of them: each is read, so this is for bots with few."""
        found = self._store.all()
        if pattern is not None:
            wanted = re.compile(pattern)
            found = {id: record for id, record in found.items() if record[0] and wanted.search(record[0].name)}
        return self._known(found)

    def job_of(self, id: str) -> SharedJob:
        """The job with this id, whether or not there is one. Nothing is asked before something of it is."""
        job = self._jobs.get(id)
        if job is None:
            job = self._jobs[id] = SharedJob(ScheduledJob(self.scheduler, id))
        return job

    def work(self, message: Message) -> Work:
        """What is to be done for an occurrence of a job that is due; see bot.runner.Kind."""
        id, token, chat, user, fields = map(message.body.get, ("job", "token", "chat", "user", "timeout_of"))
        if not isinstance(id, str) or not isinstance(token, str):
            raise MalformedMessage("an occurrence of a job names the job and itself")
        update = Update.de_json(fields, self.application.bot) if isinstance(fields, dict) else None
        about = origin_of_job(chat, user)
        return Work(lambda: self._take(id, token), update, chat_id=chat, user_id=user, about=about)

    async def _take(self, id: str, token: str) -> None:
        """Runs an occurrence, unless it is void."""
        (spec, due), (failed_spec, failed_due) = await self._store.load(id, token)
        if failed_spec and failed_due:  # its dead letter was replayed
            self._store.forget_failed(token)
            await self._call(id, failed_spec, failed_due)
        elif spec is None and due is not None:
            self._store.remove(id, "")
        elif spec and due and due.token == token:
            await self._take_due(id, spec, due)

    async def _take_due(self, id: str, spec: Spec, due: Due) -> None:
        """What follows the occurrence is set before it is run, and is part of the run's commit: of one that failed for
        the last time, too."""
        assert due.at is not None
        if await self._is_gone(id):
            _logger.warning(
                "job %s is not made any more by the code that made it at its start, and is removed", spec.name
            )
            self._store.remove(id, spec.name)
            return
        now = datetime.now(due.at.tzinfo)
        late = (now - due.at).total_seconds()
        if late < -_EARLY:
            self._store.follow(id, spec, replace(due, token=new_token()))
            return
        following = next_run(spec.trigger, due.at, now, coalesce=spec.coalesce)
        if following is None:
            self._store.finish(id, spec.name)
        elif takeovers_so_far() < _SUSPECT:
            self._store.follow(id, spec, Due(new_token(), following, due.data))
        else:
            self._store.set_apart(id, spec, due, Due(new_token(), following, due.data))
        if spec.grace is not None and late > spec.grace:
            _logger.warning("job %s is not run: it is %.1f s late, and %d were allowed", spec.name, late, spec.grace)
        else:
            await self._call(id, spec, due)

    async def _call(self, id: str, spec: Spec, due: Due) -> None:
        application, job = self.application, self.job_of(id)
        job.fill(self, spec, due)
        before = self._store.dumps(packed(job.data)[0], spec.name)
        self._running.add(id)
        try:
            context = application.context_types.context.from_job(job, application)
            await context.refresh_data()
            await job.callback(context)
        except Exception as error:  # whatever a job's callback raises
            _logger.debug("job %s failed", spec.name, exc_info=True)
            await application.process_error(None, error, job=job)
            self._store.keep_failed(spec, due)
        finally:
            self._running.discard(id)
        data = packed(job.data)[0]
        if (planned := self._store.planned(id)) and self._store.dumps(data, spec.name) != before:
            self._store.keep_data(id, replace(planned, data=data))

    async def _is_gone(self, id: str) -> bool:
        """Whether the job was made at start, but not by this process, which started after those that made it."""
        if id in self._own_start or not may_be_of_start(id):
            return False
        return 0 < await self._store.made_at(id) < self._started_at

    def _known(self, records: Mapping[str, Record]) -> tuple[SharedJob, ...]:
        jobs = []
        for id, (spec, due) in records.items():
            job = self.job_of(id)
            try:
                if id not in self._running and spec is not None:
                    job.fill(self, spec, due)
            except LookupError:
                _logger.exception("a job is left out of what is listed")
                continue
            jobs.append(job)
        return tuple(jobs)

    def _add(self, method: Callable[..., Job[Any]], *args: Any, **kwargs: Any) -> SharedJob:
        given = inspect.signature(method).bind(*args, **kwargs).arguments
        if not self.scheduler.running and current_run() is None:
            given["job_kwargs"] = {**(given.get("job_kwargs") or {}), **self._of_start(method.__name__, given)}
        job = method(**given)
        shared = self.job_of(job.job.id)
        shared.take(job)
        return shared

    def _of_start(self, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The id of a job that is made at start, and the digest of how it is made. Of those that differ only in their
        times the first is the first in every process."""
        callback, job_kwargs = given["callback"], dict(given.get("job_kwargs") or {})
        name = str(given.get("name") or getattr(callback, "__name__", type(callback).__name__))
        about = [reference(self.application, callback), *(given.get(part) for part in ("data", "chat_id", "user_id"))]
        what = [self._store.dumps(part, name) for part in about]
        number = str(self._made[start_id(name, what)]).encode()
        self._made[start_id(name, what)] += 1
        id = job_kwargs.pop("id", None) or start_id(name, [*what, number])
        how = {part: value for part, value in given.items() if part not in ("callback", "job_kwargs")} | job_kwargs
        self._own_start.add(id)
        return {"id": id, "start_print": start_print([method.encode(), self._store.dumps(sorted(how.items()), name)])}
