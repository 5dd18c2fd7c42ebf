"""Refusals: the one place that decides how a client is told no, for every middleware.

1. A refusal is an answer, never an exception. Its body is ``application/problem+json`` (RFC 9457), it is not to be
   cached, and its reasons are the operator's words, never a request's.
2. Any status but 200 ends a browser's EventSource for good. So a refusal *for now* (``soft=True``) answers those that
   look like one with an empty stream that sets the reconnection time: silent, and they come back with their cursor.
3. Whoever sends a refusal marks the scope's record, so that no log is made of it.
4. A script in a browser sees nothing of a handshake that failed but that it did. Where it is to learn why, the
   WebSocket is accepted and closed at once, with a code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from ..record import record_of
from ..types import Message, RawHeaders, Receive, Scope, Send
from . import headers as raw
from .answer import answer_messages

#: What an answer to a stream's request may depend on.
VARY = (b"Accept", b"Last-Event-ID", b"Prefer", b"Authorization", b"Cookie", b"Origin")

#: Seconds after which a softly refused EventSource returns, where the refusal does not say.
DEFAULT_RETRY = 3.0

#: No refusal sends a client away for longer, in seconds.
MAX_RETRY_AFTER = 366 * 86_400.0
MAX_RETRY = 86_400.0

EVENT_STREAM = b"text/event-stream"

#: How a WebSocket is refused: by an HTTP response, by a close after an accept, or by the first unless a browser asks.
WebSocketReject = Literal["auto", "http", "accept-close"]


Member: TypeAlias = str | int | list[str] | None


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a client is refused. ``retry_after``: seconds, jitter included; ``headers``: lines that the answer carries
    besides (a challenge, rate limits); ``extra``: members of the problem beside the standard ones; ``json_body``: sent
    as ``application/json`` in the problem's place, for clients that read another shape."""

    status: int
    title: str
    detail: str = ""
    retry_after: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    extra: Mapping[str, Member] = field(default_factory=dict[str, Member])
    type: str = "about:blank"
    json_body: bytes | None = None


#: Who asks decides what is allowed, and finding it out went wrong.
UNKNOWN_CALLER = Denial(403, "Who asks could not be told")


def is_eventsource_like(scope: Scope) -> bool:
    """True where the request looks like a browser's EventSource, or its client asks to be taken for one by
    ``Prefer: control-events``. Not proof: a ``fetch`` with ``cache: "no-store"`` looks the same."""
    headers = scope["headers"]
    if (
        scope["method"] == "GET"
        and (accept := raw.combined(headers, b"accept")) is not None
        and accept.strip().lower() == EVENT_STREAM
        and b"no-cache" in raw.split_list((raw.combined(headers, b"cache-control") or b"").lower())
        and raw.get(headers, b"sec-fetch-mode") in (None, b"cors")
    ):
        return True
    prefer = raw.get_all(headers, b"prefer")
    return bool(prefer) and "control-events" in raw.parse_prefer(prefer)


def denial_messages(scope: Scope, denial: Denial, *, soft: bool = False) -> list[Message]:
    """The messages that refuse the HTTP request ``scope``. ``soft``: the refusal is for now, a later try may do."""
    if soft and is_eventsource_like(scope):
        delay = DEFAULT_RETRY if denial.retry_after is None else denial.retry_after
        own = [(b"content-type", EVENT_STREAM), (b"x-accel-buffering", b"no")]
        return _answer(scope, 200, [*own, *denial.headers], b"retry: %d\n\n" % _ceil(delay, MAX_RETRY, 1000))
    body = denial.json_body
    own = [(b"content-type", b"application/problem+json" if body is None else b"application/json")]
    if denial.retry_after is not None:
        own.append((b"retry-after", b"%d" % _ceil(denial.retry_after, MAX_RETRY_AFTER)))
    if body is None:
        body = msgspec.json.encode(_problem(denial))
    return _answer(scope, denial.status, [*own, *denial.headers], body)


def no_content(scope: Scope) -> list[Message]:
    """204: done, nothing to say. The only answer that ends an EventSource kindly."""
    return _answer(scope, 204, [], b"")


async def deny(scope: Scope, send: Send, denial: Denial, *, soft: bool = False) -> None:
    """Refuse the request, and mark its record."""
    record = record_of(scope)
    if record is not None:
        record.denied = True
    for message in denial_messages(scope, denial, soft=soft):
        await send(message)


async def deny_websocket(scope: Scope, send: Send, denial: Denial) -> None:
    """Refuse a WebSocket's handshake: by an HTTP response where the server can, else by a close before the accept,
    of which it makes a bare 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    for message in denial_messages({**scope, "method": "GET"}, denial):
        await send({**message, "type": message["type"].replace("http.", "websocket.http.")})


async def reject_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    denial: Denial,
    *,
    how: WebSocketReject,
    code: int,
    subprotocol: str | None = None,
) -> None:
    """Refuse a WebSocket's handshake as ``how`` says. ``code``: to close with, where it is accepted first;
    ``subprotocol``: to accept with, one of those that the client offers, for browsers fail the connection without."""
    if how == "http" or (how == "auto" and raw.get(scope["headers"], b"origin") is None):
        await deny_websocket(scope, send, denial)
        return
    if (await receive())["type"] != "websocket.connect":
        return  # the client has left
    accept: Message = {"type": "websocket.accept"}
    if subprotocol is not None:
        accept["subprotocol"] = subprotocol
    await send(accept)
    # Daphne drops the reason, so the code has to say it all.
    await send({"type": "websocket.close", "code": code, "reason": denial.title})


def _problem(denial: Denial) -> dict[str, Member]:
    problem: dict[str, Member] = {"type": denial.type, "title": denial.title, "status": denial.status}
    if denial.detail:
        problem["detail"] = denial.detail
    return {**problem, **denial.extra, **problem}


def _ceil(seconds: float, most: float, scale: int = 1) -> int:
    """``seconds`` between 0 and ``most``, in units of 1/``scale``, rounded up; 0 for what is no number."""
    return math.ceil(min(max(0.0, seconds), most) * scale)


def _answer(scope: Scope, status: int, headers: RawHeaders, body: bytes) -> list[Message]:
    return answer_messages(scope, status, raw.merge_vary(raw.no_store(headers), *VARY), body)
