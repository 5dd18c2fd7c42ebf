"""The endpoints of ``secured_starlette_app.py`` in FastAPI, with the principal as a dependency: ``/docs`` shows their
locks. See ``secured.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import FastAPI, Security, WebSocket
from fastapi.responses import StreamingResponse

from streamware import Principal
from streamware.integrations.fastapi import CurrentPrincipal, OptionalPrincipal, principal

from . import content

app = FastAPI(title="Who asks")

Chatter = Annotated[Principal, Security(principal, scopes=["chat"])]


def who(asks: Principal | None) -> dict[str, object]:
    if asks is None:
        return {"authenticated": False, "name": "", "scopes": []}
    return {"authenticated": True, "name": asks.display_name, "scopes": sorted(asks.scopes)}


@app.get("/me")
async def me(asks: CurrentPrincipal) -> dict[str, object]:
    return who(asks)


@app.get("/open")
async def anybody(asks: OptionalPrincipal) -> dict[str, object]:
    return who(asks)


@app.get("/events")
async def events(asks: Chatter) -> StreamingResponse:
    async def tell() -> AsyncIterator[bytes]:
        for i in range(1, 11):
            yield content.event(i)

    return StreamingResponse(tell(), media_type="text/event-stream")


@app.websocket("/talk")
async def talk(websocket: WebSocket, asks: Chatter) -> None:
    await websocket.accept()
    await websocket.send_json(who(asks))
    await websocket.close()
