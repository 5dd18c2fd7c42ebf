"""The factories that the foreign suites' apps are wrapped with; ``asgi_wrap_plugin`` calls one for each app."""

from __future__ import annotations

import streamware
from streamware import DrainMiddleware, HeartbeatMiddleware, Middleware, ResumeMiddleware, Stack
from streamware.types import ASGIApp, Receive, Scope, Send


def wrap(app: ASGIApp) -> ASGIApp:
    """The preset: what a user gets who changes nothing."""
    return streamware.wrap(app)


def wrap_always(app: ASGIApp) -> ASGIApp:
    """The same with a log for every event stream, whatever the client accepts, so every app runs in a task of its
    own. Such a response is meant to differ (ids, headers), so this is for looking, not for passing."""
    middleware = [
        Middleware(DrainMiddleware),
        Middleware(HeartbeatMiddleware),
        Middleware(ResumeMiddleware, always=["/*"]),
    ]
    return Stack(app, middleware=middleware)


def pass_through(app: ASGIApp) -> ASGIApp:
    """A plain callable around the app: shows what wrapping alone does to a suite."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return around
