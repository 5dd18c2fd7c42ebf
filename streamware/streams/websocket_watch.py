"""A WebSocket connection that can be closed in the app's place, between two messages.

Rules:

1. Whoever closes tells the app: a ``receive()`` that waits is ended, as ``asyncio.timeout`` ends it, and in its place
   the close is sent (granian closes nothing while one waits). The app gets the disconnect.
2. The code and the reason are the ``Ending``'s.
3. After the close the app's sends raise, as they do where a server says that the client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, cast

from ..types import Message, Receive, Scope, Send
from .ending import Ending
from .gone import ClientGone, is_disconnect
from .listening import Listening

CLOSE_WAIT = 5.0  # seconds that the close may take, where a client that reads nothing blocks it as well


class WebSocketWatch:
    """One connection, from its handshake to its end. ``open``: it is accepted, and neither side has closed. ``ending``:
    why it was closed in the app's place."""

    __slots__ = ("_listening", "ending", "inner_send", "open", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._listening = Listening(receive)
        self.inner_send = send
        self.ending: Ending | None = None
        self.open = False

    async def receive(self) -> Message:
        """The app's ``receive``."""
        if self.ending is not None:
            return self._disconnect(self.ending)
        message = await self._listening.message()
        if message is None:
            ending = cast("Ending", self.ending)  # of whoever has ended the wait
            await self._send_close(ending)
            return self._disconnect(ending)
        if message["type"] == "websocket.disconnect":
            self.open = False
        return message

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        if self.ending is not None:
            await asyncio.sleep(0)
            if message["type"] == "websocket.send":  # who does nothing but send learns of it here
                raise ClientGone(f"the connection was closed in the app's place: {self.ending.close_reason}")
            return
        kind = message["type"]
        if kind in ("websocket.close", "websocket.http.response.start"):
            self.open = False
        await self.inner_send(message)
        if kind == "websocket.accept":
            self.open = True
            self.opened()

    def opened(self) -> None:
        """The app has accepted the connection."""

    def forgives(self, error: Exception) -> bool:
        """Whether what the app raised says no more than what it was told."""
        return self.ending is not None and is_disconnect(error)

    def dismiss(self, ending: Ending, retry: int) -> Coroutine[Any, Any, None]:
        """As ``tenure.Party``; a WebSocket's client is not told when to come back."""
        return self.close(ending)

    def warn(self, event: bytes) -> bool | None:
        """As ``tenure.Warns``: no client of a WebSocket is told of what it does not expect."""
        return None

    async def close(self, ending: Ending) -> None:
        """Close the connection, and tell the app."""
        if self.ending is not None or not self.open:
            return
        self.ending = ending
        self.open = False
        if not self._listening.end():  # the app does not listen: it learns of it when it does
            await self._send_close(ending)

    async def _send_close(self, ending: Ending) -> None:
        # Whatever the server makes of it (a client that leaves just now, buffers that are full), the app is told.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_WAIT):
                await self.inner_send(
                    {
                        "type": "websocket.close",
                        "code": ending.close_code(self.scope),
                        "reason": ending.close_reason,
                    }
                )

    def _disconnect(self, ending: Ending) -> Message:
        return {
            "type": "websocket.disconnect",
            "code": ending.close_code(self.scope),
            "reason": ending.close_reason,
        }
