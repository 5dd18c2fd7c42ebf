"""Where in a byte stream something may be put between two events: known without framing it.

Rules: a tracker is fed with every byte in order and never keeps any; its work is one look at the end of a message that
ends in a blank line, and linear in the bytes otherwise. ``between`` says whether the bytes so far end between two
events. When in doubt it is False: a heartbeat too few harms nobody, one inside an event does.
"""

from __future__ import annotations

COMMENT = b":"
UNKNOWN = b"?"


class EventBoundary:
    """For ``text/event-stream`` (HTML §9.2.6: lines end in CRLF, LF or CR; a blank line ends an event).

    Comment lines belong to no event, so the place after one is as good as the place before it. A CR at the end of the
    bytes may be half of a CRLF, and is no line end yet, unless the stream has ended a line in a bare CR before.
    """

    __slots__ = ("_bare", "_event", "_held", "_line", "between", "clean")

    def __init__(self) -> None:
        self.between = True
        self.clean = False  # behind a blank line, as after most messages
        self._event = False  # a line with a field has come since the last blank line
        self._line = b""  # the first byte of an unfinished line
        self._held = False  # the last byte was a CR
        self._bare = False  # a CR without LF has ended a line

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream into account."""
        if data.endswith((b"\n\n", b"\n\r\n")):
            if not self.clean:
                self.between, self._event, self._line, self._held = True, False, b"", False
                self.clean = True
            return
        self.clean = False
        if not data:
            return
        if self._held and data.startswith(b"\n"):
            self._held = False
            data = data[1:]
        # What comes before the last blank line has ended: only the rest has to be looked at.
        if (blank := data.rfind(b"\n\n")) >= 0:
            self._event, self._line, self._held = False, b"", False
            data = data[blank + 2 :]
        for line in data.splitlines(keepends=True):
            self._feed_line(line)
        self.between = not self._event and not self._line and (self._bare or not self._held)

    def tear(self) -> None:
        """What was fed last may not have been sent: nothing may be put in before the next blank line."""
        self.between, self._event, self._line = False, True, UNKNOWN
        self.clean = False

    def _feed_line(self, line: bytes) -> None:
        if self._held:
            self._held, self._bare = False, True
        text = line.rstrip(b"\r\n")
        first = self._line or text[:1]
        if len(text) == len(line):
            self._line = first
            return
        self._line = b""
        self._held = line.endswith(b"\r")
        if not first:
            self._event = False
        elif first != COMMENT:
            self._event = True


class LineBoundary:
    """For NDJSON: between two lines."""

    __slots__ = ("between",)

    def __init__(self) -> None:
        self.between = True

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream into account."""
        if data:
            self.between = data.endswith(b"\n")

    def tear(self) -> None:
        """What was fed last may not have been sent: nothing may be put in before the next line end."""
        self.between = False
