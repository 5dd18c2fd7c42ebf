"""A Starlette app with two streaming endpoints. It knows nothing of Streamware: see ``wrapped.py``.

GET  /events?n=10&delay=0.1&run=…    n events, a pause of ``delay`` seconds before each but the first
POST /generate                       the same from a JSON body {"n": 10, "delay": 0.1, "run": "…"}
GET  /plain                          a JSON document that is no stream
GET  /runs                           how often the first two were begun
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from . import content

runs = content.Runs()


async def tell(n: int, delay: float) -> AsyncIterator[bytes]:
    for i in range(1, n + 1):
        if delay and i > 1:
            await asyncio.sleep(delay)
        yield content.event(i)


async def events(request: Request) -> StreamingResponse:
    asked = request.query_params
    runs.begin(asked.get("run", ""))
    told = tell(int(asked.get("n", "10")), float(asked.get("delay", "0")))
    return StreamingResponse(told, media_type="text/event-stream")


async def generate(request: Request) -> StreamingResponse:
    asked = await request.json()
    runs.begin(asked.get("run", ""))
    told = tell(int(asked.get("n", 10)), float(asked.get("delay", 0)))
    return StreamingResponse(told, media_type="text/event-stream")


async def plain(request: Request) -> JSONResponse:
    return JSONResponse({"plain": True, "words": content.WORDS})


async def report(request: Request) -> JSONResponse:
    return JSONResponse(runs.report())


app = Starlette(
    routes=[
        Route("/events", events),
        Route("/generate", generate, methods=["POST"]),
        Route("/plain", plain),
        Route("/runs", report),
    ]
)
