"""What the chat page hears: Server-Sent Events to every open page. Without a page nothing is built or sent."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

MAX_UNSENT = 4 * 1024 * 1024  # a page that reads no more loses its connection, and asks again by itself


class Events:
    """The open pages."""

    def __init__(self) -> None:
        self._pages: set[asyncio.Transport] = set()

    @property
    def watched(self) -> bool:
        return bool(self._pages)

    def open(self, page: asyncio.Transport) -> None:
        page.write(b"retry: 1000\n\n")
        self._pages.add(page)

    def publish(self, kind: str, **event: Any) -> None:
        """Tell every page: `data: {"kind": …, …}`."""
        if not self._pages:
            return
        line = b"data: " + orjson.dumps({"kind": kind, **event}) + b"\n\n"
        for page in list(self._pages):
            if page.is_closing():
                self._pages.discard(page)
            elif page.get_write_buffer_size() > MAX_UNSENT:
                self._pages.discard(page)
                page.abort()
            else:
                page.write(line)

    def close(self) -> None:
        for page in self._pages:
            page.close()
        self._pages.clear()
