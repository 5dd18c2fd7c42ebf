"""Event streams and pages behind compression, for the tests on servers and of clients.

``/events``: ``n`` events, ``delay`` seconds apart, each with the time of its sending. ``/silent``: one, and then
nothing. ``/page``: a page. ``/inside``: how many encoders there are.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from urllib.parse import parse_qs

from streamware import CompressionMiddleware, HeartbeatMiddleware, MemoryStore, Middleware, ResumeMiddleware, Stack
from streamware.types import Receive, Scope, Send
from streamware.wire.codecs import GzipStream

PAGE = b"<p>The keeper of the light wrote down everything.</p>\n" * 400


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    if scope["path"] == "/inside":
        gc.collect()
        await answer(send, json.dumps(sum(isinstance(one, GzipStream) for one in gc.get_objects())).encode())
    elif scope["path"] == "/page":
        await answer(send, PAGE)
    elif scope["path"] == "/":
        await answer(send, b"<title>a page of this origin</title>")
    elif scope["path"] == "/silent":
        await begin(send)
        await send({"type": "http.response.body", "body": event(0), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
    else:
        await begin(send)
        for number in range(int(query.get("n", 10))):
            await asyncio.sleep(float(query.get("delay", 0)))
            await send({"type": "http.response.body", "body": event(number), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(number: int) -> bytes:
    return b'data: {"n":%d,"sent":%.6f,"text":"word"}\n\n' % (number, time.time())


async def begin(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer(send: Send, data: bytes) -> None:
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


alone = CompressionMiddleware(app)
zstd = CompressionMiddleware(app, live_codings=["zstd", "gzip"])
padded = CompressionMiddleware(app, padding=64)
stack = Stack(
    app,
    middleware=[
        Middleware(CompressionMiddleware),
        Middleware(HeartbeatMiddleware, interval=15),
        Middleware(ResumeMiddleware, store=MemoryStore(), linger=0, exclude=["/silent"]),
    ],
)
