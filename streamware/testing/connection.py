"""A client and its server in one object, for one HTTP request: drives an ASGI app without a socket.

It can do what real connections do to an app and a test client cannot: leave in mid-stream, stop reading, send half a
body, and cancel the call from the server's side. The server that it plays is a ``ServerProfile``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from ..types import ASGIApp, Message, RawHeaders, Scope
from .call import Call
from .events import EventReader, ReceivedEvent
from .servers import UVICORN, ServerProfile, server_profile

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


class Connection(Call):
    """One HTTP request to ``app``, and its response.

    :param path: may hold a query after ``?``, in place of ``query``.
    :param body: the whole request body; None while none of it has been sent (then ``send_body`` sends it in parts).
    :param spec_version: overrides the server's own ``spec_version``.
    :param scope: keys to add to the scope, or to put in place of what stands there.
    :param server: a profile or its name: ``uvicorn`` (default), ``hypercorn``, ``daphne``, ``granian``.
    :param timeout: the real seconds that each wait may take; it is a test that has hung, not one that waits.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        method: str = "GET",
        path: str = "/",
        query: str | bytes = b"",
        headers: Headers = (),
        body: bytes | None = b"",
        http_version: str = "1.1",
        spec_version: str | None = None,
        scope: Mapping[str, Any] | None = None,
        server: str | ServerProfile = UVICORN,
        timeout: float = 5.0,
    ) -> None:
        profile = server_profile(server)
        built = http_scope(profile, method, path, query, headers, http_version, spec_version)
        super().__init__(app, {**built, **(scope or {})}, profile, timeout)
        self.chunks: list[bytes] = []
        self._start: Message | None = None
        self._requests: list[Message] = []
        self._disconnect_seen = False
        self._event_reader = EventReader()
        self._read = 0
        if body is not None:
            self.send_body(body)

    # The request

    def send_body(self, part: bytes, *, more: bool = False) -> None:
        """Send a part of the request body, the last one unless there is ``more``."""
        self._requests.append({"type": "http.request", "body": part, "more_body": more})
        self._notify()

    async def _next_message(self) -> Message:
        while True:
            gone = self.dropped or self._ended
            if self._requests and not (gone and not self.server.unread_body_first):
                return self._requests.pop(0)
            if gone:
                if self._disconnect_seen and not self.server.disconnects_again:
                    await asyncio.get_running_loop().create_future()
                self._disconnect_seen = True
                return {"type": "http.disconnect"}
            await self._change()

    # The response

    def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = dict(message)
        elif message["type"] == "http.response.body":
            self.chunks.append(message.get("body", b""))

    async def start(self) -> None:
        """Wait until the app has started its response.

        :raises BaseException: what the app raised before it did.
        """
        await self._until(lambda: self._start is not None, "the start of the response")

    @property
    def started(self) -> bool:
        """The response has started."""
        return self._start is not None

    @property
    def status(self) -> int:
        """The response's status; there must be one."""
        status: int = self._started()["status"]
        return status

    @property
    def headers(self) -> RawHeaders:
        """The response's headers as they were sent."""
        return [(name, value) for name, value in self._started().get("headers", ())]

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, None where there is none."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    @property
    def body(self) -> bytes:
        """The body so far. ``chunks`` holds it message by message."""
        return b"".join(self.chunks)

    @property
    def complete(self) -> bool:
        """The response came to its proper end."""
        return self._ended

    async def receive_body(self, until: int | bytes | Callable[[bytes], bool] | None = None) -> bytes:
        """Wait for the body, and return all of it so far.

        :param until: that many bytes in all; these bytes in it; what this function says; None: the proper end.
        :raises ConnectionEndedError: the response ended without that.
        """
        await self._until(self._reached(until), "the end of the body" if until is None else f"a body with {until!r}")
        return self.body

    async def event(self) -> ReceivedEvent:
        """The next event of an SSE body, as an EventSource would dispatch it."""
        return (await self.events(1))[0]

    async def events(self, count: int) -> list[ReceivedEvent]:
        """The next ``count`` events."""
        await self._until(lambda: len(self._all_events()) >= self._read + count, f"event {self._read + count}")
        found = self._all_events()[self._read : self._read + count]
        self._read += count
        return found

    @property
    def pending_events(self) -> list[ReceivedEvent]:
        """The events that have arrived and were not yet returned by ``event`` or ``events``; they stay unread."""
        return self._all_events()[self._read :]

    def _all_events(self) -> list[ReceivedEvent]:
        return self._event_reader.read(self.chunks)

    def _started(self) -> Message:
        if self._start is None:
            raise RuntimeError("the response has not started: await start() first")
        return self._start

    def _reached(self, until: int | bytes | Callable[[bytes], bool] | None) -> Callable[[], bool]:
        if until is None:
            return lambda: self.complete
        if isinstance(until, int):
            return lambda: sum(map(len, self.chunks)) >= until
        if isinstance(until, bytes):
            return lambda: until in self.body
        return lambda: until(self.body)


def http_scope(
    server: ServerProfile,
    method: str,
    path: str,
    query: str | bytes,
    headers: Headers,
    http_version: str,
    spec_version: str | None,
) -> Scope:
    """The scope of a request as ``server`` makes it."""
    scope = common_scope(server, path, query, headers)
    version = spec_version or server.spec_version
    scope |= {
        "type": "http",
        "asgi": {"version": "3.0"} | ({} if version is None else {"spec_version": version}),
        "http_version": http_version,
        "method": method,
        "scheme": "http",
    }
    if server.extensions is not None:
        scope["extensions"] = {name: {} for name in server.extensions}
    return scope


def common_scope(server: ServerProfile, path: str, query: str | bytes, headers: Headers) -> dict[str, Any]:
    """What HTTP and WebSocket scopes have in common."""
    path, _, inline = path.partition("?")
    given = query.encode("ascii") if isinstance(query, str) else query
    raw = raw_headers(headers)
    if not any(name == b"host" for name, _ in raw):
        raw.insert(0, (b"host", b"testserver"))
    scope: dict[str, Any] = {
        "path": path,
        "raw_path": path.encode("utf-8"),
        "query_string": given or inline.encode("ascii"),
        "root_path": "",
        "headers": raw,
        "client": server.client,
        "server": ("127.0.0.1", 8000),
    }
    if server.lifespan_state:
        scope["state"] = {}
    return scope


def raw_headers(headers: Headers) -> RawHeaders:
    """The headers as ASGI has them: lists of pairs of bytes, names in lower case."""
    pairs: Iterable[tuple[str | bytes, str | bytes]]
    pairs = cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    return [(as_bytes(name).lower(), as_bytes(value)) for name, value in pairs]


def as_bytes(value: str | bytes) -> bytes:
    """Text in the encoding of headers."""
    return value.encode("latin-1") if isinstance(value, str) else value
