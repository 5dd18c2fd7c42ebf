"""What people write, and what a type checker has to accept. Never run: ``test_typing.py`` has it checked."""

from __future__ import annotations

import asgiref.typing
import starlette.middleware
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp as StarletteApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from streamware import (
    CountingObserver,
    HeartbeatMiddleware,
    IntrospectionVerifier,
    IssuerVerifier,
    JWTVerifier,
    MemoryLimitStorage,
    MemoryStore,
    Middleware,
    Observer,
    ResumeMiddleware,
    Stack,
    Store,
    Verifier,
    current_stream,
    wrap,
)
from streamware.types import ASGIApp, Receive, Scope, Send


async def ours(scope: Scope, receive: Receive, send: Send) -> None: ...


async def asgirefs(
    scope: asgiref.typing.Scope,
    receive: asgiref.typing.ASGIReceiveCallable,
    send: asgiref.typing.ASGISendCallable,
) -> None: ...


class Theirs:
    """Somebody's middleware, typed by ``asgiref``."""

    def __init__(self, app: asgiref.typing.ASGI3Application, header: str, *, strict: bool = False) -> None:
        self.app = app

    async def __call__(
        self,
        scope: asgiref.typing.Scope,
        receive: asgiref.typing.ASGIReceiveCallable,
        send: asgiref.typing.ASGISendCallable,
    ) -> None:
        await self.app(scope, receive, send)


def factory(app: ASGIApp, level: int = 3) -> ASGIApp:
    return app


# Apps of every make, wrapped in one line.
wrap(ours)
wrap(asgirefs)
wrap(Starlette())
wrap(FastAPI(), store=MemoryStore(), always=["/v1/*"], interval=None, linger={"/v1/*": None, "*": 3})
wrap(ours, limits="100/minute", reads=["9/second", "99/minute"], concurrent=3, tokens={"/v1/*": "20000/minute"})
wrap(
    ours,
    limits={"/v1/*": {"default": "9/minute", "pro": None}, "*": lambda scope: "99/minute"},
    concurrent={"default": 2, "pro": None},
    plan=lambda scope: "pro",
    storage=MemoryLimitStorage(),
)
wrap(ours, tokens="20000/minute", storage="redis://127.0.0.1:6379/0")
HeartbeatMiddleware(Starlette(), interval=15)
HeartbeatMiddleware(ours)

# One list of everybody's middleware.
stack = Stack(
    asgirefs,
    middleware=[
        Middleware(ProxyHeadersMiddleware, trusted_hosts="127.0.0.1"),
        starlette.middleware.Middleware(CORSMiddleware, allow_origins=["*"]),
        Middleware(GZipMiddleware, minimum_size=500),
        Middleware(Theirs, "x-header", strict=True),
        Middleware(factory, level=4),
        Middleware(HeartbeatMiddleware, interval=15, paths=["/v1/*"]),
        Middleware(ResumeMiddleware, store=MemoryStore(max_bytes=1 << 20), linger=None),
    ],
    hook_timeout=None,
)

# A stack is an app to everybody.
as_ours: ASGIApp = stack
as_starlettes: StarletteApp = stack
Stack(stack)
FastAPI().mount("/inner", stack)

# Into the frameworks' own lists.
Starlette(middleware=[starlette.middleware.Middleware(HeartbeatMiddleware, interval=15)])
FastAPI().add_middleware(ResumeMiddleware, linger=5)
FastAPI().add_middleware(HeartbeatMiddleware, interval=15)

# Protocols that users' own classes and ours meet.
observer: Observer = CountingObserver()
store: Store = MemoryStore()
jwts = JWTVerifier(issuer="https://idp.example", audience=["a", "b"], key=[b"secret"], algorithms=["HS256"])
opaque: Verifier = IntrospectionVerifier(endpoint="https://idp.example/i", client_id="c", client_secret="s")
verifier: Verifier = IssuerVerifier([jwts], opaque=opaque)

if (stream := current_stream()) is not None:
    stream.linger = None
    stream.usage.add(3)
    cursor: str = stream.cursor
    stream.stop()
