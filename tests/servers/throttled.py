"""An echo over WebSocket behind a throttle, for real servers: two connections a minute, three messages an hour."""

from __future__ import annotations

from streamware import ThrottleMiddleware
from streamware.types import Receive, Scope, Send


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def everybody(scope: Scope) -> str:
    return "all"


denying = ThrottleMiddleware(echo, limits="2/minute", key=everybody)
closing = ThrottleMiddleware(echo, limits="2/second", messages="3/hour", key=everybody, websocket_refusal="close")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await echo(scope, receive, send)
        return
    await (denying if scope["path"] == "/deny" else closing)(scope, receive, send)
