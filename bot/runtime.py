"""The one composition root: makes the parts of a process, starts them in order, and stops them in the opposite one."""

import asyncio
import logging
import os
import signal
import time
from functools import partial
from typing import Any

from bot.access import Access
from bot.api import Api
from bot.application import Builder, Hooks, Parts, make_application
from bot.backends import make_backends
from bot.bot_app import find
from bot.broadcast_api import BroadcastApi
from bot.broadcasts import Broadcasts
from bot.chat import ChatBackend
from bot.desk_api import DeskApi
from bot.endings import Endings
from bot.failed import FailedSends, failures_for
from bot.handling import Handling, taker_of_shared
from bot.identity import Identity
from bot.intake import InlineIntake, Intake, QueuedIntake
from bot.jobs import SharedJobQueue
from bot.labels import METHODS, REASONS
from bot.leadership import Election
from bot.lock import Lock
from bot.outbox import Outbox
from bot.polling import Poller, serve_webhook
from bot.queued_bot import QueuedBot
from bot.queues import left_by_others, make_queues
from bot.runner import Runner, updates_for
from bot.sender import Sender
from bot.services import Services
from bot.settings import Settings
from bot.spreading import Spreading
from bot.started import Started
from bot.state import Keeper
from bot.stateful import NoPersistence
from bot.stopping import EMPTYING, LAST_RESULTS
from bot.store import connect
from bot.transport import AiohttpRequest
from bot.turns import Turns
from bot.updates import UpdateLog
from bot.webhook import Webhook
from monitoring.health import Health
from monitoring.journal import Journal, UpdateJournal
from monitoring.metrics import Metrics
from monitoring.server_watch import ServerWatch
from monitoring.snapshot import Snapshot
from queueing.contract import Queue
from queueing.errors import QueueError
from queueing.events import Crashed, Enqueued, Event, Observer
from queueing.handover import Handover
from queueing.maintenance import Maintenance
from queueing.redis_inbox import RedisInbox
from queueing.retry import RetryPolicy
from queueing.tasks import end
from queueing.turns import Turn
from queueing.worker import Worker

_logger = logging.getLogger(__name__)

WEBHOOK_PATH = "/telegram/webhook"

_BESIDES_REDIS = 1.0
"""Seconds beyond REDIS_TIMEOUT after which a client of the HTTP API is told that the queue does not answer."""
_SHOW_WORKERS_EVERY = 1.0
_WATCH_EVERY = 5.0
_LOOK_AT_SERVER_EVERY = 10.0
_REGISTER_AGAIN = 1.0


class Runtime:
    """All that one process runs. Started on the event loop of the process, after any fork.

    voice: held by the one process of several that logs what all of them find; None: this one does.
    turns: shared with the other processes of this machine.

    `start` returns whether or not Redis and Telegram answer; `health` tells when they do. Raises RuntimeError when
    no token is set.
    """

    def __init__(self, settings: Settings, voice: Lock | None = None, turns: Turns | None = None) -> None:
        if settings.telegram_token is None:
            raise RuntimeError("TELEGRAM_TOKEN is not set; `telequeue up` runs against a local stand-in without it")
        self._settings = settings
        self._token = settings.telegram_token.get_secret_value()
        self._bot_id = self._token.partition(":")[0]
        self._started = Started()
        self._turns = turns or Turns()
        self._backends = make_backends(settings, self._bot_id, self._turns)
        self._shared = self._backends.shared
        self._inbox = self._shared.inbox if self._shared else None
        self._queues = make_queues(settings, self._bot_id, self._turns)
        self._front = self._queues.front
        self._request = AiohttpRequest(settings.send_timeout)
        self.metrics = Metrics([part.queue.backend for part in self._queues.parts], REASONS, METHODS)
        self._journal, self._update_journal = Journal(), UpdateJournal()
        self._endings = Endings(self._front.status)
        self._front.hear_ends(self._endings.told)
        self.snapshot = Snapshot(self._front)
        self._workers = self._make_workers()
        self._outbox = Outbox(
            self._front, self._observe_enqueued, self._bot_id, lambda m: self._queues.backend_of(m) == "redis"
        )
        self._broadcasts = self._make_broadcasts()
        self._election = Election(self._backends.seat, self._lead, self._turns.election)
        self._chat = self._make_chat()
        self._services = self._make_services()
        self._known = asyncio.Event()
        access = Access({name: key.get_secret_value() for name, key in settings.api_keys.items()})
        self.updates = Snapshot(self._inbox) if self._inbox else None
        self.api = self._make_api(self._outbox, access)
        self.broadcast_api = BroadcastApi(
            self._broadcasts, access, first_bodies=self._backends.first_bodies, timeout=self._patience
        )
        self.desk_api = DeskApi(self._front, access, own_bot=self._bot_id, timeout=self._patience, updates=self._inbox)
        self._voice = voice
        self._server = ServerWatch(self._front, self._may_speak)
        self._at_work = [*self._workers]
        self.health = Health(
            self.snapshot,
            self._at_work,
            self._server,
            lambda: self._identity.problem or self._hooks.problem,
            updates=self.updates,
            moves=self._turns.moves,
        )

    async def _make_application(self) -> None:
        """With the bot's handlers, by BOT_APP's function, which may be a coroutine. Raises BotAppFailed."""
        self._jobs = None if self._inbox is None else self._make_job_queue(self._inbox)
        parts = Parts(
            self._make_bot,
            self._services,
            shared=self._shared is not None,
            persistence=NoPersistence(),
            job_queue=self._jobs,
        )
        builder = Builder(parts)
        self._application = await make_application(find(self._settings.bot_app), builder)
        for name, why in builder.ignored.items():
            if self._may_speak():
                _logger.info("builder.%s() of BOT_APP changes nothing: %s", name, why)
        self._handling = self._make_handling(self._inbox, self._jobs) if self._inbox and self._jobs else None
        self._failed = FailedSends(self._application, self._inbox)
        self._intake = self._make_intake()
        may_ask = self._backends.seat.held if self._shared else lambda: True
        self._identity = Identity(self._application.initialize, self._backends.get_me, may_ask)
        self._hooks = Hooks(self._application)
        secret = self._settings.webhook_secret
        self.webhook = Webhook(
            self._intake, None if secret is None else secret.get_secret_value(), self.metrics.count_update
        )

    def _may_speak(self) -> bool:
        return self._voice is None or self._voice.number >= 0 or self._voice.take()

    def _make_bot(self, **said: Any) -> QueuedBot:
        """said: what BOT_APP's function told the builder about the bot."""
        return QueuedBot(
            self._token,
            api_url=self._settings.telegram_api_url,
            outbox=self._outbox,
            request=self._request,
            get_me_cache=self._backends.get_me,
            endings=self._endings,
            files=self._backends.files,
            wait=self._settings.wait_for_sends,
            **said,
        )

    def _make_chat(self) -> ChatBackend | None:
        url, model, key = self._settings.chat_api_url, self._settings.chat_model, self._settings.chat_api_key
        if url is None or model is None:
            return None
        return ChatBackend(url, model, None if key is None else key.get_secret_value())

    def _make_services(self) -> Services:
        return Services(
            self._front.stats,
            self._settings.limits,
            self._backends.line,
            self._chat,
            self._shared.subscribers if self._shared else None,
            self._broadcasts,
            self._settings.admin_chat_ids,
        )

    def _make_workers(self) -> list[Worker]:
        """One for each queue. They share a sender, so that a token that one queue learns serves the other, too."""
        settings = self._settings
        sender = Sender(
            self._front,
            api_url=settings.telegram_api_url,
            send_timeout=settings.send_timeout,
            request=self._request,
            own_token=self._token,
            files=self._backends.files,
        )
        policy = RetryPolicy(
            settings.max_attempts, settings.retry_base, settings.retry_max, uncertain=settings.uncertain_sends
        )
        return [
            Worker(
                part.queue,
                sender.deliver,
                workers=part.workers,
                policy=policy,
                observe=self._observer(part.queue.backend),
            )
            for part in self._queues.parts
        ]

    def _make_broadcasts(self) -> Broadcasts | None:
        if not self._shared:
            return None
        most = self._settings.queue_max
        return Broadcasts(self._shared.redis, self._front, self._outbox, self._bot_id, queue_max=most)

    def _make_job_queue(self, inbox: RedisInbox) -> SharedJobQueue:
        store = partial(connect, self._settings.redis_dsn, self._settings.redis_timeout)
        return SharedJobQueue(self._bot_id, inbox, store, self._settings.redis_timeout)

    def _make_handling(self, inbox: RedisInbox, jobs: SharedJobQueue) -> Handling:
        self._keeper = Keeper(self._application, inbox, self._bot_id)
        kinds = {
            "update": updates_for(self._application),
            "failed": failures_for(self._application),
            "job": jobs.work,
        }
        runner = Runner(inbox, self._outbox, self._keeper, kinds)
        return Handling(inbox, runner, self._observe_update, self._turns.updates.care)

    def _make_intake(self) -> Intake:
        if self._handling is not None:
            return QueuedIntake(self._handling.inbox, self._bot_id, self._handling.precedence.taking_in)
        return InlineIntake(self._application, UpdateLog())

    def _make_api(self, outbox: Outbox, access: Access) -> Api:
        return Api(
            self._front,
            outbox,
            access,
            first_bodies=self._backends.first_bodies,
            endings=self._endings,
            own_bot=self._bot_id,
            own_token=self._token,
            workers=self._settings.queue_workers,
            timeout=self._patience,
            sync_wait=self._settings.sync_wait,
            updates=self._inbox,
        )

    @property
    def _patience(self) -> float:
        """Seconds for which a client of the HTTP API waits for the queue at most."""
        return self._settings.redis_timeout + _BESIDES_REDIS

    def _observer(self, backend: str) -> Observer:
        """Of what happens in this one of the queues."""

        def observe(event: Event, /) -> None:
            if isinstance(event, Crashed):
                os.kill(os.getpid(), signal.SIGTERM)  # what it still has in hand is settled; gunicorn starts another
            self.metrics.count(event, backend)
            self._journal(event)
            self._endings(event)
            self._failed(event)
            if self._shared:
                self._shared.subscribers(event)

        return observe

    def _observe_update(self, event: Event, /) -> None:
        if isinstance(event, Crashed):
            os.kill(os.getpid(), signal.SIGTERM)
        self.metrics.count_run(event)
        self._update_journal(event)

    def _observe_enqueued(self, event: Event, /) -> None:
        assert isinstance(event, Enqueued)
        self.metrics.count(event, self._queues.backend_of(event.message))

    async def start(self) -> None:
        """Starts everything. What a part needs to be stopped for comes before it, and so is stopped after it.

        Raises BotAppFailed, with nothing started.
        """
        await self._make_application()
        self._started.callback(self.metrics.write)
        if self._shared:
            self._started.push_async_callback(self._shared.redis.aclose)
        if own := self._queues.own:
            # Before it takes up what was left, which has no token with it.
            await own.register(self._bot_id, self._token)
        for part in self._queues.parts:
            await self._started.begin(part.queue.start, part.queue.close)
        if self._handling:
            await self._started.begin(self._handling.start, self._handling.close)
            self._started.push_async_callback(self._keeper.close)
        self._started.push_async_callback(self._request.shutdown)
        if self._chat is not None:
            self._started.push_async_callback(self._chat.close)
        self._started.push_async_callback(self._hooks.post_shutdown)
        self._started.push_async_callback(self._application.shutdown)
        self._started.push_async_callback(self._failed.stop)
        if self._shared and self._broadcasts:
            spreading = Spreading(
                self._shared.redis,
                self._broadcasts,
                self._shared.subscribers,
                self._outbox,
                self._turns.spreading,
                self._turns.looking_after,
            )
            await self._started.begin(spreading.start, spreading.stop)
        for part, worker in zip(self._queues.parts, self._workers, strict=True):
            care = None if part.queue is own else self._turns.messages.care  # nobody else can care for its own
            maintenance = Maintenance(part.queue, self._observer(part.queue.backend), care)
            await self._started.begin(maintenance.start, maintenance.stop)
            await self._started.begin(worker.start, worker.stop)
        if own and len(self._queues.parts) == 1:  # else those who come after may have another part of the budget
            self._started.push_async_callback(self._empty, own)
        directories = partial(left_by_others, self._settings, self._bot_id)
        handover = Handover(self._front, directories, self._turns.handover)
        await self._started.begin(handover.start, handover.stop)
        self._started.repeat(_SHOW_WORKERS_EVERY, self._show_workers)
        self._started.in_background(self._watch(self._turns.watch if own is None else Turn()), "watch")
        self._started.repeat(_LOOK_AT_SERVER_EVERY, self._server.look)
        self._started.push_async_callback(self._stop_application)
        if self._handling:
            self._started.push_async_callback(self._handling.stop)
        self._started.in_background(self._come_up(), "come-up")
        await self._started.begin(self._election.start, self._election.stop)

    async def step_down(self) -> None:
        """Leaves it to other processes to speak to Telegram about updates. What comes over HTTP is still served.

        To be called as soon as the process is to end: it must not win an election any more, and tell Telegram of a
        webhook that those after it no longer have. Calls that wait for a message to end are answered as it is now; but
        where updates are handled in their requests, a little later: what has been sent by then is not sent again.
        """
        asyncio.get_running_loop().call_later(0.0 if self._handling else LAST_RESULTS, self._endings.give_up)
        await self._election.stop()

    async def stop(self) -> None:
        """Stops everything, so that nothing is lost: first what brings updates, then the handlers that run, then, once
        nothing new can come, the workers with the sends in their hands, and last what all of those need."""
        await self._started.aclose()

    async def _show_workers(self) -> None:
        self.metrics.show_workers(
            sum(worker.workers for worker in self._workers), sum(worker.busy for worker in self._workers)
        )

    async def _watch(self, turn: Turn) -> None:
        while True:
            await turn.wait(_WATCH_EVERY)
            if not await self.health.watch():
                turn.failed()

    async def _come_up(self) -> None:
        """What needs Redis and Telegram: however long they are away."""
        await self._register()
        await self._identity.learn()
        await self._hooks.post_init()
        await self._application.start()
        if self._handling:
            await self._handling.begin(taker_of_shared(self._queues.parts, self._workers))
            self._at_work.append(self._handling.worker)
        self._known.set()

    async def _register(self) -> None:
        said = None
        while True:
            try:
                return await self._front.register(self._bot_id, self._token)
            except QueueError as error:
                if type(error) is not said:  # its words may differ each time
                    _logger.error("waiting for the queue's server: %s", error)
                said = type(error)
            await asyncio.sleep(_REGISTER_AGAIN)

    async def _lead(self) -> None:
        """The duty of the process that holds the seat."""
        await self._known.wait()
        callbacks = asyncio.create_task(self._services.lead(), name="on-lead")
        try:
            await self._receive_updates()
        finally:
            await end(callbacks)

    async def _receive_updates(self) -> None:
        settings, bot = self._settings, self._application.bot
        if settings.webhook_url and settings.webhook_secret:
            url = settings.webhook_url + WEBHOOK_PATH
            await serve_webhook(bot, url, settings.webhook_secret.get_secret_value(), settings.allowed_updates)
        else:
            poller = Poller(
                bot,
                self._request,
                self._intake,
                self._backends.seat.held,
                settings.allowed_updates,
                self.metrics.count_update,
            )
            await poller.run()

    async def _stop_application(self) -> None:
        if self._application.running:
            await self._application.stop()
            await self._hooks.post_stop()

    async def _empty(self, own: Queue) -> None:
        """Lets the workers send what a queue within this process holds, for a while. It keeps the rest on disk."""
        ends = time.monotonic() + EMPTYING
        while time.monotonic() < ends:
            if not (await own.stats()).depth:
                return
            await asyncio.sleep(0.05)
