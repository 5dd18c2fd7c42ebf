"""Newline-delimited JSON as bytes: cutting a response body into lines.

The shape of ``sse.EventFramer``, and its rules: any split of the same bytes gives the same lines, the bytes are the
app's own, no more than ``max_event_bytes`` is held back, work is linear. A line ends with LF; a CR before it is white
space to JSON. Blank lines carry no value and are dropped.
"""

from __future__ import annotations

from .sse import Piece

#: What such bodies are called: nobody has registered a name.
MEDIA_TYPES = frozenset({
    b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/x-jsonlines",
})  # fmt: skip

_LF = 10
_BLANK = (b"\n", b"\r\n")


class LineFramer:
    """Cuts the body of one response into lines. ``feed`` takes its messages, ``finish`` gives what was left over."""

    __slots__ = ("_buffer", "_max", "in_pieces")

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._buffer = bytearray()  # the line under way, as far as no piece of it has left
        self.in_pieces = False  # the line under way has begun to leave

    @property
    def pending(self) -> bytes:
        """What is held back of an unfinished line."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[bytes | Piece]:
        """The lines, each with its line end, and pieces of lines, that ``data`` completes."""
        end = data.find(_LF) + 1
        if not end:
            self._buffer += data
            return self._hold()
        if self._buffer or self.in_pieces:
            self._buffer += data[:end]
            line = bytes(self._buffer)
            self._buffer.clear()
            lines: list[bytes | Piece] = [Piece(line, True)] if self.in_pieces else self._whole(line)
            self.in_pieces = False
            return lines + self._cut(data[end:]) if end < len(data) else lines
        return self._whole(data) if end == len(data) else self._cut(data)

    def finish(self) -> bytes:
        """The body has ended: what comes behind the last line end. JSON readers take it for the last line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self.in_pieces = False
        return rest

    def _whole(self, line: bytes) -> list[bytes | Piece]:
        if line in _BLANK:
            return []
        return [line if len(line) <= self._max else Piece(line, True)]

    def _cut(self, data: bytes) -> list[bytes | Piece]:
        """Cut ``data``, which begins at the start of a line."""
        parts = data.split(b"\n")
        self._buffer += parts.pop()
        limit = self._max
        lines: list[bytes | Piece] = [
            part + b"\n" if len(part) < limit else Piece(part + b"\n", True) for part in parts if part and part != b"\r"
        ]
        return lines + self._hold()

    def _hold(self) -> list[bytes | Piece]:
        """Keep the unfinished line, unless it has grown too large."""
        buffer = self._buffer
        if not buffer or (len(buffer) <= self._max and not self.in_pieces):
            return []
        self.in_pieces = True
        piece = Piece(bytes(buffer), False)
        buffer.clear()
        return [piece]
