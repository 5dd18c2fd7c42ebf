"""Reading a request's body before its app does, which gets the same messages all the same.

What may be JSON is read, and no more than a bound; frameworks decode it whatever its type says. A body of another kind
says nothing of tokens, and what is beyond the bound is left on its way: what that asks for is ``hidden``.
"""

from __future__ import annotations

from ..streams.inbound import has_no_body
from ..types import Message, Receive, Scope
from ..wire import headers
from ..wire.prompt import Asked, asked_by, decode
from ..wire.usage_events import UNREADABLE

_MAYBE_JSON = frozenset({b"", b"application/json", b"application/x-www-form-urlencoded"})


class Ahead:
    """``asked``: what the body asks of a model, None where that is nothing or cannot be told; ``hidden``: it cannot.
    ``gone``: the client has left in the middle of it. ``receive``: the app's."""

    __slots__ = ("_messages", "_receive", "asked", "gone", "hidden")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self.asked: Asked | None = None
        self.gone = self.hidden = False

    async def receive(self) -> Message:
        """What was read, and then what comes."""
        return self._messages.pop(0) if self._messages else await self._receive()

    async def read(self, limit: int) -> None:
        """Read up to ``limit`` bytes."""
        size = 0
        while True:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] != "http.request":
                self.gone = message["type"] == "http.disconnect"
                return
            size += len(message.get("body", b""))
            if size > limit:
                self.hidden = True
                return
            if not message.get("more_body", False):
                break
        body = b"".join([message.get("body", b"") for message in self._messages])
        try:
            self.asked = asked_by(decode(body), len(body))
        except UNREADABLE:
            self.hidden = bool(body)


async def read_ahead(scope: Scope, receive: Receive, limit: int) -> Ahead:
    """The request of ``scope``, its body read as far as it is of interest."""
    ahead = Ahead(receive)
    if has_no_body(scope):
        return ahead
    media_type = headers.media_type(headers.get(scope.get("headers") or (), b"content-type"))
    if media_type in _MAYBE_JSON or media_type.startswith(b"text/") or media_type.endswith(b"+json"):
        await ahead.read(limit)
    else:
        ahead.hidden = True
    return ahead
