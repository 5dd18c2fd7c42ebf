"""What ``AuthMiddleware`` answers by itself: the metadata of the resource, and requests for a ticket.

The metadata are for everybody: no token, any origin, cacheable. A ticket is for whoever has shown a token in the
``Authorization`` header, which no page can make another site's browser send.
"""

from __future__ import annotations

import asyncio

import msgspec

from ..exceptions import StoreError
from ..observe import Observer
from ..types import Receive, Scope, Send
from ..wire import headers
from ..wire.answer import answer
from ..wire.challenge import Refusal
from ..wire.denial import Denial, deny
from .principal import Principal
from .tickets import MAX_ORIGIN, MAX_PATH, Tickets, TooManyTickets

MAX_BODY = 4096
BODY_WAIT = 10.0  # seconds that a request for a ticket may take to arrive
METADATA_AGE = 3600  # seconds
STORE_RETRY = 5.0

_ANY_ORIGIN = (b"access-control-allow-origin", b"*")
_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")


class TicketRequest(msgspec.Struct):
    """The body of a request for a ticket."""

    path: str


class MetadataEndpoint:
    """Answers GET, HEAD and OPTIONS with one document (RFC 9728, section 3.2)."""

    def __init__(self, document: bytes) -> None:
        self._document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "OPTIONS":
            await answer(scope, send, 204, [_ANY_ORIGIN, *_PREFLIGHT])
        elif method in ("GET", "HEAD"):
            age = (b"cache-control", b"public, max-age=%d" % METADATA_AGE)
            await answer(scope, send, 200, [_JSON, age, _ANY_ORIGIN], self._document)
        else:
            await answer(scope, send, 405, [(b"allow", b"GET, HEAD, OPTIONS"), _NO_STORE])


_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"%d" % METADATA_AGE),
)


class TicketEndpoint:
    """Answers a request for a ticket whose sender is known."""

    def __init__(self, tickets: Tickets, observer: Observer) -> None:
        self.path = tickets.path
        self._tickets = tickets
        self._observer = observer

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal, token: str
    ) -> Refusal | None:
        """Answer it; or what it is refused for, if it is for a reason that is not the request's form."""
        if scope["method"] != "POST":
            await answer(scope, send, 405, [(b"allow", b"POST"), _NO_STORE])
            return None
        try:
            async with asyncio.timeout(BODY_WAIT):
                body = await read_body(receive)
        except TimeoutError:
            await answer(scope, send, 408, [_NO_STORE])
            return None
        if body is None:
            return None
        path = _path(body)
        origin = headers.combined(scope["headers"], b"origin") or b""
        if path is None or not self._tickets.serves(path) or len(origin) > MAX_ORIGIN:
            detail = "No tickets are issued for this path."
            if path is None:
                detail = 'The body must be JSON, as {"path": "/events"}: where the ticket is to be used.'
            await deny(scope, send, Denial(400, "Bad Request", detail))
            return None
        try:
            ticket = await self._tickets.issue(principal, token, path=path, origin=origin.decode("latin-1"))
        except TooManyTickets as full:
            return Refusal(429, "ticket_limit", retry_after=full.retry_after)
        except StoreError:
            return Refusal(503, "ticket_store", retry_after=STORE_RETRY)
        self._observer.count("auth.ticket", reason="issued")
        issued = {
            "ticket": ticket,
            "expires_in": int(self._tickets.ttl),
            "parameter": self._tickets.parameter,
            # An EventSource comes back to the URL that it has, whose ticket is spent.
            "on_reconnect": "new_ticket",
        }
        await answer(scope, send, 200, [_JSON, _NO_STORE], msgspec.json.encode(issued))
        return None


async def read_body(receive: Receive) -> bytes | None:
    """The request's body, or so much of it that it is too long; None where the client has left."""
    body = b""
    while len(body) <= MAX_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body


def _path(body: bytes) -> str | None:
    if len(body) > MAX_BODY:
        return None
    try:
        path = msgspec.json.decode(body, type=TicketRequest).path
        length = len(path.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return path if path.startswith("/") and length <= MAX_PATH else None
