"""One WebSocket under a throttle: what its client sends is counted, what the app sends goes out at a pace.

Rules:

1. A message over the limit never reaches the app. The client is told by a message of the operator's, or the connection
   is closed: 1013 (try again later), or 1008 where the wait is long; 4429, as HTTP's 429, where the server raises for
   these. The app gets the disconnect, with the same code.
2. A storage that is away ends no connection: messages pass, and are counted as such.
3. Messages are never split.
4. An app that gives up waiting for a message while that is counted gets it the next time it asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..observe import Observer
from ..streams.gone import ClientGone, is_disconnect
from ..streams.servers import takes_any_close_code
from ..types import Message, Receive, Scope, Send
from ..wire.ratelimit import LONG_WAIT
from .base import Limit, Taken
from .guard import Guard
from .pacing import Pace

TRY_AGAIN_LATER = 1013
POLICY_VIOLATION = 1008
#: Where a server takes only 1000 and 3000 to 4999.
TOO_MANY_REQUESTS = 4429


def close_code(scope: Scope, wait: float) -> int:
    """With what to close because of a limit that lets through again after ``wait`` seconds."""
    if not takes_any_close_code(scope):
        return TOO_MANY_REQUESTS
    return POLICY_VIOLATION if wait > LONG_WAIT else TRY_AGAIN_LATER


class ThrottledSocket:
    """``text``: sent in answer to a message over the limit; None: the connection is closed."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, guard: Guard, key: str, limits: Sequence[Limit],
        text: str | None, pace: Pace | None, observer: Observer, enforce: bool,
    ) -> None:  # fmt: skip
        self._scope = scope
        self._receive = receive
        self._send = send
        self._guard = guard
        self._key = key
        self._limits = limits
        self._costs = (1,) * len(limits)
        self._text = text
        self._pace = pace
        self._observer = observer
        self._enforce = enforce
        self._code = 0  # that we closed with
        self._counting: tuple[Message, asyncio.Task[Taken]] | None = None
        self._turn = asyncio.Lock()  # an answer of ours must not come between the frames of a message of the app's

    async def receive(self) -> Message:
        """The app's ``receive``."""
        while True:
            if self._code:
                return {"type": "websocket.disconnect", "code": self._code, "reason": ""}
            message, taken = await self._next()
            if taken is None:
                return message
            if taken.allowed or taken.unknown:
                return message
            self._observer.count("throttle.refused" if self._enforce else "throttle.would_refuse", reason="messages")
            if not self._enforce:
                return message
            await self._answer(taken)

    async def _next(self) -> tuple[Message, Taken | None]:
        """The next message, and whether there is room for it; None for what is not counted."""
        if self._counting is None:
            message = await self._receive()
            if message["type"] != "websocket.receive" or not self._limits:
                return message, None
            taking = self._guard.take(self._key, self._limits, self._costs)
            if not self._guard.storage.shared:  # counted at once
                return message, await taking
            self._counting = message, asyncio.create_task(taking)
        message, counting = self._counting
        taken = await asyncio.shield(counting)
        self._counting = None
        return message, taken

    async def _answer(self, taken: Taken) -> None:
        if self._text is not None:
            answer: Message = {"type": "websocket.send", "text": self._text}
        else:
            self._code = close_code(self._scope, taken.wait)
            answer = {"type": "websocket.close", "code": self._code, "reason": "too many messages"}
        try:
            async with self._turn:
                await self._send(answer)
        except OSError:
            return  # the client has left: the app hears of it from the server

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        if message["type"] == "websocket.send" and self._pace is not None:
            await self._pace.pay(1, len(message.get("bytes") or b"") or len((message.get("text") or "").encode()))
        if self._code:
            if message["type"] == "websocket.send":
                raise ClientGone("the connection was closed, for its client sent too much")
            return
        async with self._turn:
            await self._send(message)

    def forgives(self, error: Exception) -> bool:
        """Whether what the app raised says no more than what it was told."""
        return bool(self._code) and is_disconnect(error)
