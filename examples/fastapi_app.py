"""The endpoints of ``starlette_app.py`` in FastAPI. It knows nothing of Streamware: see ``wrapped.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from . import content

app = FastAPI(title="Example")
runs = content.Runs()


class Asked(BaseModel):
    n: int = 10
    delay: float = 0
    run: str = ""


async def tell(n: int, delay: float) -> AsyncIterator[bytes]:
    for i in range(1, n + 1):
        if delay and i > 1:
            await asyncio.sleep(delay)
        yield content.event(i)


@app.get("/events")
async def events(n: int = 10, delay: float = 0, run: str = "") -> StreamingResponse:
    runs.begin(run)
    return StreamingResponse(tell(n, delay), media_type="text/event-stream")


@app.post("/generate")
async def generate(asked: Asked) -> StreamingResponse:
    runs.begin(asked.run)
    return StreamingResponse(tell(asked.n, asked.delay), media_type="text/event-stream")


@app.get("/plain")
async def plain() -> dict[str, object]:
    return {"plain": True, "words": content.WORDS}


@app.get("/runs")
async def report() -> dict[str, object]:
    return runs.report()
