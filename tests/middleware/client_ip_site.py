"""What real servers serve for the tests of addresses: an app that says what it was given, behind both middlewares.

``STREAMWARE_TEST_ALLOW`` names the file with the list, so that a server without a lifespan reads it at the first
request.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from streamware import ClientIPMiddleware, IPAllowlistMiddleware, Middleware, Stack
from streamware.record import record_of
from streamware.types import Message, Receive, Scope, Send


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    record = record_of(scope)
    assert record is not None
    found = record.client
    assert found is not None
    said = {"client": scope["client"], "scheme": scope.get("scheme"), "peer": found.peer, "reason": found.reason}
    body = json.dumps(said).encode()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": body.decode()})
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Peers:
    """Keeps what the server itself says of its clients."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.given: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.given.append(scope["client"])
            before = {**scope}

        async def told(message: Message) -> None:
            assert scope["type"] == "lifespan" or scope == before
            await send(message)

        await self.app(scope, receive, told)


def site(allow: Path | list[str], trusted: list[str]) -> Peers:
    """The app behind both, with a look at what comes in before them."""
    listed = [
        Middleware(ClientIPMiddleware, trusted_proxies=trusted),
        Middleware(IPAllowlistMiddleware, allow=allow, poll=None),
    ]
    return Peers(Stack(echo, listed))


def from_environment() -> Peers:
    """For servers in processes of their own."""
    return site(Path(os.environ["STREAMWARE_TEST_ALLOW"]), ["loopback", "unix"])


app = from_environment() if "STREAMWARE_TEST_ALLOW" in os.environ else None
