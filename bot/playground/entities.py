"""parse_mode: formatted text to plain text and entities. Offsets and lengths count UTF-16 units, as in Telegram."""

from __future__ import annotations

import html
import re
from typing import Any

from bot.playground.params import ApiError, bad_request

Entity = dict[str, Any]

_TAGS = {
    "b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline",
    "s": "strikethrough", "strike": "strikethrough", "del": "strikethrough", "code": "code", "pre": "pre",
    "a": "text_link", "tg-spoiler": "spoiler", "span": "spoiler", "blockquote": "blockquote",
    "tg-emoji": "custom_emoji",
}  # fmt: skip
_TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*)((?:\s[^<>]*)?)>")
_ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|(\S+))""")
# longest first: "__" is underline, not an empty italic
_V2 = {"||": "spoiler", "__": "underline", "*": "bold", "_": "italic", "~": "strikethrough"}
_V2_RESERVED = "_*[]()~`>#+-=|{}.!"
_V1 = {"*": "bold", "_": "italic"}


def units(text: str) -> int:
    """Length in UTF-16 units."""
    return len(text) + sum(char > "\uffff" for char in text)


def parse(text: str, mode: str) -> tuple[str, list[Entity]]:
    """Plain text and its entities; an unknown mode or broken markup is a 400 in Telegram's words."""
    match mode.lower():
        case "":
            return text, []
        case "html":
            return _Builder(text).html()
        case "markdown":
            return _Builder(text).markdown(_V1, escapable="_*`[")
        case "markdownv2":
            return _Builder(text).markdown(_V2, escapable=None)
    raise bad_request("unsupported parse_mode")


def _broken(reason: str) -> ApiError:
    return bad_request(f"can't parse entities: {reason}")


class _Builder:
    """Reads one text from left to right, with a stack of the entities that are open."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.plain: list[str] = []
        self.length = 0
        self.open: list[tuple[str, Entity, int]] = []  # closing mark, entity, where it began in the source
        self.entities: list[Entity] = []

    def add(self, text: str) -> None:
        self.plain.append(text)
        self.length += units(text)

    def begin(self, mark: str, kind: str, **more: Any) -> None:
        self.open.append((mark, {"type": kind, "offset": self.length, "length": 0, **more}, self.at))

    def end(self, **more: Any) -> None:
        entity = self.open.pop()[1]
        entity["length"] = self.length - entity["offset"]
        entity.update(more)
        if entity["length"] > 0:
            self.entities.append(entity)

    def byte_offset(self, at: int) -> int:
        return len(self.source[:at].encode())

    def result(self) -> tuple[str, list[Entity]]:
        """The text without surrounding blanks at its end, and its entities in order."""
        order = sorted(self.entities, key=lambda entity: (entity["offset"], -entity["length"]))
        return "".join(self.plain), order

    # --- HTML

    def html(self) -> tuple[str, list[Entity]]:
        while self.at < len(self.source):
            if self.source[self.at] != "<":
                until = self.source.find("<", self.at)
                until = until if until >= 0 else len(self.source)
                self.add(html.unescape(self.source[self.at : until]))
                self.at = until
                continue
            tag = _TAG.match(self.source, self.at)
            if tag is None:
                raise _broken(f"Unexpected end tag at byte offset {self.byte_offset(self.at)}")
            self._tag(tag)
            self.at = tag.end()
        if self.open:
            mark, _, began = self.open[-1]
            raise _broken(
                f'Can\'t find end tag corresponding to start tag "{mark}" at byte offset {self.byte_offset(began)}'
            )
        return self.result()

    def _tag(self, tag: re.Match[str]) -> None:
        name, where = tag[2].lower(), self.byte_offset(self.at)
        if tag[1]:
            if not self.open:
                raise _broken(f"Unexpected end tag at byte offset {where}")
            if self.open[-1][0] != name:
                raise _broken(
                    f'Unmatched end tag at byte offset {where}, expected "</{self.open[-1][0]}>", found "</{name}>"'
                )
            self.end()
            return
        if name not in _TAGS:
            raise _broken(f'Unsupported start tag "{name}" at byte offset {where}')
        self.begin(name, _TAGS[name], **self._attributes(name, tag[3]))

    def _attributes(self, name: str, source: str) -> dict[str, str]:
        found = {match[1].lower(): match[2] or match[3] or match[4] or "" for match in _ATTRIBUTE.finditer(source)}
        if name == "a":
            return {"url": html.unescape(found.get("href", ""))}
        if name == "tg-emoji":
            return {"custom_emoji_id": found.get("emoji-id", "")}
        if name == "code" and found.get("class", "").startswith("language-"):
            return {"language": found["class"].removeprefix("language-")}
        return {}

    # --- Markdown, both versions

    def markdown(self, marks: dict[str, str], escapable: str | None) -> tuple[str, list[Entity]]:
        """`escapable` None means version 2: anything may be escaped, and reserved characters must be."""
        while self.at < len(self.source):
            char = self.source[self.at]
            following = self.source[self.at + 1 : self.at + 2]
            if char == "\\" and following and (escapable is None or following in escapable):
                self.add(following)
                self.at += 2
            elif char == "`":
                self._code()
            elif char == "[" or (char == "]" and self.open and self.open[-1][0] == "]"):
                self._link(char)
            elif mark := next((mark for mark in marks if self.source.startswith(mark, self.at)), ""):
                self._mark(mark, marks[mark])
            elif char == ">" and escapable is None and (not self.plain or self.plain[-1].endswith("\n")):
                self.begin("\n", "blockquote")
                self.at += 1
            else:
                self._plain_character(char, escapable)
        while self.open and self.open[-1][0] == "\n":
            self.end()
        if self.open:
            raise self._unclosed(self.open[-1])
        return self.result()

    def _plain_character(self, char: str, escapable: str | None) -> None:
        if escapable is None and char in _V2_RESERVED:
            raise _broken(f"Character '{char}' is reserved and must be escaped with the preceding '\\'")
        self.add(char)
        self.at += 1
        if char == "\n" and self.open and self.open[-1][0] == "\n":
            self.end()

    def _mark(self, mark: str, kind: str) -> None:
        if self.open and self.open[-1][0] == mark:
            self.end()
        elif any(opened[0] == mark for opened in self.open):
            raise self._unclosed(self.open[-1])
        else:
            self.begin(mark, kind)
        self.at += len(mark)

    def _code(self) -> None:
        mark = "```" if self.source.startswith("```", self.at) else "`"
        until = self.source.find(mark, self.at + len(mark))
        self.begin(mark, "pre" if mark == "```" else "code")
        if until < 0:
            raise self._unclosed(self.open[-1])
        inside = self.source[self.at + len(mark) : until]
        language, line, rest = inside.partition("\n")
        if mark == "```" and line:
            inside = rest
            if language:
                self.open[-1][1]["language"] = language
        self.add(inside)
        self.end()
        self.at = until + len(mark)

    def _link(self, char: str) -> None:
        if char == "[":
            self.begin("]", "text_link")
            self.at += 1
            return
        self.at += 1
        until = self.source.find(")", self.at)
        if not self.source.startswith("(", self.at) or until < 0:
            raise _broken(f"Can't find end of a URL at byte offset {self.byte_offset(self.at)}")
        self.end(url=self.source[self.at + 1 : until])
        self.at = until + 1

    def _unclosed(self, opened: tuple[str, Entity, int]) -> ApiError:
        kind = str(opened[1]["type"]).title().replace("_", "")
        return _broken(f"Can't find end of {kind} entity at byte offset {self.byte_offset(opened[2])}")
