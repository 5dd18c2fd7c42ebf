"""Reading a request's body before its app does, which gets the same messages all the same.

Only JSON is read, and no more than a bound: a body of another kind says nothing of tokens, and what is beyond the bound
is left on its way.
"""

from __future__ import annotations

from ..streams.inbound import has_no_body
from ..types import Message, Receive, Scope
from ..wire import headers
from ..wire.prompt import Asked, read_request


class Ahead:
    """``asked``: what the body asks of a model, None where that is nothing or cannot be told. ``gone``: the client has
    left in the middle of it. ``receive``: the app's."""

    __slots__ = ("_messages", "_receive", "asked", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self.asked: Asked | None = None
        self.gone = False

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
                return
            if not message.get("more_body", False):
                break
        self.asked = read_request(b"".join([message.get("body", b"") for message in self._messages]))


async def read_ahead(scope: Scope, receive: Receive, limit: int) -> Ahead:
    """The request of ``scope``, its body read as far as it is of interest."""
    ahead = Ahead(receive)
    media_type = headers.media_type(headers.get(scope.get("headers") or (), b"content-type"))
    is_json = media_type == b"application/json" or media_type.endswith(b"+json")
    if is_json and not has_no_body(scope):
        await ahead.read(limit)
    return ahead
