"""A response's body as its meter reads it: cut into events, lines, or taken whole.

Rules:

1. Any split of the same bytes gives the same counts. What is forwarded is never touched, nor waited for.
2. No more than ``MAX_CARRY`` bytes are held back; of an event, or a body, that is larger nothing is known.
3. A body that has a content coding says nothing.
4. Plain text is a model's words, and never read for what it says: a user may have asked for just that.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

from . import headers, ndjson, sse
from .denial import EVENT_STREAM
from .headers import Headers
from .usage import Counts
from .usage_formats import read, read_at, read_whole, try_read

MAX_CARRY = 1024 * 1024


class Kind(enum.Enum):
    """What a body is, to a meter. ``OTHER``: nothing that a model's words would be in, as a picture."""

    EVENTS = enum.auto()
    LINES = enum.auto()
    WHOLE = enum.auto()
    ENCODED = enum.auto()
    OTHER = enum.auto()


Reader = Callable[[Counts, bytes], None]


class Body(Protocol):
    """What of a body is metered."""

    def feed(self, data: bytes) -> None:
        """The next bytes."""

    def finish(self) -> None:
        """It has ended, properly or not."""

    @property
    def held(self) -> int | None:
        """How many bytes at the end so far belong to an event that is not complete; None where nobody knows."""
        ...


def reader_of(path: str | None) -> Reader:
    """What reads one event: the table, or what an app says at ``path``, as ``meta.tokens``."""
    if path is None:
        return read
    names: Sequence[str] = path.split(".")
    return lambda counts, data: read_at(counts, data, names)


def body_of(counts: Counts, given: Headers, path: str | None = None) -> tuple[Kind, Body | None]:
    """What the body behind these headers is, and what meters it."""
    media_type = headers.media_type(headers.get(given, b"content-type"))
    coding = headers.get(given, b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        return Kind.ENCODED, None
    if media_type == EVENT_STREAM:
        return Kind.EVENTS, EventBody(counts, reader_of(path))
    if media_type in ndjson.MEDIA_TYPES:
        return Kind.LINES, LineBody(counts, reader_of(path))
    if media_type == b"text/plain":
        return Kind.WHOLE, TextBody(counts)
    if media_type == b"application/json" or media_type.endswith(b"+json"):
        return Kind.WHOLE, WholeBody(counts, read_whole if path is None else reader_of(path))
    return Kind.OTHER, None


class EventBody:
    """An event stream."""

    __slots__ = ("_counts", "_framer", "_is_plain", "_read")

    def __init__(self, counts: Counts, reader: Reader = read) -> None:
        self._counts = counts
        self._framer = sse.EventFramer(MAX_CARRY)
        self._read = reader
        self._is_plain = reader is read

    def feed(self, data: bytes) -> None:
        framer = self._framer
        size = len(data)
        if self._is_plain and framer.ready and 5 < size <= MAX_CARRY and data[-1] == 10:
            # By far the most frequent message is one whole event, of one line or of two; what is white space to JSON
            # need not be cut off.
            at = 5 if data[:5] == b"data:" else _start_of_second_line(data)
            end = data.find(10, at)
            whole = at and (end == size - 2 or (end == size - 3 and data[-4:] == b"\r\n\r\n"))
            if whole and try_read(self._counts, data[at:]):
                return
            if data[-2:] == b"\n\n" and 13 not in data:
                for block in data[:-2].split(b"\n\n"):
                    self._take(block)
                return
        for item in framer.feed(data):
            if isinstance(item, bytes):
                self._take(item)
            else:
                self._counts.oversize += item.last
                self._counts.unknown += len(item.data)

    @property
    def held(self) -> int | None:
        return None if self._framer.in_pieces else len(self._framer.pending)

    def finish(self) -> None:
        if self._framer.in_pieces:
            self._counts.oversize += 1
        else:
            self._take(self._framer.finish())  # no client acts upon it, and its provider charges for it all the same

    def _take(self, block: bytes) -> None:
        if block[:5] == b"data:" and block.find(10) < 0 and 13 not in block:
            self._read(self._counts, block[5:])
        elif found := data_of(block):
            self._read(self._counts, found)


def _start_of_second_line(data: bytes) -> int:
    """Where the data begins of an event whose second line it is; 0 where it is not."""
    end = data.find(b"\ndata:")
    return end + 6 if end > 0 and data.find(10) == end and data.find(13, 0, end) < 0 else 0


def data_of(block: bytes) -> bytes:
    """The data of an event's block, its lines joined by LF. The space that may open a line means nothing to JSON."""
    lines = [line[5:] for line in block.splitlines() if line[:5] == b"data:"]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


class LineBody:
    """Lines of JSON."""

    __slots__ = ("_counts", "_framer", "_read")

    def __init__(self, counts: Counts, reader: Reader = read) -> None:
        self._counts = counts
        self._framer = ndjson.LineFramer(MAX_CARRY)
        self._read = reader

    def feed(self, data: bytes) -> None:
        for item in self._framer.feed(data):
            if isinstance(item, bytes):
                self._read(self._counts, item)
            else:
                self._counts.oversize += item.last
                self._counts.unknown += len(item.data)

    @property
    def held(self) -> int | None:
        return None if self._framer.in_pieces else len(self._framer.pending)

    def finish(self) -> None:
        if self._framer.in_pieces:
            self._counts.oversize += 1
        elif (rest := self._framer.finish()).strip():
            self._read(self._counts, rest)


class TextBody:
    """A body that is words, all of it."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def feed(self, data: bytes) -> None:
        self._counts.unknown += len(data)

    @property
    def held(self) -> int | None:
        return None

    def finish(self) -> None:
        """Nothing is left."""


class WholeBody:
    """A body that says what it has to say at its end."""

    __slots__ = ("_counts", "_held", "_read", "_size")

    def __init__(self, counts: Counts, reader: Reader = read_whole) -> None:
        self._counts = counts
        self._read = reader
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_CARRY:
            self._held.append(data)
        else:
            self._held.clear()

    @property
    def held(self) -> int | None:
        return None

    def finish(self) -> None:
        if self._size > MAX_CARRY:
            self._counts.oversize += 1
            self._counts.unknown += self._size
        elif whole := b"".join(self._held):
            self._read(self._counts, whole)
        self._size = 0
        self._held.clear()
