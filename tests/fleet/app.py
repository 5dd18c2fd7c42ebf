"""What the workers of a fleet serve: an app that knows nothing of Streamware, wrapped over a store that they share.

The environment says the rest, since servers take an app by its name: ``FLEET_STORE`` is a Redis URL or the path of a
SQLite file, ``FLEET_LEDGER`` a file in which the app notes, a line each, what it was called for and how that ended.

GET  /events?n=10&delay=0.1&run=…    n events of ``examples/content.py``
POST /generate                       the same from a JSON body
GET  /plain                          a document
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from urllib.parse import parse_qs

from examples import content
from streamware import (
    DrainMiddleware,
    HeartbeatMiddleware,
    Middleware,
    RedisStore,
    ResumeMiddleware,
    SQLiteStore,
    Stack,
    Store,
)
from streamware.types import ASGIApp, Receive, Scope, Send

#: Seconds after which an EventSource is to come back: long enough to be a pause, short enough for many of them.
RETRY = 0.5
DEADLINE = 30.0
READINESS = "/readyz"
DRAIN = "/drain"


class Ledger:
    """Lines in a file that several processes append to: ``{run} {what} {pid} {time}``, by the clock of the machine."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, run: str, what: str) -> None:
        os.write(self._file, f"{run} {what} {os.getpid()} {time.monotonic()}\n".encode())  # one small write


ledger = Ledger(os.environ.get("FLEET_LEDGER", os.devnull))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    match scope["method"], scope["path"]:
        case "GET", "/events":
            await stream({name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}, send)
        case "POST", "/generate":
            await stream(json.loads(await body(receive)), send)
        case "GET", "/plain":
            await answer(200, b"plain", send)
        case _:
            await answer(404, b"nothing here", send)


async def stream(asked: dict[str, str], send: Send) -> None:
    run, n, delay = asked["run"], int(asked["n"]), float(asked["delay"])
    ledger.note(run, "begun")
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for i in range(1, n + 1):
            if i > 1:
                await asyncio.sleep(delay)
            await send({"type": "http.response.body", "body": content.event(i), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except asyncio.CancelledError:
        ledger.note(run, "cancelled")
        raise
    ledger.note(run, "done")


async def body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left before its request was complete")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def answer(status: int, text: bytes, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def store() -> Store:
    where = os.environ["FLEET_STORE"]
    return RedisStore(where) if "://" in where else SQLiteStore(where)


def wrapped() -> ASGIApp:
    """A short grace, so that streams move rather than end; a deadline that lets what moved be produced whole."""
    drains: list[DrainMiddleware] = []

    def drain(inner: ASGIApp) -> DrainMiddleware:
        drains.append(DrainMiddleware(inner, grace=0.5, deadline=DEADLINE, retry=RETRY, readiness=READINESS))
        return drains[-1]

    middleware = [
        Middleware(drain),
        Middleware(HeartbeatMiddleware),
        Middleware(ResumeMiddleware, store=store(), always=["/generate"], retry=RETRY),
    ]
    stack = Stack(app, middleware=middleware)

    async def operated(scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /drain`` is what a deploy calls first, where a signal would cancel everything at once: daphne."""
        if scope["type"] == "http" and scope["path"] == DRAIN:
            drains[0].drain()
            await answer(200, str(os.getpid()).encode(), send)
        else:
            await stack(scope, receive, send)

    return operated


application = wrapped() if "FLEET_STORE" in os.environ else None
