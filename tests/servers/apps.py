"""Apps for the tests on servers that the examples are too well-behaved for, and a look inside the process.

``special`` has short heartbeats, ``leaking`` forgets its streams within a second: everything that it ever held must be
given back. ``/inside`` (answered before the stack) tells what there is: tasks, timers, logs, open files, memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from typing import Any
from urllib.parse import parse_qs

import psutil

from examples import content
from streamware import HeartbeatMiddleware, MemoryStore, Middleware, ResumeMiddleware, Stack
from streamware.types import ASGIApp, Receive, Scope, Send

runs = content.Runs()
PIECE = 64 * 1024


async def routes(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    runs.begin(query.get("run", ""))
    handler = ROUTES.get(scope["path"])
    if handler is None:
        await answer(404, {"detail": "Not Found"}, send)
    else:
        await handler(query, receive, send)


async def begin(send: Send, media_type: bytes = b"text/event-stream", *more: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type), *more]})


async def body(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def answer(status: int, document: object, send: Send) -> None:
    data = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def plain(query: dict[str, str], receive: Receive, send: Send) -> None:
    """Nothing of a stream."""
    await answer(200, {"plain": True}, send)


async def events(query: dict[str, str], receive: Receive, send: Send) -> None:
    """``n`` of the examples' events, ``delay`` seconds apart."""
    delay = float(query.get("delay", 0))
    await begin(send)
    for i in range(1, int(query.get("n", 10)) + 1):
        if delay and i > 1:
            await asyncio.sleep(delay)
        await body(send, content.event(i))
    await body(send, b"", more=False)


async def fails(query: dict[str, str], receive: Receive, send: Send) -> None:
    """``n`` events and half of one, and then no end: it returns, or raises with ``how=raise``."""
    n = int(query.get("n", 3))
    await begin(send)
    for i in range(1, n + 1):
        await body(send, content.event(i))
    await asyncio.sleep(0.05)
    await body(send, content.event(n + 1)[:9])
    if query.get("how") == "raise":
        raise RuntimeError("the app under test fails here, on purpose")


async def broken_head(query: dict[str, str], receive: Receive, send: Send) -> None:
    """A stream without end, behind a head with a line feed in it. Counts its ends."""
    try:
        await begin(send, b"text/event-stream", (b"x-broken", b"a\nb"))
        while True:
            await body(send, content.event(1))
            await asyncio.sleep(0.02)
    finally:
        runs.begin(f"{query['run']} ended")


async def upload(query: dict[str, str], receive: Receive, send: Send) -> None:
    """One event that tells how long the request's body was. Counts its calls, and who left before it was read."""
    run, length = query.get("run", ""), 0
    runs.begin(f"{run} called")
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            runs.begin(f"{run} left")
            return
        length += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    runs.begin(f"{run} read")
    await begin(send)
    await body(send, f"data: {length}\n\n".encode())
    await body(send, b"", more=False)


async def silent(query: dict[str, str], receive: Receive, send: Send) -> None:
    """One event, ``seconds`` of silence, and one more."""
    await begin(send)
    await body(send, content.event(1))
    await asyncio.sleep(float(query.get("seconds", 1)))
    await body(send, content.event(2))
    await body(send, b"", more=False)


async def half(query: dict[str, str], receive: Receive, send: Send) -> None:
    """An event in two halves, ``seconds`` apart: nothing may come between them."""
    await begin(send)
    await body(send, content.event(1))
    await body(send, content.event(2)[:7])
    await asyncio.sleep(float(query.get("seconds", 1)))
    await body(send, content.event(2)[7:])
    await body(send, b"", more=False)


async def mute(query: dict[str, str], receive: Receive, send: Send) -> None:
    """Silent for ``seconds`` after its start, then one event."""
    await begin(send)
    await asyncio.sleep(float(query.get("seconds", 1)))
    await body(send, content.event(1))
    await body(send, b"", more=False)


async def own_ids(query: dict[str, str], receive: Receive, send: Send) -> None:
    """A stream with ids of its own."""
    await begin(send)
    for i in range(1, int(query.get("n", 5)) + 1):
        await body(send, f"id: mine-{i}\ndata: {i}\n\n".encode())
        await asyncio.sleep(0.005)
    await body(send, b"", more=False)


async def torn(query: dict[str, str], receive: Receive, send: Send) -> None:
    """``n`` events in messages of ``size`` bytes, whatever that tears apart."""
    size = int(query.get("size", 7))
    data = content.body(int(query.get("n", 20)))
    await begin(send)
    for i in range(0, len(data), size):
        await body(send, data[i : i + size])
        if not i % (16 * size):
            await asyncio.sleep(0)
    await body(send, b"", more=False)


async def wide(query: dict[str, str], receive: Receive, send: Send) -> None:
    """``n`` events with ``size`` bytes of data each."""
    size = int(query.get("size", 1000))
    await begin(send)
    for i in range(1, int(query.get("n", 10)) + 1):
        await body(send, wide_event(i, size))
    await body(send, b"", more=False)


def wide_event(i: int, size: int) -> bytes:
    return b"data: " + (f"{i} " * (size // len(f"{i} ") + 1))[:size].encode() + b"\n\n"


async def video(query: dict[str, str], receive: Receive, send: Send) -> None:
    """``bytes`` bytes in pieces of 64 KiB, with a Content-Length if ``length`` is given."""
    size = int(query["bytes"])
    more = [(b"content-length", str(size).encode())] if "length" in query else []
    await begin(send, b"application/octet-stream", *more)
    for i in range(size // PIECE):
        await body(send, video_piece(i))
    await body(send, b"", more=False)


def video_piece(i: int) -> bytes:
    return i.to_bytes(8, "big") * (PIECE // 8)


async def report(query: dict[str, str], receive: Receive, send: Send) -> None:
    await answer(200, runs.report(), send)


ROUTES = {
    "/plain": plain,
    "/events": events,
    "/fails": fails,
    "/broken-head": broken_head,
    "/upload": upload,
    "/silent": silent,
    "/half": half,
    "/mute": mute,
    "/own-ids": own_ids,
    "/torn": torn,
    "/wide": wide,
    "/video": video,
    "/runs": report,
}


class Inside:
    """Answers ``/inside`` with what the process holds, and leaves the rest to ``app``."""

    def __init__(self, app: ASGIApp, store: MemoryStore) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/inside":
            await answer(200, self.look(), send)
        else:
            await self._app(scope, receive, send)

    def look(self) -> dict[str, Any]:
        gc.collect()
        tasks = asyncio.all_tasks()
        scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])  # asyncio's own; uvloop does not tell
        return {
            "tasks": len(tasks),
            "task_names": sorted(str(task.get_coro()) for task in tasks)[:20],
            "timers": sum(not timer.cancelled() for timer in scheduled),
            "logs": len(self._store),
            "log_bytes": self._store.size,
            "files": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "objects": len(gc.get_objects()),
            "blocks": sys.getallocatedblocks(),
            "rss": psutil.Process().memory_info().rss,
        }


def wrapped(store: MemoryStore, *, interval: float, linger: float | None) -> Inside:
    middleware = [
        Middleware(HeartbeatMiddleware, interval=interval),
        Middleware(ResumeMiddleware, store=store, linger=linger),
    ]
    return Inside(Stack(routes, middleware=middleware), store)


special = wrapped(MemoryStore(), interval=0.2, linger=30.0)
leaking = wrapped(MemoryStore(ttl=0.5, tombstone_ttl=0.5), interval=15.0, linger=0.5)
