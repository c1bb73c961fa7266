"""Makes the clients of the queue's server: of one server, or of the primary that Sentinels or a cluster name.

All keys are in one slot, so a cluster is to us what Sentinels guard: one primary whose address may change. A connection
asks for the address whenever it is made, and is given up as soon as its server says that it is the wrong one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, Connection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from queueing.address import Address
from queueing.pipe import WRONG_SERVER, Pipe

_ASK_WITHIN = 1.0
"""Seconds that one Sentinel or node gets to say where the primary is, before the next one is asked."""

_CONNECTIONS = 32
"""Of one client at most; who asks while all are in use waits for one. redis-py's own pool would refuse the 101st."""

_PIPED = frozenset(("EVAL", "EVALSHA", "FCALL", "HMGET", "EXISTS", "FUNCTION", "BLMOVE"))
"""redis-py makes nothing else of their answers. None of these blocks the connection but BLMOVE: whoever asks that has a
client for it alone."""

_OF_THE_PRIMARY = ("host", "port", "db", "username", "password", "connection_class", "client_name")

Place = tuple[str, int]
_Answer = tuple[Place | None, list[Place]]
"""The primary, if it is known, and others that can be asked."""


def connect(
    redis_url: str, *, retry: Retry, timeout: float, key: str, name: str, answer_timeout: float | None = None
) -> "Redis":
    """A client, which connects when it is used.

    retry:   how often and when it tries again by itself; what may not run twice is asked of a client that does not.
    timeout: seconds for which a connection and, unless `answer_timeout` says otherwise, an answer is awaited.
    key:     a key of the slot that everything is in.
    name:    of the connections, for who looks at the server's.

    Raises ValueError for a URL that cannot be one.
    """
    address = Address.parse(redis_url)
    ours: dict[str, Any] = {
        "retry": retry,
        "socket_timeout": answer_timeout or timeout,
        "socket_connect_timeout": timeout,
        "client_name": name,
    }
    given = parse_url(address.url)
    encrypted = given.pop("connection_class", None) is SSLConnection
    options = {**ours, **given, "connection_class": _EncryptedConnection if encrypted else _PlainConnection}
    if address.kind != "server":
        options["find"] = _finder(address, given, encrypted=encrypted, key=key)
    options.setdefault("max_connections", _CONNECTIONS)
    return _Client(_Pool(**options, timeout=timeout), options["retry"], options["socket_timeout"])


class _Client(Redis):
    """redis-py's. Scripts, and what is asked as often, go through a pipe."""

    def __init__(self, pool: "_Pool", retry: Retry, timeout: float) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True  # it is this client's own, as with from_pool
        self._pipe = Pipe(pool.make_connection, retry, timeout)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in _PIPED:
            return await self._pipe.call(args)
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self._pipe.close()
        await super().aclose(close_connection_pool)


class _Pool(BlockingConnectionPool):
    """redis-py's, without its lock and its timer where nobody has to wait: they take a quarter of a command's time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting = 0
        self._moving = False

    def set_in_maintenance(self, in_maintenance: bool) -> None:
        self._moving = in_maintenance
        super().set_in_maintenance(in_maintenance)

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        if self._waiting or self._moving or not self.can_get_connection():
            return await self._wait_for_one()
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def _wait_for_one(self) -> Any:
        self._waiting += 1
        try:
            return await super().get_connection()  # type: ignore[no-untyped-call]
        finally:
            self._waiting -= 1


class _ToPrimary(Connection):
    """find: says where the primary is now; None: where it always is."""

    def __init__(self, *, find: Callable[[], Awaitable[Place]] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._find = find

    async def _connect(self) -> None:
        # The one place that every way of connecting anew passes, that of a retry too.
        if self._find is not None:
            self.host, self.port = await self._find()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except WRONG_SERVER as error:
            # Nothing was done; who asks again, asks the right one.
            await self.disconnect()
            raise NotConnected(f"{self.host}:{self.port} is not the primary: {error}") from error


class _PlainConnection(_ToPrimary):
    pass


class _EncryptedConnection(_ToPrimary, SSLConnection):
    pass


class _Finder:
    """Asks those who know one after the other, beginning with who answered last time."""

    def __init__(
        self,
        known: Sequence[Place],
        options: Mapping[str, Any],
        ask: Callable[["Redis", Place], Awaitable[_Answer]],
    ) -> None:
        self._known = list(known)
        self._options = options
        self._ask = ask

    async def __call__(self) -> Place:
        trouble = "nobody knows it"
        for place in list(self._known):
            try:
                primary, others = await self._ask_one(place)
            except (RedisError, OSError) as error:
                trouble = str(error) or type(error).__name__
                self._known.remove(place)
                self._known.append(place)
                continue
            self._known += [other for other in others if other not in self._known]
            if primary is not None:
                return primary
        raise NotConnected(f"the primary is not found: {trouble}")

    async def _ask_one(self, place: Place) -> _Answer:
        host, port = place
        client = Redis.from_pool(ConnectionPool(host=host, port=port, retry=Retry(NoBackoff(), 0), **self._options))
        try:
            async with asyncio.timeout(_ASK_WITHIN):
                return await self._ask(client, place)
        finally:
            await client.aclose()


def _finder(address: Address, given: Mapping[str, Any], *, encrypted: bool, key: str) -> _Finder:
    options = {option: value for option, value in given.items() if option not in _OF_THE_PRIMARY}
    options["connection_class"] = SSLConnection if encrypted else Connection
    if address.kind == "sentinel":
        return _Finder(address.hosts, options | dict(address.sentinel), partial(_ask_sentinel, address.service))
    options |= {option: given[option] for option in ("username", "password") if option in given}
    return _Finder(address.hosts, options, partial(_ask_node, key_slot(key.encode())))


async def _ask_sentinel(service: str, client: "Redis", _asked: Place) -> _Answer:
    found: Any = await client.sentinel_get_master_addr_by_name(service)
    return (_text(found[0]), int(found[1])) if found else None, []


async def _ask_node(slot: int, client: "Redis", asked: Place) -> _Answer:
    ranges: Any = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
    return _owner(ranges, slot, asked[0])


def _owner(ranges: list[Any], slot: int, asked: str) -> _Answer:
    """The primary of a slot, and all its nodes, in what CLUSTER SLOTS says: [first, last, primary, replica…], each node
    as [host, port, …]. Without a host, or with one unknown, it is the host that was asked."""
    for first, last, *nodes in ranges:
        if first <= slot <= last:
            places = [(_text(host) if host not in (None, b"", b"?") else asked, int(port)) for host, port, *_ in nodes]
            return places[0], places
    return None, []


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
