"""What a client makes of an event stream: the fields of a block, and HTML's EventSource as a pure reader of bytes.

``parse`` reads one block on its own. ``Interpreter`` reads a whole body as a browser does (HTML, section 9.2.6), and
shares no code with the framer on purpose, so that tests can hold one against the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    ``event``: its type, ``message`` where none is given; ``data``: its data lines, joined by LF; ``id``: from
    ``parse`` the block's own id or None, from ``Interpreter`` the last event ID at its dispatch; ``retry``: the
    reconnection time that it sets, in milliseconds; ``has_data``: False for a block that dispatches nothing.
    """

    event: str
    data: str
    id: str | None
    retry: int | None
    has_data: bool


class _Fields:
    """The fields of the block under way."""

    __slots__ = ("data", "event", "id", "retry")

    def __init__(self) -> None:
        self.data: list[str] = []
        self.event = ""
        self.id: str | None = None
        self.retry: int | None = None

    def line(self, line: bytes) -> None:
        """Take one line, without its end."""
        name, colon, value = line.partition(b":")
        if colon and not name:
            return  # a comment
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self.data.append(value.decode("utf-8", "replace"))
            case b"event":
                self.event = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self.id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit() and len(value) <= 18:  # longer ones overflow every client's integer
                self.retry = int(value)
            case _:
                pass

    def event_with_id(self, event_id: str | None) -> Event:
        return Event(self.event or "message", "\n".join(self.data), event_id, self.retry, bool(self.data))


def parse(block: bytes) -> Event:
    """The event that ``block`` stands for, by HTML's rules; bytes that are not UTF-8 become U+FFFD."""
    fields = _Fields()
    for line in block.splitlines():
        fields.line(line)
    return fields.event_with_id(fields.id)


class Interpreter:
    """An EventSource's reading of one body after another: the last event ID and the reconnection time survive
    ``reconnect``, an unfinished block does not."""

    __slots__ = ("_bytes", "_fields", "_id", "_skip_lf", "_started", "last_event_id", "retry")

    def __init__(self, last_event_id: str = "") -> None:
        #: What a reconnect would send. An id counts from the blank line that ends its block.
        self.last_event_id = last_event_id
        #: The reconnection time in milliseconds; None until the stream sets it.
        self.retry: int | None = None
        self.reconnect()

    def reconnect(self) -> None:
        """A new body begins. Its id starts as the last one: so do browsers, where the standard would start it empty."""
        self._bytes = bytearray()
        self._fields = _Fields()
        self._id = self.last_event_id
        self._skip_lf = False
        self._started = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` dispatches."""
        pending = self._bytes
        searched = len(pending)
        pending += data
        if not self._started:
            if len(pending) < len(_BOM) and _BOM.startswith(pending):
                return []
            if pending.startswith(_BOM):
                del pending[: len(_BOM)]
            searched = 0
            self._started = True
        if self._skip_lf and pending:
            if pending.startswith(b"\n"):
                del pending[:1]
            self._skip_lf = False
        end = max(pending.rfind(b"\n", searched), pending.rfind(b"\r", searched)) + 1
        if not end:
            return []
        events: list[Event] = []
        for line in _LINE.finditer(bytes(pending[:end])):  # no further: a search for what is not there is quadratic
            event = self._line(line[1])
            if event is not None:
                events.append(event)
        self._skip_lf = pending.endswith(b"\r")
        del pending[:end]
        return events

    def _line(self, line: bytes) -> Event | None:
        fields = self._fields
        if line:
            fields.line(line)
            if fields.id is not None:
                self._id = fields.id
            if fields.retry is not None:
                self.retry = fields.retry
            return None
        self._fields = _Fields()
        self.last_event_id = self._id
        return fields.event_with_id(self._id) if fields.data else None
