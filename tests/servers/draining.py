"""The app of the tests of drain on real servers, and the servers with the flags that docs/servers.md asks for.

How it drains, and where its logs live, is in the environment: several processes may share a store, as workers do.
"""

from __future__ import annotations

import os

from streamware import (
    DrainMiddleware,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    ResumeMiddleware,
    SQLiteStore,
    Stack,
)
from streamware.stores.base import Store
from streamware.types import Receive, Scope, Send
from tests.servers.apps import routes
from tests.servers.launch import HYPERCORN, UVICORN, Kind

#: Seconds that the servers allow: the longest deadline of a test, and some more.
ALLOWED = "12"

SERVERS = {
    kind.name: kind
    for kind in (
        Kind("uvicorn", (*UVICORN, "--loop", "uvloop", "--http", "httptools", "--timeout-graceful-shutdown", ALLOWED)),
        Kind("uvicorn-h11", (*UVICORN, "--loop", "asyncio", "--http", "h11", "--timeout-graceful-shutdown", ALLOWED)),
        Kind("uvicorn-workers", (*UVICORN, "--workers", "2", "--timeout-graceful-shutdown", ALLOWED), workers=2),
        Kind(
            "gunicorn",
            ("gunicorn", "{app}", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", "-w", "2",
             "--graceful-timeout", ALLOWED, "--log-level", "warning"),
        ),
        Kind("hypercorn", (*HYPERCORN[:-1], ALLOWED)),
        Kind(
            "hypercorn-h2",
            (*HYPERCORN[:-1], ALLOWED, "--certfile", "{pem}", "--keyfile", "{pem}"),
            http2=True,
            cuts=False,
            bounded=False,
        ),
        Kind(
            "daphne",
            ("daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", "{app}"),
            cuts=False,
            bounded=False,
            streams_uploads=False,
        ),
        Kind(
            "granian",
            ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning",
             "--workers-kill-timeout", ALLOWED, "{app}"),
        ),
    )
}  # fmt: skip

#: Its worker hears no signal: only the parent does. (One, for the first of several that ends takes the others with it.)
HYPERCORN_WORKER = Kind("hypercorn-worker", (*HYPERCORN[:-3], "1", "--graceful-timeout", "1"))

#: Servers that replace their workers one after the other, behind one port. ``reloading`` does so at SIGHUP, the others
#: after so many requests, without a signal to the worker.
GUNICORN = SERVERS["gunicorn"].arguments
ROLLING = {
    kind.name: kind
    for kind in (
        Kind("reloading", GUNICORN, workers=2),
        Kind(
            "uvicorn-limited",
            (*UVICORN, "--workers", "2", "--limit-max-requests", "30", "--timeout-graceful-shutdown", "1"),
            workers=2,
        ),
        Kind("gunicorn-limited", (*GUNICORN, "--max-requests", "30"), workers=2),
    )
}


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    """The routes of ``apps.py``, and an echo over WebSocket."""
    if scope["type"] != "websocket":
        await routes(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def build() -> Stack:
    environment = os.environ
    path = environment.get("DRAIN_STORE", "")
    store: Store = SQLiteStore(path) if path else MemoryStore()
    return Stack(
        served,
        middleware=[
            Middleware(
                DrainMiddleware,
                grace=float(environment.get("DRAIN_GRACE", 15)),
                deadline=float(environment.get("DRAIN_DEADLINE", 25)),
                retry=0.2,
                readiness="/ready",
            ),
            Middleware(HeartbeatMiddleware, interval=1.0),
            Middleware(ResumeMiddleware, store=store),
        ],
    )


app = build()
