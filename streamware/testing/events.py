"""What an EventSource makes of a response body: the test kit's own reading of HTML's rules.

Written apart from ``streamware.wire.sse`` on purpose, and the slow and obvious way, so that the two can be held against
each other: a mistake in the package must not be repeated by what judges it.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

LINE_END = re.compile("\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A dispatched event: its type, its data, and the last event ID after it."""

    event: str
    data: str
    id: str


class EventReader:
    """Reads a growing list of body chunks again and again; each call gives all of the events so far."""

    def __init__(self) -> None:
        self.retry: int | None = None
        self.comments: list[str] = []
        self._chunks = 0
        self._events: list[ReceivedEvent] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._skip_lf = False
        self._first = True
        self._cr = False
        self._data: list[str] = []
        self._type = ""
        self._id = ""

    def read(self, chunks: list[bytes]) -> list[ReceivedEvent]:
        """The events in ``chunks``, which must begin with those of the last call."""
        for chunk in chunks[self._chunks :]:
            self._text += self._decoder.decode(chunk)
        self._chunks = len(chunks)
        if self._first and self._text:
            self._first = False
            self._text = self._text.removeprefix("\ufeff")
        while (end := LINE_END.search(self._text)) is not None:
            line, self._text = self._text[: end.start()], self._text[end.end() :]
            if not (self._skip_lf and not line and end.group() == "\n"):
                self._line(line)
            # A CR ends its line at once, as in browsers; an LF that comes later is the other half of it.
            self._skip_lf = end.group() == "\r" and not self._text
        return self._events

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if colon and not name:
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self) -> None:
        if self._data:
            self._events.append(ReceivedEvent(self._type or "message", "\n".join(self._data), self._id))
        self._data, self._type = [], ""
