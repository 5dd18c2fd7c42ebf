"""Pacing: what is sent goes out at a rate, however fast the app makes it. The app feels it in its ``send``.

Rules:

1. An event is never split, nor is a WebSocket message or an encoded body. A plain body may be, where bytes are paced.
2. What means nothing costs nothing: comments, heartbeats, blank lines.
3. Up to ``GRAIN`` seconds ahead of time is on time: what is due together leaves together.
4. Nothing waits longer than ``MAX_DELAY``: a connection that is silent for longer is taken for dead on the way.
5. Connections that share a pace take turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol
from weakref import WeakValueDictionary

from ..clock import sleep
from ..types import Clock, Message, Send
from ..wire import headers
from ..wire.boundary import EventBoundary, LineBoundary
from ..wire.denial import EVENT_STREAM
from ..wire.ndjson import MEDIA_TYPES as NDJSON

GRAIN = 0.002
MAX_DELAY = 15.0
#: A plain body leaves in slices of what may be sent in so many seconds.
SLICE = 0.05
SMALLEST_SLICE = 512

#: Extensions of ASGI by which a server sends a file by itself.
SENDS_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})

_blank_line = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))").finditer
_newline = re.compile(rb"\n").finditer


class Pace:
    """The debt clock of one connection, or of all that share it: ``events`` and ``octets`` a second, None for as many
    as there are."""

    __slots__ = ("__weakref__", "_clock", "_due", "events", "octets")

    def __init__(self, events: float | None, octets: float | None, clock: Clock) -> None:
        self.events = events
        self.octets = octets
        self._clock = clock
        self._due = 0.0

    def wait(self) -> float:
        """Seconds until the next may leave; 0 where that is now."""
        wait = self._due - self._clock.now()
        return min(wait, MAX_DELAY) if wait > GRAIN else 0.0

    def charge(self, events: int, octets: int) -> float:
        """So much leaves behind what was charged before; in how many seconds."""
        now = self._clock.now()
        cost = 0.0
        if self.events is not None:
            cost = events / self.events
        if self.octets is not None:
            cost = max(cost, octets / self.octets)
        wait = self.wait()
        self._due = min(max(self._due, now) + cost, now + MAX_DELAY + cost)
        return wait

    async def pay(self, events: int, octets: int) -> None:
        """Take one's turn, and wait for it."""
        if (seconds := self.charge(events, octets)) > 0:
            await sleep(self._clock, seconds)


class Paces:
    """Those of one middleware. ``together``: connections of one key share theirs, as long as there are any."""

    def __init__(self, events: float | None, octets: float | None, clock: Clock, *, together: bool) -> None:
        self.events = events
        self.octets = octets
        self.together = together
        self._clock = clock
        self._shared: WeakValueDictionary[str, Pace] = WeakValueDictionary()

    def __bool__(self) -> bool:
        return self.events is not None or self.octets is not None

    def __len__(self) -> int:
        return len(self._shared)

    def of(self, key: str | None) -> Pace:
        """The pace of a connection. ``key``: whose it is, None for nobody's."""
        pace = self._shared.get(key) if self.together and key is not None else None
        if pace is None:
            pace = Pace(self.events, self.octets, self._clock)
            if self.together and key is not None:
                self._shared[key] = pace
        return pace


class Boundary(Protocol):
    """Knows whether the bytes so far end between two events."""

    @property
    def between(self) -> bool: ...

    def feed(self, data: bytes) -> None: ...


class PacedResponse:
    """The ``send`` of one HTTP response at a pace."""

    def __init__(self, pace: Pace, send: Send) -> None:
        self._pace = pace
        self._send = send
        self._cut: Callable[[bytes], Iterator[re.Match[bytes]]] | None = None
        self._boundary: Boundary | None = None
        self._whole = False  # a body that may not be split

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        if message["type"] == "http.response.body":
            body: bytes = message.get("body", b"")
            if self._boundary is not None and self._cut is not None:
                await self._send_events(message, body, self._boundary, self._cut)
                return
            if body and (self._whole or self._pace.octets is not None):
                await self._send_body(message, body)
                return
        elif message["type"] == "http.response.start":
            self._look(message)
        await self._send(message)

    def _look(self, start: Message) -> None:
        given = start.get("headers") or ()
        kind = headers.media_type(headers.get(given, b"content-type"))
        stream = kind == EVENT_STREAM or kind in NDJSON
        coding = headers.get(given, b"content-encoding")
        if coding is not None and coding.strip().lower() != b"identity":
            self._whole = stream  # each message is one event, as far as can be told
        elif kind == EVENT_STREAM:
            self._boundary, self._cut = EventBoundary(), _blank_line
        elif stream:
            self._boundary, self._cut = LineBoundary(), _newline

    async def _send_body(self, message: Message, body: bytes) -> None:
        pace = self._pace
        if self._whole or pace.octets is None:
            await pace.pay(1, len(body))
            await self._send(message)
            return
        size = max(SMALLEST_SLICE, int(pace.octets * SLICE))
        for at in range(0, len(body), size):
            part = body[at : at + size]
            more = at + size < len(body) or message.get("more_body", False)
            await pace.pay(0, len(part))
            await self._send({**message, "body": part, "more_body": more})

    async def _send_events(
        self,
        message: Message,
        body: bytes,
        boundary: Boundary,
        cut: Callable[[bytes], Iterator[re.Match[bytes]]],
    ) -> None:
        """Send what is due, wait before what is not. Only a message that has to be parted is made anew."""
        pace = self._pace
        sent = at = 0
        for end in (*(found.end() for found in cut(body)), len(body)):
            if end == at:
                continue
            part = body[at:end]
            begins = boundary.between
            costs = begins and not _means_nothing(part)
            if costs:
                if at > sent and pace.wait() > 0:
                    await self._send({**message, "body": body[sent:at], "more_body": True})
                    sent = at
                await pace.pay(1, len(part))
            boundary.feed(part)
            if not begins and pace.octets is not None:  # the rest of an event is never late, but is paid for
                pace.charge(0, len(part))
            at = end
        await self._send(message if not sent else {**message, "body": body[sent:]})


def _means_nothing(part: bytes) -> bool:
    """Whether a client makes nothing of it: comments and blank lines only."""
    if part[:1] not in (b":", b"\n", b"\r"):
        return False
    return all(line[:1] in (b":", b"") for line in part.splitlines())
