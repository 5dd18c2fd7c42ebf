"""After an early start: the response's real head comes when 200 has long been sent. What it says is told in band."""

from __future__ import annotations

from ..types import Message
from .response import error_block
from .writer import body_of

#: Of a body that is told in an error event.
TOLD_BYTES = 16 * 1024


class EarlyAnswer:
    """An answer that turned out to be no stream, until it is whole."""

    __slots__ = ("_body", "_status")

    def __init__(self, start: Message) -> None:
        self._status = start.get("status")
        self._body = b""

    def take(self, message: Message) -> bytes | None:
        """The error event that tells of the answer, once ``message`` has ended it; else None."""
        if message["type"] != "http.response.body":
            return None
        if len(self._body) < TOLD_BYTES:
            self._body = (self._body + body_of(message))[:TOLD_BYTES]
        if message.get("more_body", False):
            return None
        return error_block({"status": self._status, "body": self._body.decode("utf-8", "replace")})
