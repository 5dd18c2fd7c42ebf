"""What tests of ``OriginMiddleware`` serve: ``app`` answers a request, a stream and a WebSocket; below ``/secure`` only
over TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamware import Middleware, OriginMiddleware, ResumeMiddleware, Stack

ALLOWED = "https://chat.example"


async def plain(request: Request) -> JSONResponse:
    return JSONResponse({"scheme": request.url.scheme, "body": (await request.body()).decode()})


async def events(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        for word in ("a", "b", "c"):
            yield f"data: {word}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


app = Stack(
    Starlette(
        routes=[
            Route("/plain", plain, methods=["GET", "POST"]),
            Route("/events", events, methods=["GET", "POST"]),
            WebSocketRoute("/echo", echo),
            Route("/secure/plain", plain, methods=["GET", "POST"]),
            WebSocketRoute("/secure/echo", echo),
        ]
    ),
    [
        Middleware(OriginMiddleware, allow=[ALLOWED], cors=True, exclude=["/secure/*"]),
        Middleware(OriginMiddleware, require_secure=True, paths=["/secure/*"]),
        Middleware(ResumeMiddleware),
    ],
)
