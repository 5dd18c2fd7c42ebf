"""A Starlette app that knows who asks. It knows nothing of Streamware: ``request.user``, ``request.auth`` and
``@requires`` are Starlette's own. See ``secured.py``.

GET       /me      who asks, and what the token allows
GET       /open    the same, for anybody
GET       /events  a stream, for tokens with the scope ``chat``
WebSocket /talk    says who asks; for tokens with the scope ``chat``
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from . import content


def who(connection: HTTPConnection) -> dict[str, object]:
    user = connection.user
    scopes = sorted(set(connection.auth.scopes) - {"authenticated"})
    return {"authenticated": user.is_authenticated, "name": user.display_name, "scopes": scopes}


@requires("authenticated")
async def me(request: Request) -> JSONResponse:
    return JSONResponse(who(request))


async def anybody(request: Request) -> JSONResponse:
    return JSONResponse(who(request))


@requires("chat")
async def events(request: Request) -> StreamingResponse:
    async def tell() -> AsyncIterator[bytes]:
        for i in range(1, 11):
            yield content.event(i)

    return StreamingResponse(tell(), media_type="text/event-stream")


@requires("chat")
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(who(websocket))
    await websocket.close()


app = Starlette(
    routes=[
        Route("/me", me),
        Route("/open", anybody),
        Route("/events", events),
        WebSocketRoute("/talk", talk),
    ]
)
