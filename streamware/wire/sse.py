"""Event streams as bytes: cutting a response body into blocks, and writing ids, comments and events of our own.

Owns the framing of ``text/event-stream`` (HTML, section 9.2.5). Its rules:

1. Messages are no boundaries: any split of the same bytes gives the same blocks.
2. A block is what stands between two blank lines, with the end of its last line, without the blank line. Its bytes are
   the app's own, line ends too. Blank lines beyond the one that ends a block mean nothing and are dropped.
3. A line ends with LF, CRLF or CR. A CR that is the last byte so far may be half of a CRLF. It never delays a block:
   if it ends one, an LF that follows stands at the start of the next block, where blank lines are dropped anyway.
4. No more than ``max_event_bytes`` (and the end of one line) is held back; a larger block leaves in pieces.
5. Work is linear in the bytes, whatever the size of the messages.

What the fields of a block mean to a client is in ``eventsource.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from .eventsource import Event, Interpreter, parse

__all__ = (
    "Event",
    "EventFramer",
    "Interpreter",
    "Piece",
    "comment",
    "control_event",
    "has_field",
    "is_comment",
    "line_end",
    "own_id",
    "parse",
    "primer",
    "with_id",
    "with_retry",
    "without_ids",
)

_BOM = b"\xef\xbb\xbf"
_LF = 10
_CR = 13
_I = 105  # "i"

# The end of a line, then the blank line. A CR before an LF is no line end by itself, hence the lookahead.
_find_blank_line = re.compile(rb"(?:\r\n|\n|\r(?!\n))(\r\n|\r|\n)").search


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an event larger than ``max_event_bytes``; ``last`` on the one that completes it."""

    data: bytes
    last: bool


class EventFramer:
    """Cuts the body of one response into blocks. ``feed`` takes its messages, ``finish`` gives what was left over."""

    __slots__ = ("_buffer", "_has_cr", "_max", "_started", "in_pieces", "ready")

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._buffer = bytearray()  # the block under way, as far as no piece of it has left
        self._has_cr = False  # in the buffer
        self.in_pieces = False  # the block under way has begun to leave
        self._started = False  # past the byte order mark that may open the stream
        self.ready = False  # at the start of a block, with nothing pending

    @property
    def pending(self) -> bytes:
        """What is held back of an unfinished block."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[bytes | Piece]:
        """The blocks, and pieces of blocks, that ``data`` completes."""
        if not self.ready:
            return self._feed(data)
        # By far the most frequent message is one whole event of one line. Searches for single bytes are cheap.
        end = data.find(_LF)
        if 0 < end == len(data) - 2 and data[-1] == _LF and end < self._max and _CR not in data:
            return [data[:-1]]
        return self._cut(data)

    def finish(self) -> bytes:
        """The body has ended: the unfinished rest of it, which no client acts upon."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._has_cr = self.in_pieces = False
        self.ready = self._started
        return rest

    def _feed(self, data: bytes) -> list[bytes | Piece]:
        if not self._started:
            self._buffer += data
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return []
            data = bytes(self._buffer.removeprefix(_BOM))
            self._buffer.clear()
            self._started = self.ready = True
            return self._cut(data)
        return self._go_on(data)

    def _go_on(self, data: bytes) -> list[bytes | Piece]:
        """Look for the end of the block under way, and go on behind it."""
        buffer = self._buffer
        # A blank line may have begun in the last two bytes: the end of a line that is itself a CRLF.
        seen = max(0, len(buffer) - 2)
        buffer += data
        if self._has_cr or _CR in data:
            self._has_cr = True
            found = _find_blank_line(buffer, seen)
            end, rest_start = (found.start(1), found.end()) if found else (-1, -1)
        else:
            end = buffer.find(b"\n\n", seen) + 1 or -1
            rest_start = end + 1
        if end < 0:
            return self._hold()
        block = bytes(buffer[:end])
        rest = bytes(buffer[rest_start:])
        buffer.clear()
        blocks: list[bytes | Piece] = [Piece(block, True) if self.in_pieces or end > self._max else block]
        self._has_cr = self.in_pieces = False
        self.ready = True
        return blocks + self._cut(rest) if rest else blocks

    def _cut(self, data: bytes) -> list[bytes | Piece]:
        """Cut ``data``, which begins at the start of a block."""
        blocks: list[bytes | Piece] = []
        lines: list[bytes] = []
        limit = self._max
        for line in data.splitlines(keepends=True):  # of bytes: at LF, CRLF and CR, nowhere else
            first = line[0]
            if first != _LF and first != _CR:
                lines.append(line)
            elif lines:
                block = lines[0] if len(lines) == 1 else b"".join(lines)
                blocks.append(block if len(block) <= limit else Piece(block, True))
                lines.clear()
        if lines:
            self.ready = False
            self._buffer += b"".join(lines)
            self._has_cr = _CR in self._buffer
            blocks += self._hold()
        return blocks

    def _hold(self) -> list[bytes | Piece]:
        """Keep the unfinished block, unless it has grown too large: then all but the end of its last line leaves, so
        that the last piece has a line end whole, whatever comes."""
        buffer = self._buffer
        if len(buffer) <= self._max and not self.in_pieces:
            return []
        self.in_pieces = True
        keep = 2 if buffer.endswith(b"\r\n") else 1 if buffer.endswith((b"\r", b"\n")) else 0
        cut = len(buffer) - keep
        if not cut:
            return []
        piece = Piece(bytes(buffer[:cut]), False)
        del buffer[:cut]
        return [piece]


def _may_have_id(block: bytes) -> bool:
    """False where no line of ``block`` begins with an "i". JSON puts ``"id":`` in nearly every event, so only the
    starts of lines are looked at; True, for a closer look, where lines end in more than one way."""
    has_cr = _CR in block
    start = 0
    length = len(block)
    while start < length:
        if block[start] == _I:
            return True
        end = block.find(_LF, start)
        if has_cr and block.find(_CR, start) != end - 1:
            return True
        if end < 0:
            return False
        start = end + 1
    return False


def is_comment(block: bytes) -> bool:
    """True where every line of ``block`` is a comment: a ping, not an event."""
    if not block.startswith(b":"):
        return False
    return all(line.startswith(b":") for line in block.splitlines())


def own_id(block: bytes) -> bytes | None:
    """The value of the last ``id`` field of ``block``, b"" where it is empty; None where there is none, or where all
    contain a NUL (HTML: such a field is ignored)."""
    if block.find(_LF) == len(block) - 1 and _CR not in block and block[:1] != b"i":  # most blocks: one line
        return None
    if not _may_have_id(block):
        return None
    value: bytes | None = None
    for line in block.splitlines():
        if line[:2] == b"id" and line[2:3] in (b":", b"") and b"\0" not in line:
            value = line[4:] if line[3:4] == b" " else line[3:]
    return value


def without_ids(block: bytes) -> bytes:
    """``block`` with all of its ``id`` lines removed."""
    if not _may_have_id(block):
        return block
    lines = block.splitlines(keepends=True)
    return b"".join([line for line in lines if line[:2] != b"id" or line[2:3] not in (b":", b"\n", b"\r", b"")])


def has_field(block: bytes, name: bytes) -> bool:
    """True where a line of ``block`` is the field ``name``, with or without a value."""
    if name not in block:
        return False
    size = len(name)
    return any(line[:size] == name and line[size : size + 1] in (b":", b"") for line in block.splitlines())


def line_end(block: bytes) -> bytes:
    """What ends the last line of ``block``; LF where nothing does."""
    if block.endswith(b"\r\n"):
        return b"\r\n"
    return b"\r" if block.endswith(b"\r") else b"\n"


def with_id(block: bytes, event_id: bytes) -> bytes:
    """``block`` as it goes on the wire: the id as its last line, for a torn block must not move a client's cursor past
    an event that it never got, and the blank line. In the block's own line end; an empty block gives an id alone."""
    if block.find(b"\r", -2) < 0:
        return b"%bid: %b\n\n" % (block, event_id)
    end = line_end(block)
    return b"%bid: %b%b%b" % (block, event_id, end, end)


def with_retry(block: bytes, milliseconds: int) -> bytes:
    """``block`` with a ``retry`` line behind its own lines; unchanged where it has one."""
    if has_field(block, b"retry"):
        return block
    return b"%bretry: %d%b" % (block, milliseconds, line_end(block))


def comment(text: str = "") -> bytes:
    """A comment and ONE newline: a blank line behind it makes some clients emit an empty message. It may go between
    two events only.

    :raises ValueError: ``text`` has a line end in it, which would end the comment.
    """
    if "\n" in text or "\r" in text:
        raise ValueError(f"a comment is one line, got {text!r}")
    return f": {text}\n".encode() if text else b":\n"


def control_event(name: str, data: object) -> bytes:
    """Streamware's own event ``streamware.{name}`` with ``data`` as JSON. It has no id: it moves no cursor."""
    return b"event: streamware.%b\ndata: %b\n\n" % (name.encode("ascii"), msgspec.json.encode(data))


def primer(event_id: bytes, retry: int | None = None) -> bytes:
    """A block without data that gives a client its first cursor. For EventSource only: others choke on it."""
    return with_id(b"" if retry is None else b"retry: %d\n" % retry, event_id)
