"""A WebSocket whose time is limited, and whose client may show a newer token in band.

Rules:

1. Only where that was asked for (``Expiry.messages``) is a text looked at. One that is a token for us never reaches the
   app, whatever becomes of it; any other text does, untouched.
2. One token is looked at a time, in a task of its own: the app's ``receive`` goes on, and may be cancelled. Another
   that comes meanwhile is dropped; there is one answer for both.
3. A token that is refused ends the connection: whoever shows another user's, or a forged one, is not to try on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from ..types import Message, Receive, Scope, Send
from .tenure import INFINITY, Tenure
from .websocket_watch import WebSocketWatch

#: Of a text that may hold a token, in characters.
LONGEST = 32 * 1024
MARK = "streamware.authenticate"
RETRY_AFTER = 5


class Authenticate(msgspec.Struct, tag_field="type", tag=MARK):
    """What a client sends."""

    token: str


class Authority(Protocol):
    """Who decides: ``tenures.Tenures``."""

    async def reauthenticate(self, tenure: Tenure, token: str) -> bool | None:
        """As there."""
        ...

    def left(self, tenure: Tenure) -> float:
        """As there."""
        ...

    def keep(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """As there."""


class HeldSocket(WebSocketWatch):
    """One connection. ``authority``: None where no token is taken in band."""

    __slots__ = ("_authority", "_busy", "_tenure")

    def __init__(self, scope: Scope, receive: Receive, send: Send, tenure: Tenure, authority: Authority | None) -> None:
        super().__init__(scope, receive, send)
        self._tenure = tenure
        self._authority = authority
        self._busy = False

    def opened(self) -> None:
        self._tenure.hold(self)

    async def receive_others(self) -> Message:
        """The app's ``receive``, where tokens are taken in band."""
        while True:
            message = await self.receive()
            authority = self._authority
            if authority is None or message["type"] != "websocket.receive":
                return message
            token = token_in(message.get("text"))
            if token is None:
                return message
            if not self._busy:
                self._busy = True
                authority.keep(self._authenticate(authority, token))

    async def _authenticate(self, authority: Authority, token: str) -> None:
        try:
            done = await authority.reauthenticate(self._tenure, token)
        finally:
            self._busy = False
        if done:
            left = authority.left(self._tenure)
            seconds = None if left == INFINITY else round(left)
            await self._say({"type": "streamware.authenticated", "expires_in": seconds})
        elif done is None:
            await self._say({"type": "streamware.not-authenticated", "retry_after": RETRY_AFTER})

    def warn(self, event: bytes) -> bool:
        authority = self._authority
        if authority is not None and self.open:
            seconds = max(0, round(authority.left(self._tenure)))
            authority.keep(self._say({"type": "streamware.auth-expiring", "seconds": seconds}))
        return True

    async def _say(self, told: dict[str, object]) -> None:
        if self.open:
            with contextlib.suppress(Exception):  # a client that leaves just now
                await self.inner_send({"type": "websocket.send", "text": msgspec.json.encode(told).decode()})


def token_in(text: object) -> str | None:
    """The token that a client's ``text`` shows to us; None where it is the app's."""
    if not isinstance(text, str) or len(text) > LONGEST or MARK not in text:
        return None
    try:
        return msgspec.json.decode(text, type=Authenticate).token
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
