"""An app behind a token budget over Redis, for servers of several workers: it talks until it is stopped, and says after
every ``WORDS`` tokens what it has used so far, as vLLM does."""

from __future__ import annotations

import asyncio
import json
import os

from streamware import TokenBudgetMiddleware
from streamware.types import Receive, Scope, Send

LIMIT = 5000
WORDS = 7
PROMPT = 11


def event(used: int) -> bytes:
    usage = {"prompt_tokens": PROMPT, "completion_tokens": used}
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "word"}}], "usage": usage}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    used = 0
    while True:
        used += WORDS
        await send({"type": "http.response.body", "body": event(used), "more_body": True})
        await asyncio.sleep(0)


budgeted = TokenBudgetMiddleware(
    app,
    limits=f"{LIMIT}/hour",
    key=lambda scope: "all",
    name="all",
    storage=os.environ.get("STREAMWARE_REDIS", "redis://127.0.0.1:1"),
    on_exceeded=os.environ.get("STREAMWARE_ON_EXCEEDED", "cut"),  # type: ignore[arg-type]
    on_store_error="deny",
    reserve=64,
    slice_size=128,
)
