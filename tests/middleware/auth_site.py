"""Workers whose users' tokens expire: ``AuthMiddleware`` outside of everything else, on a ``FakeClock``.

A ``Worker`` is composed in one of ``WAYS``. Its tokens are a ``Desk``'s, a verifier of the tests' own, which says when
each expires and may be told to forget one. When it closes it checks that no timer, task or tenure is left.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from typing import Any

from streamware import (
    AuthMiddleware,
    Board,
    DrainMiddleware,
    Expiry,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    Principal,
    ResumeMiddleware,
    Stack,
    TokenRefused,
    VerifierUnavailable,
)
from streamware.middleware.base import Lifecycle
from streamware.testing import FakeClock, WebSocketConnection
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from tests.middleware.composed import Composed
from tests.middleware.resume_site import EVENTSOURCE, READER, Run, SiteConnection, Stage
from tests.secrets import secret

#: ``full``: with drain and heartbeats between; ``mute``: without heartbeats; ``beats``: without drain; ``lone``:
#: neither; ``nested``: all of them without a ``Stack``; ``packed``: a compression between that is not ours.
WAYS = ("full", "mute", "beats", "lone", "nested", "packed")

#: Clients: a browser's EventSource, a script that accepts event streams, one that gets one without asking for it.
KINDS: dict[str, dict[str, str]] = {"eventsource": EVENTSOURCE, "script": READER, "unlogged": {"accept": "*/*"}}

LIFE = 600.0
PLAIN = Expiry(leeway=0, jitter=0)
ISSUER = "https://idp.example"


class Desk:
    """Knows tokens. ``asked``: for which it was, by ``verify``."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._began = (time.time(), clock.now())
        self._tokens: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.away = False
        self.started = False

    def wall(self) -> float:
        """Seconds since 1970, as the clock has it."""
        return self._began[0] + self._clock.now() - self._began[1]

    def issue(
        self, subject: str = "ann", *, life: float | None = LIFE, scopes: tuple[str, ...] = ("chat",),
        issuer: str = ISSUER,
    ) -> str:  # fmt: skip
        """A new token."""
        token = secret(f"a-token-that-nobody-may-see-{len(self._tokens)}")
        expires_at = None if life is None else self.wall() + life
        claims = {"iat": self.wall(), "sub": subject}
        self._tokens[token] = {
            "issuer": issuer, "subject": subject, "scopes": scopes, "claims": claims, "expires_at": expires_at,
        }  # fmt: skip
        return token

    def revoke(self, token: str) -> None:
        del self._tokens[token]

    def recall(self, token: str) -> Principal | None:
        return None

    async def verify(self, token: str, *, client: str = "") -> Principal:
        self.asked.append(token)
        if self.away:
            raise VerifierUnavailable("away", retry_after=1.0)
        known = self._tokens.get(token)
        if known is None:
            raise TokenRefused("unknown")
        expires_at = known["expires_at"]
        if expires_at is not None and expires_at <= self.wall():
            raise TokenRefused("expired")
        return Principal(**known)

    async def startup(self) -> None:
        self.started = True

    async def aclose(self) -> None:
        self.started = False


class Packed:
    """Compresses every response, flushed at each message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        packer = zlib.compressobj(wbits=31)

        async def pack(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [line for line in message["headers"] if line[0] != b"content-length"]
                message = {**message, "headers": [*kept, (b"content-encoding", b"gzip")]}
            elif message["type"] == "http.response.body":
                more = message.get("more_body", False)
                packed = packer.compress(message.get("body", b""))
                packed += packer.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)
                message = {**message, "body": packed}
            await send(message)

        await self._app(scope, receive, pack)


class AuthConnection(SiteConnection):
    """A connection whose body may be compressed."""

    @property
    def body(self) -> bytes:
        return b"".join(self._plain())

    def _plain(self) -> list[bytes]:
        if not self.started or self.header("content-encoding") is None:
            return self.chunks
        unpacker = zlib.decompressobj(wbits=31)
        return [unpacker.decompress(chunk) for chunk in self.chunks]

    def _all_events(self) -> list[Any]:
        return self._event_reader.read(self._plain())


class Worker(Composed):
    """One worker. ``expiry``: its ``on_expiry``; ``heeds``: as for a ``Stage``."""

    def __init__(
        self, app: ASGIApp | None = None, *, way: str = "full", clock: FakeClock | None = None,
        desk: Desk | None = None, store: MemoryStore | None = None, board: Board | None = None,
        expiry: Expiry = PLAIN, resume: Mapping[str, Any] | None = None, heeds: bool = False, **auth: Any,
    ) -> None:  # fmt: skip
        super().__init__(Stage(heeds=heeds), clock)
        self.desk = desk or Desk(self.clock)
        self.way = way
        self.store = MemoryStore(clock=self.clock) if store is None else store
        common: dict[str, Any] = {"clock": self.clock, "observer": self.observer}
        lets_in = {"verifier": self.desk, "on_expiry": expiry, "board": board, **common, **auth}
        inner = app or self.stage
        resumed = {"store": self.store, **common, **(resume or {})}
        if way == "nested":
            self.resume = ResumeMiddleware(inner, **resumed)
            drain = DrainMiddleware(HeartbeatMiddleware(self.resume, interval=7, **common), signals=(), **common)
            self.auth = AuthMiddleware(drain, **lets_in)
            self.app: ASGIApp = self.auth
            self.hooks: list[Lifecycle] = [self.auth, drain, self.resume]
        else:
            drains = [Middleware(DrainMiddleware, signals=(), **common)] if way in ("full", "mute", "packed") else []
            beats = (
                [Middleware(HeartbeatMiddleware, interval=7, **common)] if way in ("full", "beats", "packed") else []
            )
            packs = [Middleware(Packed)] if way == "packed" else []
            listed = [Middleware(AuthMiddleware, **lets_in), *packs, *drains, *beats]
            self.stack = Stack(inner, middleware=[*listed, Middleware(ResumeMiddleware, **resumed)])
            (self.auth,) = [own for own in self.stack._own if isinstance(own, AuthMiddleware)]
            (self.resume,) = [own for own in self.stack._own if isinstance(own, ResumeMiddleware)]
            self.app = self.stack
            self.hooks = list(self.stack._hooks)
        self.auth._tenures._wall = self.desk.wall

    def check(self) -> None:
        assert not self.auth._tenures._of
        super().check()

    def connect(
        self, token: str, path: str = "/chat", *, headers: Mapping[str, str] = READER, cursor: str | None = None,
        **options: Any,
    ) -> AuthConnection:  # fmt: skip
        """Begin a request. ``cursor`` goes into ``Last-Event-ID``."""
        given = [*headers.items(), ("authorization", f"Bearer {token}")]
        if cursor is not None:
            given.append(("last-event-id", cursor))
        connection = AuthConnection(self.app, path=path, headers=given, **options)
        self.connections.append(connection)
        connection.open()
        return connection

    def websocket(self, token: str, path: str = "/ws", **options: Any) -> WebSocketConnection:
        return WebSocketConnection(self.app, path=path, headers={"authorization": f"Bearer {token}"}, **options)

    async def started(self, token: str, *words: str, **options: Any) -> tuple[AuthConnection, Run]:
        """A stream that has said ``words`` to its first reader."""
        number = len(self.stage.runs) + 1
        connection = self.connect(token, **options)
        run = await self.stage.run(number)
        await run.stream(*words)
        await connection.events(len(words))
        return connection, run

    async def streaming(self, kind: str, token: str, *words: str, **options: Any) -> tuple[AuthConnection, Run]:
        """The same, asked for by ``kind`` of client."""
        return await self.started(token, *words, headers=KINDS[kind], **options)

    def counted(self, name: str, reason: str = "") -> int:
        return self.observer.counts.get((name, reason), 0)


class Chat:
    """A WebSocket app that echoes. ``got``: what it was told; ``scope``: of its last connection."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            self.got.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message.get("text")})
