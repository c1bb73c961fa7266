"""Photos, documents and the like: what a message shows of a file that came as upload, file_id or URL."""

from __future__ import annotations

import zlib
from typing import Any

from bot.playground.params import Params, Upload, bad_request
from bot.playground.world import World

MEDIA = {
    "photo": "sendPhoto", "document": "sendDocument", "audio": "sendAudio", "video": "sendVideo",
    "voice": "sendVoice", "animation": "sendAnimation", "video_note": "sendVideoNote", "sticker": "sendSticker",
}  # fmt: skip
MAX_PHOTO = 10 * 1024 * 1024
MAX_UPLOAD = 50 * 1024 * 1024
_SIDE = 320  # pixels and
_SECONDS = 1  # seconds for media that nobody measured


def media_content(world: World, params: Params, kind: str, value: object) -> dict[str, Any]:
    """The fields of a message that carries this medium."""
    upload = _upload(params, kind, value)
    if upload is None and not (isinstance(value, str) and value):
        raise bad_request(f"there is no {kind.replace('_', ' ')} in the request")
    if upload is not None:
        _check_size(upload, kind)
        file_id = world.keep_file(upload)
    else:
        file_id = str(value)
        upload = world.files.get(file_id) or Upload(file_id.rpartition("/")[2], "", b"")
    content = _shape(kind, _file(file_id, upload), upload, params)
    thumbnail = _upload(params, "thumbnail", params.values.get("thumbnail"))
    if thumbnail is not None and isinstance(content[kind], dict):
        _check_size(thumbnail, "photo")
        side = {"width": _SIDE, "height": _SIDE}
        content[kind]["thumbnail"] = {**_file(world.keep_file(thumbnail), thumbnail), **side}
    return content


def _file(file_id: str, upload: Upload) -> dict[str, Any]:
    unique = f"{zlib.crc32(file_id.encode()):08x}"
    return {"file_id": file_id, "file_unique_id": unique, "file_size": len(upload.content)}


def _upload(params: Params, kind: str, value: object) -> Upload | None:
    """An upload stands under the parameter's own name, or where `attach://name` points."""
    if isinstance(value, str) and value.startswith("attach://"):
        name = value.removeprefix("attach://")
        if name not in params.files:
            raise bad_request(f'file "{name}" was not found among the uploads')
        return params.files[name]
    return params.files.get(kind) if value is None else None


def _check_size(upload: Upload, kind: str) -> None:
    if not upload.content:
        raise bad_request("file must be non-empty")
    if len(upload.content) > (MAX_PHOTO if kind == "photo" else MAX_UPLOAD):
        raise bad_request("file is too big")


def _shape(kind: str, file: dict[str, Any], upload: Upload, params: Params) -> dict[str, Any]:
    named = {"file_name": upload.name, "mime_type": upload.mime or "application/octet-stream"}
    size = {"width": params.integer("width", _SIDE), "height": params.integer("height", _SIDE)}
    duration = {"duration": params.integer("duration", _SECONDS)}
    match kind:
        case "photo":
            return {"photo": [{**file, **size}]}
        case "document":
            return {"document": {**file, **named}}
        case "audio":
            titles = {name: params.text(name) for name in ("title", "performer") if name in params}
            return {"audio": {**file, **named, **duration, **titles}}
        case "video":
            return {"video": {**file, **named, **size, **duration}}
        case "animation":
            moving = {**file, **named, **size, **duration}
            return {"animation": moving, "document": {**file, **named}}
        case "voice":
            return {"voice": {**file, **duration}}
        case "video_note":
            return {"video_note": {**file, **duration, "length": params.integer("length", _SIDE)}}
    return {"sticker": {**file, **size, "type": "regular", "is_animated": False, "is_video": False}}
