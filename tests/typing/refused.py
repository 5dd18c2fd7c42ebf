"""Mistakes that a type checker has to find, one on each line that says so. Never run: ``test_typing.py`` checks it."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware

from streamware import HeartbeatMiddleware, Middleware, ResumeMiddleware, Stack, wrap
from streamware.types import ASGIApp, Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None: ...


def factory(app: ASGIApp, level: int) -> ASGIApp:
    return app


def loses_the_app(app: ASGIApp) -> None: ...


Middleware(HeartbeatMiddleware, intervall=3)  # error
Middleware(HeartbeatMiddleware, interval="3")  # error
Middleware(HeartbeatMiddleware, 3)  # error
Middleware(ResumeMiddleware, store="redis://store")  # error
Middleware(ResumeMiddleware, app_ids="keep")  # error
Middleware(CORSMiddleware, allow_origin=["*"])  # error
Middleware(factory)  # error
Middleware(factory, level="3")  # error
Middleware(loses_the_app)  # error
Middleware("HeartbeatMiddleware")  # error

Stack(app, middleware=[HeartbeatMiddleware])  # error
Stack(app, [Middleware(HeartbeatMiddleware)], timeout=3)  # error
Stack()  # error

wrap(app, intervall=3)  # error
wrap(app, limits=100)  # error
wrap(app, concurrent="3")  # error
wrap(app, tokens={"/v1/*": 20000})  # error
wrap(app, storage=3)  # error
wrap(app, MemoryError)  # error
wrap("app")  # error
