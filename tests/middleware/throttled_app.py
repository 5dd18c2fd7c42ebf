"""An app behind a throttle over Redis, for servers of several workers. ``/count`` answers at once; ``/hold`` streams
until its client leaves or its worker dies."""

from __future__ import annotations

import os

from streamware import ThrottleMiddleware
from streamware.types import Receive, Scope, Send

LEASE = 1.5


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    if scope["path"] == "/hold":
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % os.getpid(), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.body", "body": b"data: %d\n\n" % os.getpid()})


redis = os.environ.get("STREAMWARE_REDIS", "redis://127.0.0.1:1")
limited = ThrottleMiddleware(
    ThrottleMiddleware(app, limits="100/minute", storage=redis, paths=["/count"], key=lambda scope: "all"),
    concurrent=3,
    storage=redis,
    lease=LEASE,
    paths=["/hold"],
    key=lambda scope: "all",
)
