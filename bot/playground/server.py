"""The stand-in as a whole: one listening socket, its routes, and an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
from importlib import resources
from urllib.parse import unquote

from bot.playground.api import BotApi
from bot.playground.control import Control
from bot.playground.http import Connection, Request
from bot.playground.world import Config, World

ADA, BEN, CHLOE = 1001, 1002, 1003
FRIENDS = -2001
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
}
_PAGE_HEADERS = (
    "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"
    "Content-Security-Policy: default-src 'self'; img-src 'self' data:; frame-ancestors 'none'\r\n"
)


class Playground:
    """A running stand-in. `url` is its address; `world` is open to tests in the same process."""

    def __init__(self, config: Config) -> None:
        self.world = World(config)
        self.url = ""
        self._api = BotApi(self.world)
        self._control = Control(self.world)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.world.open_chat(ADA, "", {ADA: "Ada"})
        self.world.open_chat(FRIENDS, "Friends", {ADA: "Ada", BEN: "Ben", CHLOE: "Chloe"})
        if config.token:
            self.world.bot(config.token)

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one, `url` has the real one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._handle, self._connections), host, port, backlog=4096
        )
        real = self._server.sockets[0].getsockname()[1]
        self.url = f"http://[{host}]:{real}" if ":" in host else f"http://{host}:{real}"
        self.world.clock.start()

    async def close(self) -> None:
        """End deliveries, polls and connections, and free the port."""
        self.world.clock.stop()
        if self._server is not None:
            self._server.close()
        await self._control.close()
        for bot in self.world.bots.values():
            await bot.mailbox.close()
        self.world.events.close()
        for connection in list(self._connections):
            connection.close()
        if self._server is not None:
            await self._server.wait_closed()

    def _handle(self, request: Request) -> None:
        target = request.target
        if target.startswith((b"/bot", b"/file/bot")):
            self._api.handle(request)
            return
        path = unquote(target.partition(b"?")[0].decode("latin-1"))
        if path.startswith("/playground/"):
            self._control.handle(request, path.removeprefix("/playground/"))
        elif path in _PAGE and request.method == b"GET":
            name, kind = _PAGE[path]
            content = resources.files("bot.playground").joinpath("page", name).read_bytes()
            request.answer(200, content, kind, _PAGE_HEADERS)
        else:
            request.answer(404, b'{"ok":false,"error_code":404,"description":"Not Found"}')


async def start_playground(host: str = "127.0.0.1", port: int = 0, config: Config | None = None) -> Playground:
    """Start a stand-in in this event loop; `await playground.close()` ends it."""
    playground = Playground(config or Config())
    await playground.start(host, port)
    return playground


def is_loopback(host: str) -> bool:
    """Is this a loopback address? A name other than localhost is not trusted to be one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
