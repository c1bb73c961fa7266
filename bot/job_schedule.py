"""When jobs run: what PTB's JobQueue and Job ask of APScheduler's scheduler and jobs, on top of the JobStore.

Its triggers compute the times. Nothing waits here: occurrences are messages of the inbox that are due later.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from apscheduler.util import undefined

from bot.job_callbacks import packed, reference
from bot.job_records import Due, Spec, new_id, new_token
from bot.job_store import JobStore
from queueing.errors import QueueFull, QueueUnavailable

if TYPE_CHECKING:
    from bot.jobs import SharedJob, SharedJobQueue

_TRIGGERS: Final[Mapping[str, type]] = {
    "date": DateTrigger,
    "interval": IntervalTrigger,
    "cron": CronTrigger,
    "calendarinterval": CalendarIntervalTrigger,
}
_STEPS = 1_000
_AGAIN = 1.0

_logger = logging.getLogger(__name__)


def next_run(trigger: Any, fired: datetime, now: datetime, *, coalesce: bool) -> datetime | None:
    """The occurrence after that of `fired`; of several that were missed the first or, to coalesce, none of them."""
    now = max(now, fired)  # the server says what is due: by a clock that is behind, cron would name the same once more
    following: datetime | None = trigger.get_next_fire_time(fired, now)
    if not coalesce:
        return following
    for _ in range(_STEPS):
        if following is None or following > now:
            return following
        following = trigger.get_next_fire_time(following, now)
    afresh: datetime | None = trigger.get_next_fire_time(None, now)  # so many were missed: from here, not one by one
    return afresh if afresh is None or afresh > now else None


class ScheduledJob:
    """What `telegram.ext.Job.job` is: APScheduler's handle of a job. It asks for what it tells."""

    def __init__(self, scheduler: "Scheduler", id: str) -> None:
        self._scheduler = scheduler
        self.id = id

    @property
    def args(self) -> "tuple[SharedJobQueue, SharedJob]":
        return self._scheduler.queue, self._scheduler.queue.job_of(self.id)

    @property
    def name(self) -> str:
        return self._scheduler.record(self.id)[0].name

    @property
    def trigger(self) -> Any:
        return self._scheduler.record(self.id)[0].trigger

    @property
    def next_run_time(self) -> datetime | None:
        """None: it is paused, over, or removed."""
        due = self._scheduler.store.find(self.id)[1]
        return due.at if due else None

    def remove(self) -> None:
        self._scheduler.remove_job(self.id)

    def pause(self) -> "ScheduledJob":
        return self._scheduler.pause_job(self.id)

    def resume(self) -> "ScheduledJob | None":
        return self._scheduler.resume_job(self.id)

    def reschedule(self, trigger: Any, **trigger_args: Any) -> "ScheduledJob":
        return self._scheduler.reschedule_job(self.id, trigger=trigger, **trigger_args)

    def modify(self, *, next_run_time: datetime | None) -> "ScheduledJob":
        """Only the next time can be changed."""
        return self._scheduler.modify_job(self.id, next_run_time=next_run_time)

    def __str__(self) -> str:
        return self.id


class Scheduler:
    """In the place of PTB's AsyncIOScheduler. Executors, job stores and listeners there are none."""

    def __init__(self, queue: "SharedJobQueue", store: JobStore) -> None:
        self.queue = queue
        self.store = store
        self.running = False
        self.timezone: tzinfo = UTC
        self._unmade: list[Callable[[], None]] = []

    def configure(self, *, timezone: tzinfo = UTC, **_options: Any) -> None:
        self.timezone = timezone

    def start(self) -> None:
        self.running = True

    async def make_the_rest(self) -> None:
        """Makes what could not be made at start, however long Redis is away."""
        said = False
        while self._unmade:
            try:
                await asyncio.to_thread(self._unmade[0])
            except (QueueFull, QueueUnavailable) as error:
                if not said:
                    _logger.error("the jobs made at start have to wait: %s", error)
                said = True
                await asyncio.sleep(_AGAIN)
            else:
                del self._unmade[0]

    def _make(self, make: Callable[[], None]) -> None:
        try:
            make()
        except (QueueFull, QueueUnavailable):
            self._unmade.append(make)

    def shutdown(self, wait: bool = True) -> None:
        self.running = False

    def add_job(
        self,
        _func: Any,
        trigger: Any = None,
        args: "Sequence[Any]" = (),
        *,
        name: str,
        id: str | None = None,
        misfire_grace_time: int | None = None,
        coalesce: bool = True,
        next_run_time: Any = undefined,
        replace_existing: bool = False,
        start_print: str | None = None,
        max_instances: int = 1,
        executor: str = "default",
        jobstore: str = "default",
        **trigger_args: Any,
    ) -> ScheduledJob:
        """See SharedJobQueue for what differs from APScheduler's. start_print: it is made at start, in this way."""
        job: SharedJob = args[1]
        application = self.queue.application
        data, chat_id, user_id = packed(job.data)
        spec = Spec(
            callback=reference(application, job.callback),
            name=name,
            chat_id=_number("chat_id", chat_id if job.chat_id is None else job.chat_id),
            user_id=_number("user_id", user_id if job.user_id is None else job.user_id),
            trigger=self._trigger(trigger, trigger_args),
            grace=misfire_grace_time,
            coalesce=coalesce,
        )
        now = datetime.now(self.timezone)
        at = spec.trigger.get_next_fire_time(None, now) if next_run_time is undefined else next_run_time
        due, is_new = Due(new_token(), at, data), id is None
        id = new_id(name) if id is None else id
        if at is None and next_run_time is undefined:
            return ScheduledJob(self, id)  # it never runs
        if start_print is not None:
            once = isinstance(spec.trigger, DateTrigger)
            self._make(lambda: self.store.make(id, spec, due, once, start_print))
        elif not is_new and not replace_existing and self.store.find(id)[0]:
            raise ConflictingIdError(id)
        else:
            self.store.put(id, spec, due)
        return ScheduledJob(self, id)

    def record(self, id: str) -> tuple[Spec, Due | None]:
        """Raises JobLookupError if there is no such job."""
        spec, due = self.store.find(id)
        if spec is None:
            raise JobLookupError(id)
        return spec, due

    def get_jobs(self, jobstore: str | None = None) -> list[ScheduledJob]:
        return [ScheduledJob(self, id) for id in self.store.all()]

    def get_job(self, job_id: str, jobstore: str | None = None) -> ScheduledJob | None:
        return ScheduledJob(self, job_id) if self.store.find(job_id)[0] else None

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        self.store.remove(job_id)

    def pause_job(self, job_id: str, jobstore: str | None = None) -> ScheduledJob:
        return self.modify_job(job_id, next_run_time=None)

    def resume_job(self, job_id: str, jobstore: str | None = None) -> ScheduledJob | None:
        trigger = self.record(job_id)[0].trigger
        at = trigger.get_next_fire_time(None, datetime.now(self.timezone))
        if at is None:
            self.remove_job(job_id)
            return None
        return self.modify_job(job_id, next_run_time=at)

    def modify_job(self, job_id: str, *, next_run_time: datetime | None) -> ScheduledJob:
        spec, due = self.record(job_id)
        self.store.plan(job_id, spec, Due(new_token(), next_run_time, due.data if due else None))
        return ScheduledJob(self, job_id)

    def reschedule_job(self, job_id: str, *, trigger: Any, **trigger_args: Any) -> ScheduledJob:
        spec, due = self.record(job_id)
        spec = replace(spec, trigger=self._trigger(trigger, trigger_args))
        at = spec.trigger.get_next_fire_time(None, datetime.now(self.timezone))
        self.store.put(job_id, spec, Due(new_token(), at, due.data if due else None))
        return ScheduledJob(self, job_id)

    def _trigger(self, trigger: Any, trigger_args: dict[str, Any]) -> Any:
        if not isinstance(trigger, str):
            return trigger or DateTrigger(timezone=self.timezone)
        if trigger not in _TRIGGERS:
            raise LookupError(
                f"there is no trigger {trigger!r}; give date, interval, cron, calendarinterval or an object"
            )
        return _TRIGGERS[trigger](**{"timezone": self.timezone, **trigger_args})


def _number(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53):
        return value
    raise ValueError(f"the {name} of a job must be a whole number")
