"""One whole answer of our own. A HEAD has the headers of its GET; a 204 and a 304 have no length (RFC 9110, section
8.6)."""

from __future__ import annotations

from ..types import Message, RawHeaders, Scope, Send


def answer_messages(scope: Scope, status: int, headers: RawHeaders, body: bytes = b"") -> list[Message]:
    """Its messages: ``headers``, the length, and ``body`` where the request may have one."""
    if status in (204, 304):
        body = b""
    else:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body, "more_body": False},
    ]


async def answer(scope: Scope, send: Send, status: int, headers: RawHeaders, body: bytes = b"") -> None:
    """Send it."""
    for message in answer_messages(scope, status, headers, body):
        await send(message)
