"""The endpoints of ``starlette_app.py`` on ASGI alone. It knows nothing of Streamware: see ``wrapped.py``.

It refuses the lifespan by raising, as the specification lets an app do that has no use for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from . import content

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

runs = content.Runs()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError(f"unknown scope type {scope['type']!r}")
    match scope["method"], scope["path"]:
        case "GET", "/events":
            query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
            await stream(query, send)
        case "POST", "/generate":
            await stream(json.loads(await read(receive)), send)
        case "GET", "/plain":
            await answer(200, {"plain": True, "words": content.WORDS}, send)
        case "GET", "/runs":
            await answer(200, runs.report(), send)
        case _:
            await answer(404, {"detail": "Not Found"}, send)


async def stream(asked: dict[str, Any], send: Send) -> None:
    runs.begin(asked.get("run", ""))
    delay = float(asked.get("delay", 0))
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for i in range(1, int(asked.get("n", 10)) + 1):
        if delay and i > 1:
            await asyncio.sleep(delay)
        await send({"type": "http.response.body", "body": content.event(i), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def answer(status: int, document: object, send: Send) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left before its request was complete")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
