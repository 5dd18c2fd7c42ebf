"""The app of the tests of expiry on real servers: ``AuthMiddleware`` outside of all the rest.

A token says whose it is, when it was issued and when it expires, and is signed. ``POST /logout`` disconnects whoever
asks, in every worker that shares the store; ``/idle`` begins a stream and then says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time

from streamware import (
    AuthMiddleware,
    Expiry,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    Principal,
    ResumeMiddleware,
    SQLiteStore,
    Stack,
    TokenRefused,
)
from streamware.types import Receive, Scope, Send
from tests.servers.apps import answer, begin, body, routes

KEY = b"known to the tests only"


def issue(subject: str, expires_at: float) -> str:
    """A token of ``subject``."""
    said = f"{subject}~{time.time():.3f}~{expires_at:.3f}"
    return f"{said}~{sign(said)}"


def sign(said: str) -> str:
    return hmac.new(KEY, said.encode(), hashlib.sha256).hexdigest()


class Stamps:
    """Verifies them."""

    def recall(self, token: str) -> Principal | None:
        said, _, signature = token.rpartition("~")
        parts = said.split("~")
        if len(parts) != 3 or not hmac.compare_digest(signature, sign(said)) or float(parts[2]) <= time.time():
            return None
        return Principal(issuer="tests", subject=parts[0], expires_at=float(parts[2]), claims={"iat": float(parts[1])})

    async def verify(self, token: str, *, client: str = "") -> Principal:
        principal = self.recall(token)
        if principal is None:
            raise TokenRefused("expired")
        return principal

    async def startup(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    elif scope["type"] == "http" and scope["path"] == "/logout":
        await app.disconnect(scope["user"])
        await answer(200, {}, send)
    elif scope["type"] == "http" and scope["path"] == "/idle":
        await begin(send)
        await body(send, b"data: here\n\n")
        while (await receive())["type"] != "http.disconnect":
            pass
    else:
        await routes(scope, receive, send)


def build() -> Stack:
    path = os.environ.get("EXPIRY_STORE", "")
    store = SQLiteStore(path) if path else MemoryStore(max_bytes=1 << 30)
    expiry = Expiry(leeway=0, jitter=0, messages=True)
    return Stack(
        served,
        middleware=[
            Middleware(AuthMiddleware, verifier=Stamps(), on_expiry=expiry, board=store),
            Middleware(HeartbeatMiddleware, interval=15.0),
            Middleware(ResumeMiddleware, store=store, linger=5.0, max_detached=20_000),
        ],
    )


app = build()
