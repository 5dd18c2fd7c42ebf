"""An app behind ``AuthMiddleware``, as the servers run it, and a page whose script tries every way in."""

from __future__ import annotations

import asyncio
import json

from streamware import AuthMiddleware, HeartbeatMiddleware, MemoryStore, Middleware, OriginMiddleware, Stack, Tickets
from streamware.types import Receive, Scope, Send
from tests.auth.verifying import SecretVerifier

PAGE = b"""<!doctype html><title>ways in</title><script>
const socket = (query, protocols) => new Promise(done => {
  const ws = new WebSocket(`ws://${location.host}/socket${query}`, protocols);
  let opened = false, first = null;
  ws.onopen = () => opened = true;
  ws.onmessage = message => first ??= message.data;
  ws.onclose = event => done({opened, first, protocol: ws.protocol, code: event.code, reason: event.reason});
});
const events = query => new Promise(done => {
  const source = new EventSource(`/events${query}`);
  source.onmessage = message => { source.close(); done({data: message.data}); };
  source.onerror = () => done({closed: source.readyState === EventSource.CLOSED});
});
const ask = async (path, token) => {
  const answer = await fetch(path, {headers: token ? {authorization: `Bearer ${token}`} : {}});
  return {status: answer.status, challenge: answer.headers.get("www-authenticate"), text: await answer.text()};
};
const ticket = async (token, path) => {
  const headers = {authorization: `Bearer ${token}`};
  const answer = await fetch("/_auth/ticket", {method: "POST", headers, body: JSON.stringify({path})});
  return `?ticket=${(await answer.json()).ticket}`;
};
</script>"""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """``/page``; ``/events``, an event stream; ``/socket``; else who asks, and by which query."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["user"].subject})
        await send({"type": "websocket.close", "code": 1000})
        return
    kind, body = b"application/json", json.dumps([scope["user"].subject, scope["query_string"].decode()]).encode()
    if scope["path"] == "/page":
        kind, body = b"text/html", PAGE
    elif scope["path"] == "/events":
        kind, body = b"text/event-stream", f"data: {scope['user'].subject}\n\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if scope["path"] == "/events":
        await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b""})


def wrapped(*, ws_reject: str = "auto") -> Stack:
    auth = Middleware(
        AuthMiddleware,
        verifier=SecretVerifier(),
        optional=["/page"],
        query="access_token",
        tickets=Tickets(MemoryStore()),
        ws_reject=ws_reject,
    )
    return Stack(app, middleware=[Middleware(OriginMiddleware), auth, Middleware(HeartbeatMiddleware)])


auto = wrapped()
