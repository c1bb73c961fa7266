"""The web server's application, `bot.web:app`. Whatever has a socket, a task or a thread is made in the lifespan, that
is in the process that serves: gunicorn imports this module before it forks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypedDict, cast

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot.broadcast_api import BroadcastApi
from bot.desk_api import DeskApi
from bot.lock import Lock
from bot.replies import refuse, reply
from bot.runtime import WEBHOOK_PATH, Runtime
from bot.settings import Settings, load_settings
from bot.turns import Turns
from bot.verb import Answer
from monitoring.health import Report


class State(TypedDict):
    runtime: Runtime


class _Webhook:
    """An ASGI application, and no function: Starlette would give that a request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await cast(Runtime, scope["state"]["runtime"]).webhook(scope, receive, send)
        except Exception:
            response = await _mistake()
            await response(scope, receive, send)
            raise  # the server logs it


_WEBHOOK = _Webhook()


class Application(Starlette):
    """Telegram's updates pass by all layers: routes, middleware and the handling of errors cost more than an update."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == WEBHOOK_PATH and scope["method"] == "POST":
            await _WEBHOOK(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None, voice: Lock | None = None, turns: Turns | None = None) -> Starlette:
    """The application; without `settings` it reads them from the environment when it starts. The rest: see Runtime."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        runtime = Runtime(settings or load_settings(), voice, turns)
        try:
            await runtime.start()
            yield {"runtime": runtime}
        finally:
            await runtime.stop()

    app = Application(
        routes=_routes(), lifespan=lifespan, exception_handlers={HTTPException: _http_error, 500: _mistake}
    )
    # Or DELETE /api/v1/dead/, with the id that a script left empty, would lead to the one that drops all.
    app.router.redirect_slashes = False
    return app


def _routes() -> list[Route]:
    return [
        # Other methods are refused here; below a root path (uvicorn --root-path) Application does not know it.
        Route(WEBHOOK_PATH, _WEBHOOK, methods=["POST"]),
        Route("/api/v1/messages", _send, methods=["POST"]),
        Route("/api/v1/messages/send", _send, methods=["POST"]),
        Route("/api/v1/messages/{id}", _message, methods=["GET"]),
        Route("/api/v1/messages/{id}", _desk(DeskApi.cancel), methods=["DELETE"]),
        Route("/api/v1/broadcasts", _broadcasts(BroadcastApi.start), methods=["POST"]),
        Route("/api/v1/broadcasts", _broadcasts(BroadcastApi.latest), methods=["GET"]),
        Route("/api/v1/broadcasts/{id}", _broadcasts(BroadcastApi.progress), methods=["GET"]),
        Route("/api/v1/broadcasts/{id}", _broadcasts(BroadcastApi.cancel), methods=["DELETE"]),
        Route("/api/v1/queue", _queue, methods=["GET"]),
        Route("/api/v1/dead", _desk(DeskApi.dead), methods=["GET"]),
        Route("/api/v1/dead", _desk(DeskApi.drop_all), methods=["DELETE"]),
        Route("/api/v1/dead/replay", _desk(DeskApi.replay_all), methods=["POST"]),
        Route("/api/v1/dead/{id}", _desk(DeskApi.dead_letter), methods=["GET"]),
        Route("/api/v1/dead/{id}", _desk(DeskApi.drop), methods=["DELETE"]),
        Route("/api/v1/dead/{id}/replay", _desk(DeskApi.replay), methods=["POST"]),
        Route("/api/v1/pause", _desk(DeskApi.pause), methods=["POST"]),
        Route("/api/v1/resume", _desk(DeskApi.resume), methods=["POST"]),
        Route("/api/v1/paused", _desk(DeskApi.paused), methods=["GET"]),
        Route("/health/live", _live, methods=["GET"]),
        Route("/health/ready", _ready, methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
    ]


def _runtime(request: Request) -> Runtime:
    return cast(Runtime, request.state.runtime)


def _broadcasts(answer: Answer[BroadcastApi]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer(_runtime(request).broadcast_api, request)

    return endpoint


def _desk(answer: Answer[DeskApi]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer(_runtime(request).desk_api, request)

    return endpoint


async def _send(request: Request) -> Response:
    return await _runtime(request).api.send(request)


async def _message(request: Request) -> Response:
    return await _runtime(request).api.message(request)


async def _queue(request: Request) -> Response:
    return await _runtime(request).api.queue(request)


async def _live(request: Request) -> Response:
    return _report(_runtime(request).health.live())


async def _ready(request: Request) -> Response:
    return _report(await _runtime(request).health.ready())


async def _health(request: Request) -> Response:
    return _report(await _runtime(request).health.whole())


def _report(report: Report) -> Response:
    return reply(report.as_json(), 200 if report.healthy else 503)


async def _metrics(request: Request) -> Response:
    runtime = _runtime(request)
    return Response(await runtime.metrics.page(runtime.snapshot, runtime.updates), media_type=CONTENT_TYPE_LATEST)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = refuse(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _mistake(*_: object) -> Response:
    return refuse(500, "a mistake inside telequeue; its log says more")


app = create_app()
