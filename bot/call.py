"""What is asked of the Bot API: a method and its parameters, from a message's body. The one place that checks them.

Body: {"method": "sendMessage" (the default), "text": "…", "kwargs": {…}, "files": {…}}; fields that belong to the queue
are not in it, and any other is a mistake. Our own producers add "origin": the update whose handler sent it
(bot/failed.py). Both who queues a message (outbox) and who sends it (sender) ask here, since any program may push
elements.

files: {PART: {"key", "name", "type", "size", "use"}}: what is sent along from the store (bot/file_store.py), under the
name of a parameter, or where a parameter says `attach://PART`. A key is a digest and never a path: the content has to
be in the store already, and whoever can name it by its digest knows it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import msgspec

from queueing.errors import MalformedMessage

SEND_MESSAGE = "sendMessage"

_METHOD = re.compile("[A-Za-z]{1,64}")
ATTACH = "attach://"
"""Before the name of a part of the request, in a parameter."""

_FORBIDDEN = frozenset({"setwebhook", "deletewebhook", "getupdates", "logout", "close"})
_NUMBER = re.compile("-?[0-9]{1,16}")
_FILE_URI = re.compile(r"\s*(file|attach)://", re.IGNORECASE)
_PROSE = frozenset({"text", "caption"})
_FIELDS = frozenset({"method", "text", "kwargs", "files", "origin"})
_MAX_DEPTH = 64

MAX_FILE = 50 * 1024 * 1024
"""Bytes of an uploaded file; Telegram takes no larger ones."""

MAX_NAME = 255
"""Characters of a file's name."""

_MAX_FILES = 32  # an album of ten has 30, with thumbnails and covers
_PART = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_KEY = re.compile("[0-9a-f]{64}")
_USE = re.compile("[0-9a-f]{32}")
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,95}", re.IGNORECASE)
_REF = frozenset({"key", "name", "type", "size", "use"})


class CallRefused(MalformedMessage):
    """This is no call that may be made. `reason` is its class, a label of `messages_dead_total`."""

    def __init__(self, error: str, reason: str = "malformed") -> None:
        super().__init__(error)
        self.reason = reason


class FileRef(TypedDict):
    """A file in the store, as a message names it.

    key: SHA-256 of the content, in hex. name: the file's, as the receiver sees it. type: MIME. size: bytes.
    use: of this reference alone, in hex; without one, nobody notices when the file was sent.
    """

    key: str
    name: str
    type: str
    size: int
    use: NotRequired[str]


class Call(msgspec.Struct, frozen=True, gc=False):
    """A method of the Bot API and its parameters, of JSON's types; `chat_id` among them.

    files: by the names of their parts. whole: Telegram's answer is kept as it is, for who waits for it.
    """

    method: str
    parameters: dict[str, Any]
    files: Mapping[str, FileRef] = msgspec.field(default_factory=dict)
    whole: bool = False


def parse_call(body: Mapping[str, Any], chat: str, *, whole: bool = False) -> Call:
    """The call that a message's body asks for, to the canonical chat `chat`, whatever its parameters say.

    Raises CallRefused with the reason `forbidden_method`, `local_file` or `malformed`; its text names the field.
    """
    method = _method(body.get("method"))
    if not body.keys() <= _FIELDS:
        raise CallRefused(f"{min(body.keys() - _FIELDS)} is not a field of a message")
    kwargs = body.get("kwargs")
    if kwargs is None:
        kwargs = {}
    if not isinstance(kwargs, dict):
        raise CallRefused("kwargs must be an object")
    files = _files(body.get("files"))
    parameters: dict[str, Any] = {}
    if (text := body.get("text")) is not None:
        parameters["text"] = text
    for name, value in kwargs.items():
        if name == "text" and "text" in parameters:
            raise CallRefused("text is given twice: beside kwargs and in it")
        _check_value(name, value, files)
        parameters[name] = value
    # Order and limits are those of the message's own chat: a call to another one would escape both.
    parameters["chat_id"] = int(chat) if _NUMBER.fullmatch(chat) else chat
    _check_message(method, parameters)
    if files and (twice := files.keys() & parameters.keys()):
        raise CallRefused(f"{min(twice)} is given twice: in kwargs and in files")
    return Call(method, parameters, files, whole)


def _method(value: object) -> str:
    if value is None or value == SEND_MESSAGE:
        return SEND_MESSAGE
    if not isinstance(value, str) or not _METHOD.fullmatch(value):
        raise CallRefused("method must be the name of a Bot API method: letters only")
    if value.lower() in _FORBIDDEN:
        raise CallRefused(f"method {value} changes the bot itself and may not be queued", "forbidden_method")
    return value


def _check_message(method: str, parameters: Mapping[str, Any]) -> None:
    text, is_message = parameters.get("text"), method.lower() == SEND_MESSAGE.lower()
    if text is None and is_message:
        raise CallRefused("text is missing")
    if is_message and parameters["chat_id"] == "":
        raise CallRefused("chat_id is missing")
    if text is not None and not isinstance(text, str):
        raise CallRefused("text must be a string")


def _files(value: object) -> Mapping[str, FileRef]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_FILES:
        raise CallRefused(f"files must be an object of {_MAX_FILES} files at most")
    for part, ref in value.items():
        if not _PART.fullmatch(part):
            raise CallRefused("files must have names of letters, digits and _, 64 at most")
        if (wrong := _wrong_with(ref)) is not None:
            raise CallRefused(f"files.{part}{wrong}")
    return value


def _wrong_with(ref: object) -> str | None:
    """What keeps something from being a FileRef."""
    if not isinstance(ref, dict) or not ref.keys() <= _REF:
        return f" must be an object of {', '.join(sorted(_REF))}"
    key, name, type_, size, use = (ref.get(field) for field in ("key", "name", "type", "size", "use"))
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        return ".key must be a SHA-256 in hex"
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        return f".name must be 1 to {MAX_NAME} printable characters"
    if not isinstance(type_, str) or not _TYPE.fullmatch(type_):
        return ".type must be a MIME type"
    if type(size) is not int or not 1 <= size <= MAX_FILE:
        return f".size must be 1 to {MAX_FILE}"
    if use is not None and not (isinstance(use, str) and _USE.fullmatch(use)):
        return ".use must be 32 hex digits"
    return None


def _check_value(name: str, value: object, files: Mapping[str, FileRef], depth: int = 0) -> None:
    """A Bot API server in local mode reads the file that a `file://` names: nobody may choose it from outside."""
    if depth > _MAX_DEPTH:
        raise CallRefused(f"kwargs.{name} is nested too deeply")
    if isinstance(value, str):
        if name not in _PROSE:
            _check_string(name, value, files, depth)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check_value(key, inner, files, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_value(name, inner, files, depth + 1)


def _check_string(name: str, value: str, files: Mapping[str, FileRef], depth: int) -> None:
    if value.startswith(ATTACH) and value.removeprefix(ATTACH) in files:
        return
    if _FILE_URI.match(value):
        raise CallRefused(f"kwargs.{name} names a local file", "local_file")
    if value.lstrip()[:1] in ("[", "{"):  # Telegram takes objects and arrays written as text, too
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            return
        _check_value(name, inner, files, depth + 1)
