"""The app of the tests of expiry on real servers: ``AuthMiddleware`` outside of all the rest.

The key of its tokens comes from the environment, for a test that issues some. ``POST /logout`` disconnects whoever
asks, in every worker that shares the store; ``/idle`` begins a stream and then says nothing.
"""

from __future__ import annotations

import os
import secrets
import time

from joserfc import jwt
from joserfc.jwk import OctKey

from streamware import (
    AuthMiddleware,
    Expiry,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    ResumeMiddleware,
    SQLiteStore,
    Stack,
)
from streamware.auth.jwt import JWTVerifier
from streamware.types import Receive, Scope, Send
from tests.servers.apps import answer, begin, body, routes

ISSUER, AUDIENCE = "https://idp.example", "https://api.example"
KEY = (
    OctKey.generate_key(256, {"kid": "1"})
    if "EXPIRY_KEY" not in os.environ
    else OctKey.import_key({"kty": "oct", "kid": "1", "k": os.environ["EXPIRY_KEY"]})
)


def issue(subject: str, expires_at: float) -> str:
    """A token of ``subject``."""
    now = time.time()
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": expires_at, "jti": secrets.token_hex(8),
        "client_id": "tests",
    }  # fmt: skip
    return jwt.encode({"alg": "HS256", "typ": "at+jwt", "kid": "1"}, claims, KEY)


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
    verifier = JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=KEY, algorithms=["HS256"], leeway=0)
    expiry = Expiry(leeway=0, jitter=0, messages=True)
    return Stack(
        served,
        middleware=[
            Middleware(AuthMiddleware, verifier=verifier, on_expiry=expiry, board=store),
            Middleware(HeartbeatMiddleware, interval=15.0),
            Middleware(ResumeMiddleware, store=store, linger=5.0, max_detached=20_000),
        ],
    )


app = build()
