"""The WebSocket driver: a client and its server in one object, for one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from ..types import ASGIApp, Message, RawHeaders, Scope
from .call import Call
from .connection import Headers, common_scope
from .servers import UVICORN, ServerProfile, server_profile


class WebSocketConnection(Call):
    """One WebSocket connection to ``app``. Parameters as of ``Connection``."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        path: str = "/",
        query: str | bytes = b"",
        headers: Headers = (),
        subprotocols: Iterable[str] = (),
        scope: Mapping[str, Any] | None = None,
        server: str | ServerProfile = UVICORN,
        timeout: float = 5.0,
    ) -> None:
        profile = server_profile(server)
        built = websocket_scope(profile, path, query, headers, subprotocols)
        super().__init__(app, {**built, **(scope or {})}, profile, timeout)
        self._incoming: list[Message] = [{"type": "websocket.connect"}]
        self._outgoing: list[Message] = []
        self._accept: Message | None = None
        self._disconnect: Message | None = None
        self._disconnect_seen = False
        self.close_code: int | None = None
        self.close_reason: str = ""

    # The client's side

    async def start(self) -> None:
        """Wait until the app has accepted.

        :raises ConnectionEndedError: it refused.
        """
        await self._until(lambda: self._accept is not None, "the accept")

    @property
    def accepted(self) -> bool:
        """The app has accepted the connection."""
        return self._accept is not None

    @property
    def subprotocol(self) -> str | None:
        """What the app chose."""
        chosen: str | None = (self._accept or {}).get("subprotocol")
        return chosen

    @property
    def headers(self) -> RawHeaders:
        """The headers of the app's accept."""
        return [(name, value) for name, value in (self._accept or {}).get("headers", ())]

    @property
    def closed(self) -> bool:
        """The app has closed or refused; ``close_code`` says how."""
        return self._ended

    def send(self, data: str | bytes) -> None:
        """Send a message to the app."""
        key, other = ("text", "bytes") if isinstance(data, str) else ("bytes", "text")
        message: Message = {"type": "websocket.receive", key: data}
        if self.server.both_message_keys:
            message[other] = None
        self._incoming.append(message)
        self._notify()

    async def receive(self) -> str | bytes:
        """The next message from the app."""
        await self._until(lambda: bool(self._outgoing), "a message")
        message = self._outgoing.pop(0)
        data: str | bytes = message["text"] if message.get("text") is not None else message["bytes"]
        return data

    @property
    def pending(self) -> int:
        """How many messages have arrived and were not yet received."""
        return len(self._outgoing)

    async def closing(self) -> int | None:
        """Wait until the app has closed; the code. None where it refused with a response of its own."""
        await self._until(lambda: self._ended, "the close")
        return self.close_code

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the client's side."""
        self._leave(code, reason)

    def drop(self) -> None:
        """The connection breaks: no close frame."""
        self._leave(1006 if self.server.name in ("hypercorn", "daphne") else 1005, "")

    def _leave(self, code: int, reason: str) -> None:
        if not self.dropped and not self._ended:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        super().drop()

    # The server's side

    async def _next_message(self) -> Message:
        while True:
            if self._incoming:
                return self._incoming.pop(0)
            if self.dropped or self._ended:
                if self._disconnect_seen and not self.server.disconnects_again:
                    await asyncio.get_running_loop().create_future()
                self._disconnect_seen = True
                code = 1006 if self.close_code is None else self.close_code
                return dict(self._disconnect or {"type": "websocket.disconnect", "code": code, "reason": ""})
            await self._change()

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accept = dict(message)
        elif kind == "websocket.send":
            self._outgoing.append(dict(message))
        elif kind == "websocket.close":
            code = message.get("code", 1000)
            if self._accept is not None and not (self.server.any_close_code or code == 1000 or 3000 <= code <= 4999):
                self.violations.append(f"close code {code}, which {self.server.name} refuses")
                raise ValueError(f"invalid close code {code} (must be 1000 or from [3000, 4999])")
            self.close_code = code
            self.close_reason = message.get("reason") or ""

    def _late_send(self, message: Message) -> None:
        super()._late_send(message)
        if self.server.send_raises_when_gone:
            raise OSError("the client has disconnected")


def websocket_scope(
    server: ServerProfile, path: str, query: str | bytes, headers: Headers, subprotocols: Iterable[str]
) -> Scope:
    """The scope of a WebSocket handshake as ``server`` makes it."""
    scope = common_scope(server, path, query, headers)
    version = server.websocket_spec_version
    scope |= {
        "type": "websocket",
        "asgi": {"version": "3.0"} | ({} if version is None else {"spec_version": version}),
        "http_version": "1.1",
        "scheme": "ws",
        "subprotocols": list(subprotocols),
    }
    if server.websocket_extensions is not None:
        scope["extensions"] = {name: {} for name in server.websocket_extensions}
    return scope
