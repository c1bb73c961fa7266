"""The chat backend: any HTTP server with OpenAI's /chat/completions, asked for its answer as a stream.

An answer is a stream of events (SSE), `data: {json}` each, ended by `data: [DONE]`; a server that does not stream sends
one JSON object. Nothing is asked twice: an answer costs time and maybe money, and the person can ask again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import aiohttp
import orjson

from monitoring.logs import mask

CONNECT: Final = 5.0
"""Seconds to connect in."""

SILENCE: Final = 60.0
"""Seconds without anything new: a local model may have to be loaded first."""

WHOLE: Final = 180.0
"""Seconds that an answer may take."""

_LARGEST: Final = 2**20
"""Bytes of one event, or of an answer that is not streamed."""

Turn = Mapping[str, str]
"""One of a conversation: `role` (user, assistant or system) and `content`."""


class ChatFailed(Exception):
    """No answer, or no more of it. str() says why, for the log."""


class ChatBackend:
    """url: such as http://localhost:11434/v1. key: sent as a bearer token, if there is one."""

    def __init__(self, url: str, model: str, key: str | None = None) -> None:
        self._url = f"{url}/chat/completions"
        self._model = model
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def answer(self, turns: Sequence[Turn]) -> AsyncIterator[str]:
        """The pieces of the answer to the last turn, as they come. Raises ChatFailed."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=WHOLE, sock_connect=CONNECT, sock_read=SILENCE),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        body = {"model": self._model, "messages": list(turns), "stream": True}
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise ChatFailed(f"status {response.status}: {_excerpt(await response.content.read(1000))}")
                async for piece in _pieces(response):
                    yield piece
        except TimeoutError:
            raise ChatFailed(f"nothing came for {SILENCE:g} s, or no end within {WHOLE:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ChatFailed(mask(f"{type(error).__name__}: {error}")) from None


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    if response.content_type == "application/json":
        answer = await response.content.read(_LARGEST)
        async for chunk in response.content.iter_any():
            answer += chunk
            if len(answer) > _LARGEST:
                raise ChatFailed(f"an answer of more than {_LARGEST} bytes")
        yield _text(_parsed(answer), "message")
        return
    async for line in _lines(response.content):
        field, _, value = line.partition(b":")
        if field != b"data":
            continue  # comments that keep the connection open, and names of events
        if (value := value.strip()) == b"[DONE]":
            return
        if piece := _text(_parsed(value), "delta"):
            yield piece
    # Some servers just end. One that breaks off is told by aiohttp, since its last chunk is missing.


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > _LARGEST:
            raise ChatFailed(f"an event of more than {_LARGEST} bytes")
    if rest:
        yield rest


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ChatFailed(f"no JSON object: {_excerpt(text)}")
    if answer.get("error"):
        raise ChatFailed(f"an error: {_excerpt(orjson.dumps(answer['error']))}")
    return answer


def _text(answer: dict[str, Any], where: str) -> str:
    """What it adds to the answer; nothing, in an event that tells something else."""
    choices = answer.get("choices")
    if not choices and where == "delta":
        return ""  # such as one that only counts tokens
    try:
        content = choices[0][where].get("content")  # type: ignore[index]
    except (TypeError, LookupError, AttributeError):
        raise ChatFailed(f"no answer in it: {_excerpt(orjson.dumps(answer))}") from None
    return content if isinstance(content, str) else ""


def _excerpt(text: bytes) -> str:
    return repr(mask(text[:400].decode(errors="replace"))[:200])
