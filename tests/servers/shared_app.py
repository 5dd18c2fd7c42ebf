"""An app for several workers that share a store. Where its files are, its Redis if it has one, and how long a lease
holds, comes from the environment: each worker is a process that imports this module.

``/events`` and ``/generate`` stream ``examples.content`` as the other apps do; ``blocks=`` seconds hold up the event
loop in the middle of it. ``/forever`` streams until it is cancelled, and leaves a file that says so. ``/runs`` and
``/counts`` are asked by tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from examples import content
from streamware import (
    CountingObserver,
    HeartbeatMiddleware,
    Middleware,
    RedisStore,
    ResumeMiddleware,
    SQLiteStore,
    Stack,
    Store,
)
from streamware.stores.timing import Timing

FILES = Path(os.environ["STREAMWARE_FILES"])
REDIS = os.environ.get("STREAMWARE_REDIS")
LEASE = float(os.environ.get("STREAMWARE_LEASE", "12"))

observer = CountingObserver()


def store() -> Store:
    # As many beats in a lease as with the default.
    timing = Timing(lease=LEASE, renewal=LEASE / 4, beat=LEASE / 12, hold_off=LEASE * 7 / 12, refresh=LEASE / 3)
    if REDIS:
        return RedisStore(REDIS, prefix=f"{FILES.name}:", observer=observer, timing=timing)
    return SQLiteStore(FILES / "streams.db", observer=observer, timing=timing)


async def streams(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    path = scope["path"]
    asked = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    if path == "/generate":
        asked = json.loads((await receive())["body"])
    if path == "/runs":
        labels = Counter((FILES / "runs").read_text().split()) if (FILES / "runs").exists() else Counter[str]()
        await answer(send, {"total": labels.total(), "labels": labels})
    elif path == "/counts":
        await answer(send, {f"{name} {reason}": n for (name, reason), n in observer.counts.items()})
    elif path == "/forever":
        await forever(send, asked.get("run", ""))
    else:
        await some(send, int(asked.get("n", 10)), float(asked.get("delay", 0)), asked)


async def answer(send: Any, what: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(what).encode()})


async def some(send: Any, n: int, delay: float, asked: dict[str, Any]) -> None:
    with (FILES / "runs").open("a") as file:  # one short write, so that workers do not mix theirs
        file.write(f"{asked.get('run', '')}\n")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for i in range(1, n + 1):
        await send({"type": "http.response.body", "body": content.event(i), "more_body": True})
        if delay:
            await asyncio.sleep(delay)
        if i == n // 2 and "blocks" in asked:
            time.sleep(float(asked["blocks"]))  # what an app must not do, and does
    await send({"type": "http.response.body", "body": b""})


async def forever(send: Any, run: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    i = 0
    try:
        while True:
            i += 1
            await send({"type": "http.response.body", "body": content.event(i), "more_body": True})
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        (FILES / f"cancelled-{run}").touch()
        raise


app = Stack(
    streams,
    middleware=[
        Middleware(HeartbeatMiddleware, interval=5),
        Middleware(
            ResumeMiddleware,
            store=store(),
            linger=60,
            observer=observer,
        ),
    ],
)
