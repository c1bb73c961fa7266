"""The ledger: every call that reached the server, in order of arrival.

A record is a fixed row of 76 bytes in a preallocated block, plus its text in a byte buffer beside it: no Python object
per call, so millions fit and the garbage collector never walks them (its pauses would end up in the timestamps).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import msgspec

ROWS = 1 << 14  # a block holds this many rows
TEXT_KEPT = 256  # bytes of a text that are kept; longer ones are cut, `text_length` tells
MAX_NAMES = 60_000  # interned strings of one kind; the table's index has 16 bits

TAKEN = 1  # the call had its effect: a message is in the chat
GONE = 2  # the client went away before its answer

# arrival_ns, bot, chat, target, text_at, text_kept, text_length, method, process, agent, port, weight
_CALL = struct.Struct("<qqqqIHIHHHHH")
# answered_ns, message_id, status, error, fault, flags
_ANSWER = struct.Struct("<qqHHHH")
_ROW = _CALL.size + _ANSWER.size


class Call(msgspec.Struct, frozen=True, gc=False):
    """One call as the judge reads it; also the JSON shape of `GET /playground/ledger`.

    Times are CLOCK_MONOTONIC nanoseconds (`wall` is Unix seconds). `status` is the HTTP status of the answer, 0 while
    there is none. `chat` 0 means the call named no chat. `weight` counts messages (an album of five weighs five).
    """

    seq: int
    arrival_ns: int
    bot: int
    method: str
    chat: int = 0
    text: str = ""
    status: int = 200
    taken: bool = True
    message_id: int = 0
    error: str = ""
    fault: str = ""
    weight: int = 1
    target_message_id: int = 0
    text_length: int = 0
    process: str = ""
    user_agent: str = ""
    peer_port: int = 0
    answered_ns: int = 0
    client_gone: bool = False
    wall: float = 0.0


class Names:
    """Strings that repeat, each stored once and named by a number."""

    def __init__(self) -> None:
        self._names = ["", "(other)"]
        self._index = {name: index for index, name in enumerate(self._names)}

    def add(self, name: str) -> int:
        index = self._index.get(name)
        if index is None:
            if len(self._names) >= MAX_NAMES:
                return 1
            index = self._index[name] = len(self._names)
            self._names.append(name)
        return index

    def __getitem__(self, index: int) -> str:
        return self._names[index]

    def find(self, name: str) -> int | None:
        return self._index.get(name)


class _Block:
    __slots__ = ("rows", "text")

    def __init__(self) -> None:
        self.rows = bytearray(_ROW * ROWS)
        self.text = bytearray()


class Ledger:
    """Append-only and bounded: beyond `limit` calls are counted in `dropped` and no longer recorded.

    `first` is the seq of the oldest record held, `end` the seq of the next: numbers go on after clear(), so that the
    late answer to a call from before it finds nothing to overwrite.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.end = 0
        self.clear()

    def clear(self) -> None:
        self.first = self.end
        self.dropped = 0
        self.started_ns = time.monotonic_ns()
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._blocks: list[_Block] = []
        self.methods, self.processes, self.agents = Names(), Names(), Names()
        self.errors, self.faults = Names(), Names()

    def add(
        self, arrival_ns: int, bot: int, method: str, chat: int, text: str, *,
        target: int = 0, weight: int = 1, process: bytes = b"", agent: bytes = b"", port: int = 0,
    ) -> int:  # fmt: skip
        """Record a call at its arrival; returns its seq, or -1 when the ledger is full."""
        if len(self) >= self.limit:
            self.dropped += 1
            return -1
        seq = self.end
        row = (seq - self.first) % ROWS
        if row == 0:
            self._blocks.append(_Block())
        block = self._blocks[-1]
        raw = text.encode("utf-8", "replace")
        kept = raw[:TEXT_KEPT]
        _CALL.pack_into(
            block.rows, row * _ROW, arrival_ns, bot, chat, target, len(block.text), len(kept), len(text),
            self.methods.add(method), self.processes.add(process.decode("latin-1")),
            self.agents.add(agent.decode("latin-1")), port, min(weight, 65535),
        )  # fmt: skip
        block.text += kept
        self.end = seq + 1
        return seq

    def answer(
        self, seq: int, status: int, message_id: int = 0, error: str = "", fault: str = "", flags: int = 0
    ) -> None:
        """Record what was answered, now. Status 0: taken or hung without an answer so far."""
        if seq < self.first:
            return
        rows, at = self._row(seq)
        answered = time.monotonic_ns() if status else 0
        _ANSWER.pack_into(
            rows, at + _CALL.size,
            answered, message_id, status, self.errors.add(error), self.faults.add(fault), flags,
        )  # fmt: skip

    def client_gone(self, seq: int) -> None:
        """Note that the client left before the answer."""
        if seq < self.first:
            return
        rows, at = self._row(seq)
        answer = _ANSWER.unpack_from(rows, at + _CALL.size)
        _ANSWER.pack_into(rows, at + _CALL.size, *answer[:5], answer[5] | GONE)

    def _row(self, seq: int) -> tuple[bytearray, int]:
        block, row = divmod(seq - self.first, ROWS)
        return self._blocks[block].rows, row * _ROW

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, seq: int) -> Call:
        if not self.first <= seq < self.end:
            raise IndexError(seq)
        block, at = self._blocks[(seq - self.first) // ROWS], (seq - self.first) % ROWS * _ROW
        arrival, bot, chat, target, text_at, kept, length, method, process, agent, port, weight = _CALL.unpack_from(
            block.rows, at
        )
        answered, message_id, status, error, fault, flags = _ANSWER.unpack_from(block.rows, at + _CALL.size)
        return Call(
            seq=seq, arrival_ns=arrival, bot=bot, method=self.methods[method], chat=chat,
            text=block.text[text_at : text_at + kept].decode("utf-8", "ignore"), status=status,
            taken=bool(flags & TAKEN), message_id=message_id, error=self.errors[error], fault=self.faults[fault],
            weight=weight, target_message_id=target, text_length=length, process=self.processes[process],
            user_agent=self.agents[agent], peer_port=port, answered_ns=answered, client_gone=bool(flags & GONE),
            wall=(arrival + self._wall_offset_ns) / 1e9,
        )  # fmt: skip

    def select(
        self, since: int = 0, until: int | None = None, bot: int | None = None, chat: int | None = None,
        method: str | None = None,
    ) -> Iterator[Call]:  # fmt: skip
        """Calls with since <= seq < until that fit the filters; rows that don't are never turned into objects."""
        wanted_method = None if method is None else self.methods.find(method)
        if method is not None and wanted_method is None:
            return
        for seq in range(max(since, self.first), self.end if until is None else min(self.end, until)):
            row = _CALL.unpack_from(*self._row(seq))
            if (bot is not None and row[1] != bot) or (chat is not None and row[2] != chat):
                continue
            if wanted_method is None or row[7] == wanted_method:
                yield self[seq]

    def summary(self) -> dict[str, object]:
        """Counts over the whole ledger: by method, by status, by fault, by process."""
        tallies: dict[str, dict[str, int]] = {"method": {}, "status": {}, "fault": {}, "process": {}}
        taken = 0
        for seq in range(self.first, self.end):
            rows, at = self._row(seq)
            call, answer = _CALL.unpack_from(rows, at), _ANSWER.unpack_from(rows, at + _CALL.size)
            taken += bool(answer[5] & TAKEN)
            found = (self.methods[call[7]], str(answer[2]), self.faults[answer[4]], self.processes[call[8]])
            for tally, name in zip(tallies.values(), found, strict=True):
                tally[name] = tally.get(name, 0) + 1
        text = sum(len(block.text) for block in self._blocks)
        statement = f"{len(self)} calls recorded"
        if self.dropped:
            statement += f"; {self.dropped} later calls were NOT recorded: the ledger's limit is {self.limit}"
        return {
            "calls": len(self), "taken": taken, "dropped": self.dropped, "limit": self.limit,
            "bytes": len(self._blocks) * ROWS * _ROW + text, "statement": statement, "by": tallies,
        }  # fmt: skip
