"""The heads of the answers that carry a stream: what the log keeps of the app's, and what we add for every reader."""

from __future__ import annotations

import msgspec

from ..stores.base import Head
from ..types import Message, RawHeaders
from ..wire import headers
from ..wire.denial import EVENT_STREAM as EVENT_STREAM
from ..wire.denial import VARY as VARY
from ..wire.denial import Denial
from .answer import Gone

STREAM_PARAMETER = "_stream"

#: Of the app's head, what every later reader gets too. Never Set-Cookie, nor CORS headers, which are made per reader.
REPLAYED = frozenset({
    b"content-type", b"content-language", b"link", b"x-request-id", b"request-id", b"cache-control",
    b"openai-processing-ms", b"openai-version", b"anthropic-request-id",
})  # fmt: skip


#: So many different heads are kept to be shared.
SHARED = 256
_shared: dict[tuple[tuple[bytes, bytes], ...], tuple[tuple[bytes, bytes], ...]] = {}


def replayed(given: RawHeaders, more: frozenset[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """What a log keeps of the app's head."""
    lowered = ((name.lower(), value) for name, value in given)
    kept = tuple((name, value) for name, value in lowered if name in REPLAYED or name in more)
    # Most streams of a service have the same few: one of them will do for all.
    return _shared.setdefault(kept, kept) if len(_shared) < SHARED else _shared.get(kept, kept)


def stream_location(stream: str) -> bytes:
    """The stream's own URL, relative to the one that started it, so that mounts, proxies and rules by path hold."""
    return b"?" + STREAM_PARAMETER.encode() + b"=" + stream.encode()


def stream_head(stream: str, given: RawHeaders) -> RawHeaders:
    """``given`` as the head of a logged stream: never cached, never buffered, never with a length, and with the place
    where the stream can be read and stopped."""
    made = headers.no_store(headers.without(given, b"content-length", b"x-accel-buffering", b"content-location"))
    made = headers.merge_vary(made, *VARY)
    made.append((b"x-accel-buffering", b"no"))
    made.append((b"content-location", stream_location(stream)))
    return made


def first_start(stream: str, start: Message) -> Message:
    """The app's own start, for the connection that started the stream."""
    return {**start, "headers": stream_head(stream, [(bytes(n), bytes(v)) for n, v in start.get("headers") or ()])}


def later_start(stream: str, head: Head) -> Message:
    """The start of every other answer that reads the stream."""
    return {"type": "http.response.start", "status": head.status, "headers": stream_head(stream, list(head.headers))}


def with_listed_headers(message: Message) -> Message:
    """``message``, its headers being a list: to ASGI any iterable will do, but one may be read only once."""
    given = message.get("headers", ())
    return message if isinstance(given, list | tuple) else {**message, "headers": list(given)}


def error_block(data: object) -> bytes:
    """An ``error`` event in band, without the blank line that ends it."""
    return b"event: error\ndata: " + msgspec.json.encode(data) + b"\n"


def gone_denial(gone: Gone, stream: str) -> Denial:
    """The 410 that tells a client other than an EventSource why its cursor is of no use, and what can still be had."""
    earliest = None if gone.earliest is None else f"{stream}.{gone.earliest - 1}"
    return Denial(
        410,
        "The stream cannot be resumed from here",
        detail=_DETAILS[gone.reason],
        extra={"reason": gone.reason, "outcome": gone.outcome, "earliest": earliest},
    )


_DETAILS = {
    "unknown": "Nothing is known of this cursor. Nothing was started.",
    "expired": "The stream has ended, and its events are no longer kept.",
    "ended": "There are no more events: the stream ended without being complete.",
    "interrupted": "The worker of the request with this Idempotency-Key ended before its answer began. Nothing was "
    "started again: to do so, use another key.",
    "gap": "Events behind this cursor are no longer kept. What there still is can be read from the earliest cursor.",
    "ahead": "The stream has not reached this cursor.",
}
