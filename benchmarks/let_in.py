"""CPU that a request costs to be let in, where its token was verified before: by authentication alone, and behind the
looks at its address and at its origin.

An app of two messages is called in this process, bare and guarded, in turn; what is given is the difference, round by
round. The request is a browser's, with twelve headers and a token of some 600 characters.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from joserfc import jwt
from joserfc.jwk import RSAKey

from streamware import (
    AuthMiddleware,
    ClientIPMiddleware,
    HeartbeatMiddleware,
    IPAllowlistMiddleware,
    JWTVerifier,
    Middleware,
    OriginMiddleware,
    Stack,
)
from streamware.types import ASGIApp, Message, Receive, Scope, Send

from .measure import OURS, Figure, Settings

#: Nothing is measured against it: it is taken off.
BARE = "bare"

TITLE = "Letting a request in, the token known"
ISSUER, AUDIENCE = "https://idp.example", "https://api.example"
#: Microseconds that it may add. Alone it looks out for streams as well, which heartbeats do for it.
ALONE, AROUND, ALL = "auth alone", "auth around heartbeats", "client IP, allowlist, origin and auth"
MOST = {AROUND: {OURS: 5.0}, ALL: {OURS: 15.0}}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    return None


def token_of(key: RSAKey) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-1234567890",
        "client_id": "client-1",
        "iat": now,
        "exp": now + 36_000,
        "jti": secrets.token_hex(16),
        "scope": "chat files",
    }
    return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, claims, key)


def scope_of(token: str) -> Scope:
    names = "host user-agent accept accept-language accept-encoding referer sec-fetch-mode sec-fetch-site origin cookie"
    values = {"host": b"api.example", "origin": b"https://chat.example", "sec-fetch-site": b"same-site"}
    lines = [(name.encode(), values.get(name, b"a value of some length")) for name in names.split()]
    lines.append((b"x-forwarded-for", b"192.0.2.77"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/events",
        "raw_path": b"/events",
        "query_string": b"",
        "state": {},
        "headers": [*lines, (b"authorization", b"Bearer " + token.encode()), (b"cache-control", b"no-cache")],
    }


async def cpu(called: ASGIApp, make: Callable[[], Scope], count: int) -> float:
    """Microseconds for each call."""
    before = time.process_time()
    for _ in range(count):
        await called(make(), receive, send)
    return (time.process_time() - before) / count * 1e6


async def run(settings: Settings) -> list[Figure]:
    count, rounds = settings.pick(5_000, 500), settings.rounds_of(21)
    key = RSAKey.generate_key(2048, {"kid": "2026-11-key-1"})
    token = token_of(key)
    given = scope_of(token)
    verifier = JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=key)
    await verifier.verify(token)
    heartbeats = Middleware(HeartbeatMiddleware)
    guard = Middleware(AuthMiddleware, verifier=verifier, scopes=["chat"])
    looks = [
        Middleware(ClientIPMiddleware, trusted_proxies=["127.0.0.1"]),
        Middleware(IPAllowlistMiddleware, allow=["192.0.2.0/24"], deny=["192.0.2.66"]),
        Middleware(OriginMiddleware, allow=["https://chat.example"]),
    ]
    pairs: dict[str, tuple[ASGIApp, ASGIApp]] = {
        ALONE: (app, AuthMiddleware(app, verifier=verifier, scopes=["chat"])),
        AROUND: (Stack(app, [heartbeats]), Stack(app, [guard, heartbeats])),
        ALL: (app, Stack(app, [*looks, guard])),
    }
    figures: list[Figure] = []
    for label, (bare, guarded) in pairs.items():
        figure = Figure(label, "µs a request", {OURS: []}, base=BARE, bounds=MOST.get(label, {}))
        for number in range(rounds + 1):
            without = await cpu(bare, lambda: dict(given), count)
            added = await cpu(guarded, lambda: dict(given), count) - without
            if number:  # the first round only warms up
                figure.values[OURS].append(added)
        figures.append(figure)
    return figures
