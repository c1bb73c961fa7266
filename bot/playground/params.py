"""The parameters of a call, from whichever form they came in: query, form, multipart or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message as MimeHeaders
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
import orjson

from bot.playground.http import Request


class ApiError(Exception):
    """A refusal as the Bot API words it: `code`, `description`, and `parameters` where there are any."""

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters


def bad_request(description: str) -> ApiError:
    return ApiError(400, f"Bad Request: {description}")


class Upload(msgspec.Struct):
    """One uploaded file."""

    name: str
    mime: str
    content: bytes


class Params:
    """Typed reading of parameters; a value may be text (forms) or already JSON. Unknown ones are nobody's business."""

    __slots__ = ("files", "values")

    def __init__(self, values: Mapping[str, Any], files: dict[str, Upload] | None = None) -> None:
        self.values = values
        self.files = files or {}

    def __contains__(self, name: str) -> bool:
        return name in self.values or name in self.files

    def text(self, name: str) -> str:
        """The value as text, empty if there is none; a number given as JSON is taken as its text."""
        value = self.values.get(name)
        if value is None:
            return ""
        return value if isinstance(value, str) else orjson.dumps(value).decode()

    def integer(self, name: str, default: int = 0) -> int:
        value = self.values.get(name)
        if isinstance(value, int):
            return int(value)
        try:
            return int(str(value)) if value is not None else default
        except ValueError:
            return default

    def number(self, name: str, default: float = 0.0) -> float:
        try:
            return float(self.values.get(name, default))
        except (TypeError, ValueError):
            return default

    def flag(self, name: str) -> bool:
        return self.text(name).lower() in ("true", "1", "yes")

    def json(self, name: str) -> Any:
        """The value as JSON, None if there is none; forms carry it as text."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return value
        if not value:
            return None
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"can't parse {name.replace('_', ' ')} JSON object") from error


NO_PARAMS: dict[str, Any] = {}


def read_params(request: Request) -> Params:
    """The parameters of a request. Those in the query come first, those in the body win."""
    body = request.body
    if not body and b"?" not in request.target:
        return Params(NO_PARAMS)
    kind = request.headers.get(b"content-type", b"")
    if kind.startswith(b"application/x-www-form-urlencoded") and b"?" not in request.target:
        return Params(parse_form(body))
    query = request.target.partition(b"?")[2].decode("utf-8", "replace")
    values: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    files: dict[str, Upload] = {}
    if kind.startswith(b"application/json"):
        values.update(_json_object(body))
    elif kind.startswith(b"multipart/form-data"):
        fields, files = parse_multipart(kind.decode("latin-1"), bytes(body))
        values.update(fields)
    elif body:
        values.update(parse_form(body))
    return Params(values, files)


def parse_form(body: bytes | bytearray) -> dict[str, Any]:
    """What urllib.parse.parse_qsl gives, in a third of its time: nearly every call takes this way."""
    values = {}
    for pair in body.decode("utf-8", "replace").split("&"):
        name, _, value = pair.partition("=")
        if "+" in value:
            value = value.replace("+", " ")
        values[unquote(name) if "%" in name else name] = unquote(value) if "%" in value else value
    return values


def _json_object(body: bytes | bytearray) -> dict[str, Any]:
    if not body:
        return {}
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request("can't parse JSON object") from error
    if not isinstance(found, dict):
        raise bad_request("object expected as JSON body")
    return found


def parse_multipart(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, Upload]]:
    """Fields and files of a multipart/form-data body (RFC 7578)."""
    boundary = _header(content_type).get_param("boundary")
    if not isinstance(boundary, str):
        raise bad_request("multipart boundary is missing")
    fields: dict[str, str] = {}
    files: dict[str, Upload] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        if part.startswith(b"--"):
            break
        head, _, content = part.partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n") if ":" in line]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        disposition = _header(headers.get("content-disposition", ""))
        name, filename = disposition.get_param("name"), disposition.get_param("filename")
        if not isinstance(name, str):
            continue
        if filename is None:
            fields[name] = content.decode("utf-8", "replace")
        else:
            files[name] = Upload(str(filename), headers.get("content-type", "application/octet-stream"), content)
    return fields, files


def _header(value: str) -> MimeHeaders:
    """A header whose parameters can be asked for; get_param reads those of Content-Type, whatever it came as."""
    header = MimeHeaders()
    header["Content-Type"] = value
    return header
