"""The order of ASGI messages, checked.

``MessageOrder`` is the phase machine of one connection, fed with what an app sends. It knows the messages of the HTTP
and WebSocket specifications and their common extensions; types that it does not know pass, as they must. What it finds
wrong is what one server or another would raise for, hang on, or put on the wire as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from ..exceptions import StreamwareError
from ..types import ASGIApp, Message, Receive, Scope, Send

BEFORE_START = frozenset({"http.response.debug", "http.response.early_hint", "http.response.push"})


class MessageOrderError(StreamwareError, AssertionError):
    """An app sent a message that ASGI does not allow at this point, or one that is malformed."""


class MessageOrder:
    """The messages that one connection's app sends, in order. ``check`` each of them; ``ended`` says whether it may
    stop now."""

    def __init__(self, scope: Scope) -> None:
        self._http: bool = scope["type"] == "http"
        self._bodiless: bool = scope.get("method") == "HEAD"
        self._phase = "new"  # new → started → [trailers] → ended; WebSocket: new → accepted | denying → ended
        self._trailers = False
        self._length: int | None = None
        self._sent = 0

    @property
    def ended(self) -> bool:
        """The response is complete, or the WebSocket closed."""
        return self._phase == "ended"

    def check(self, message: Message) -> None:
        """Take the next message into account.

        :raises MessageOrderError: it may not come here, or is malformed.
        """
        kind = message.get("type")
        if not isinstance(kind, str):
            raise MessageOrderError(f"a message's type must be a str, got {kind!r}")
        if self._http:
            self._check_http(kind, message)
        else:
            self._check_websocket(kind, message)

    def _check_http(self, kind: str, message: Message) -> None:
        if self._phase == "ended" and kind.startswith("http."):
            raise MessageOrderError(f"{kind} after the end of the response")
        if kind == "http.response.start":
            self._expect(kind, "new")
            self._check_start(message)
            self._phase = "started"
        elif kind == "http.response.body":
            self._expect(kind, "started")
            self._check_body(kind, message)
        elif kind == "http.response.zerocopysend":
            self._expect(kind, "started")
            self._length = None  # what the file adds to the body is not known here
            if not message.get("more_body", False):
                self._end_body()
        elif kind == "http.response.pathsend":
            self._expect(kind, "started")
            self._end_body()
        elif kind == "http.response.trailers":
            self._expect(kind, "trailers")
            check_headers(kind, message.get("headers", ()))
            if not message.get("more_trailers", False):
                self._phase = "ended"
        elif kind in BEFORE_START:
            self._expect(kind, "new")
        elif kind.startswith(("websocket.", "lifespan.")):
            raise MessageOrderError(f"{kind} on an HTTP connection")

    def _check_start(self, message: Message) -> None:
        status = message.get("status")
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise MessageOrderError(f"http.response.start: status must be a number of three digits, got {status!r}")
        headers = check_headers("http.response.start", message.get("headers", ()))
        self._trailers = bool(message.get("trailers", False))
        self._bodiless = self._bodiless or status in (204, 304)
        lengths = {value for name, value in headers if name.lower() == b"content-length"}
        if len(lengths) > 1:
            raise MessageOrderError(f"http.response.start: several Content-Length headers: {sorted(lengths)!r}")
        for value in lengths:
            if not value.isdigit():
                raise MessageOrderError(f"http.response.start: Content-Length must be a number, got {value!r}")
            self._length = int(value)

    def _check_body(self, kind: str, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            raise MessageOrderError(f"{kind}: body must be bytes, got {type(body).__name__}")
        self._sent += len(body)
        if self._length is not None and not self._bodiless and self._sent > self._length:
            raise MessageOrderError(f"{kind}: {self._sent} bytes of body, but Content-Length is {self._length}")
        if not message.get("more_body", False):
            if self._length is not None and not self._bodiless and self._sent < self._length:
                raise MessageOrderError(f"{kind}: ends at {self._sent} bytes, but Content-Length is {self._length}")
            self._end_body()

    def _end_body(self) -> None:
        self._phase = "trailers" if self._trailers else "ended"

    def _check_websocket(self, kind: str, message: Message) -> None:
        if self._phase == "ended" and kind.startswith("websocket."):
            raise MessageOrderError(f"{kind} after the end of the connection")
        if kind == "websocket.accept":
            self._expect(kind, "new")
            check_headers(kind, message.get("headers", ()))
            self._phase = "accepted"
        elif kind == "websocket.send":
            self._expect(kind, "accepted")
            given = [key for key in ("text", "bytes") if message.get(key) is not None]
            if len(given) != 1:
                raise MessageOrderError("websocket.send: exactly one of text and bytes must be given")
            if not isinstance(message[given[0]], str if given == ["text"] else bytes):
                raise MessageOrderError(f"websocket.send: {given[0]} holds a {type(message[given[0]]).__name__}")
        elif kind == "websocket.close":
            self._expect(kind, "new", "accepted")
            self._phase = "ended"
        elif kind == "websocket.http.response.start":
            self._expect(kind, "new")
            self._check_start(message)
            self._phase = "denying"
        elif kind == "websocket.http.response.body":
            self._expect(kind, "denying")
            self._check_body(kind, message)
        elif kind.startswith(("http.", "lifespan.")):
            raise MessageOrderError(f"{kind} on a WebSocket connection")

    def _expect(self, kind: str, *phases: str) -> None:
        if self._phase not in phases:
            found = {"new": "before the start", "started": "after the start", "accepted": "after the accept"}
            raise MessageOrderError(f"{kind} {found.get(self._phase, f'in the phase “{self._phase}”')}")


def check_headers(kind: str, headers: Iterable[object]) -> list[tuple[bytes, bytes]]:
    """The headers as a list, each a pair of bytes without line ends or NUL.

    :raises MessageOrderError: one of them is not.
    """
    checked: list[tuple[bytes, bytes]] = []
    for header in headers:
        pair: list[object] = list(cast("tuple[object]", header)) if isinstance(header, tuple | list) else []
        if len(pair) != 2:
            raise MessageOrderError(f"{kind}: a header must be a pair, got {header!r}")
        name, value = pair
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise MessageOrderError(f"{kind}: a header must be a pair of bytes, got {header!r}")
        if not name or any(octet in name + value for octet in b"\r\n\0"):
            raise MessageOrderError(f"{kind}: a header that no server can send: {header!r}")
        checked.append((name, value))
    return checked


def check_order(app: ASGIApp) -> ASGIApp:
    """``app`` with the messages that it sends checked: a wrong one raises ``MessageOrderError`` out of its ``send``.

    For apps and middleware under any server or test client; ``Connection`` checks by itself.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        order = MessageOrder(scope)

        async def checked_send(message: Message) -> None:
            order.check(message)
            await send(message)

        await app(scope, receive, checked_send)

    return checked
