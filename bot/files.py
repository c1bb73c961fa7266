"""Files of queued calls: read when the call is queued, kept out of the list, and sent with it.

PTB's own objects are taken apart as PTB takes them apart; by then it has read what a path or an open file held. What it
leaves to a Bot API server on the same disk (`file://`, also of a path in an InputMedia) is not read here either: a bot
that puts what a person wrote there would give away its own files.
"""

import asyncio
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import IO, Any

from telegram import InputFile
from telegram.error import BadRequest
from telegram.request._requestparameter import RequestParameter  # turns PTB's objects into JSON's, as PTB itself does

from bot.call import ATTACH, MAX_FILE, MAX_NAME, FileRef
from bot.file_store import FileStore
from bot.multipart import Part
from queueing.errors import QueueError

MAX_PHOTO = 10 * 1024 * 1024
"""Bytes of what is sent as a photo."""

_LOCAL = re.compile(r"\s*file://", re.IGNORECASE)


class Files:
    """The files of calls, in a store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def pack(self, data: Mapping[str, Any], *, until: float = 0.0) -> tuple[dict[str, Any], dict[str, FileRef]]:
        """The parameters of a call as PTB's rate limiter sees them → the same of JSON's types, and the files among
        them, which are in the store from now on: `kwargs` (with chat_id and text) and `files` of a message's body.

        until: Unix seconds before which the message is not sent.

        Raises PTB's BadRequest for what Telegram would not take, QueueFull and QueueUnavailable.
        """
        parameters, found = _taken_apart(data)
        photos = frozenset(_photos(parameters)) | {"photo"}
        refs: dict[str, FileRef] = {}
        try:
            for name, file in found.items():
                refs[name] = await self._store_one(file, MAX_PHOTO if name in photos else MAX_FILE, until)
        except BaseException:
            await self.let_go(refs)
            raise
        return parameters, refs

    async def _store_one(self, file: InputFile, most: int, until: float) -> FileRef:
        content = await _content_of(file.input_file_content, most)
        if not content:
            raise BadRequest("file must be non-empty")
        if len(content) > most:
            raise BadRequest(f"file is too big: it may have {most} bytes at most")
        key = await asyncio.to_thread(lambda: sha256(content).hexdigest())
        use = secrets.token_hex(16)
        await self._store.put(key, content, use, until)
        name = "".join(letter if letter.isprintable() else "_" for letter in file.filename)[:MAX_NAME]
        return FileRef(key=key, name=name or "file", type=file.mimetype, size=len(content), use=use)

    async def open(self, refs: Mapping[str, FileRef]) -> Sequence[Part]:
        """What is to be sent. Raises FileGone and QueueUnavailable; so do the parts, while they are read."""
        return [await self._open(name, ref) for name, ref in refs.items()]

    async def _open(self, name: str, ref: FileRef) -> Part:
        size = await self._store.size(ref["key"])
        return Part(name, ref["name"], ref["type"], size, partial(self._store.read, ref["key"], size))

    async def let_go(self, refs: Mapping[str, FileRef]) -> None:
        """These were sent, or will not be: the store need not keep them for their sake. Never raises: it forgets them
        anyway, only later."""
        for ref in refs.values():
            if "use" in ref:
                try:
                    await self._store.let_go(ref["key"], ref["use"])
                except QueueError:
                    return


def _taken_apart(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, InputFile]]:
    """→ parameters of JSON's types, and the files by the names of their parts."""
    parameters: dict[str, Any] = {}
    files: dict[str, InputFile] = {}
    for name, value in data.items():
        parameter = RequestParameter.from_input(name, value)
        for file in parameter.input_files or ():
            files[file.attach_name or name] = file
        # PTB passes over some that are beside the medium itself: a cover, or the thumbnail of one that has a file_id.
        value = _with_uris(name, parameter.value, files)
        if value is not None:
            parameters[name] = value
    return parameters, files


def _with_uris(name: str, value: Any, files: dict[str, InputFile]) -> Any:
    match value:
        case InputFile(attach_name=str(part)):
            files[part] = value
            return ATTACH + part
        case InputFile():
            raise BadRequest(f"a file in {name} must be made with attach=True")
        case dict():
            for inner, item in value.items():
                if isinstance(item, str) and _LOCAL.match(item) and inner not in ("text", "caption"):
                    raise BadRequest(f"{name} names a local file: pass the open file, or its bytes")
            return {inner: _with_uris(name, item, files) for inner, item in value.items()}
        case list() | tuple():
            return [_with_uris(name, item, files) for item in value]
        case _:
            return value


def _photos(value: Any) -> Iterator[str]:
    """The names of parts that are sent as photos."""
    if isinstance(value, list):
        for item in value:
            yield from _photos(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and item.startswith(ATTACH):
                if name == "photo" or (name == "media" and value.get("type") == "photo"):
                    yield item.removeprefix(ATTACH)
            else:
                yield from _photos(item)


async def _content_of(content: bytes | str | IO[bytes], most: int) -> bytes:
    """Of an open file, one byte more than it may have is enough to see that it is too big."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    return await asyncio.to_thread(content.read, most + 1)
