"""Whether a response is a stream that gets a log: decided from its messages, one after the other, with no I/O.

What it takes: status 200, a media type that is a stream's, no content coding, no trailers, no sign of MCP (which has
rules of its own), no refusal of ours, and a first event without an id of the app's own. A response that ends before its
first event is none. While that is open, the start and what little came of the body are held back.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ..record import record_of
from ..types import Message, RawHeaders, Scope
from ..wire import headers, sse
from ..wire.cursor import parse_cursor
from .options import Options
from .response import EVENT_STREAM
from .worker import Worker
from .writer import EventWriter, body_of

#: What comes before the first event is kept for the first reader up to this size.
PREFACE_BYTES = 4096


class Finding(enum.Enum):
    OPEN = "open"  # the message is held back, or goes on as it is while there is no start
    STREAM = "stream"  # get a log, and write ``first`` into it
    OTHER = "other"  # let it pass, what is held back first


class Probe:
    """``start``: the response's, once it may be a stream. ``preface``: what came before the first event, for the first
    reader. ``first``: the first event and what came with it."""

    __slots__ = ("_held", "_options", "_scope", "_stream", "_worker", "first", "preface", "start", "writer")

    def __init__(self, stream: str, scope: Scope, options: Options, worker: Worker) -> None:
        self._stream = stream
        self._scope = scope
        self._options = options
        self._worker = worker
        self._held: Sequence[bytes] = ()
        self.start: Message | None = None
        self.preface = b""
        self.first: Sequence[bytes | sse.Piece] = ()
        self.writer = self._new_writer(lines=False)

    def take(self, message: Message) -> Finding:
        """What ``message`` shows."""
        kind = message["type"]
        if self.start is None:
            if kind != "http.response.start":
                return Finding.OPEN
            if not self.may_be_stream(message):
                return Finding.OTHER
            self.start = message
            return Finding.OPEN
        return self._take_body(message) if kind == "http.response.body" else Finding.OTHER

    def held(self) -> list[Message]:
        """What was held back, to be sent after all."""
        held, self._held = self._held, ()
        self.preface = b""
        bodies: list[Message] = [{"type": "http.response.body", "body": body, "more_body": True} for body in held]
        return bodies if self.start is None else [self.start, *bodies]

    def release(self) -> None:
        """Nobody will ask for what was held any more."""
        self.start, self.preface, self._held, self.first = None, b"", (), ()

    def may_be_stream(self, start: Message) -> bool:
        """What the head of the response says. Takes note of how events are framed in it."""
        given: RawHeaders = list(start.get("headers") or [])
        media_type = headers.media_type(headers.get(given, b"content-type"))
        if start.get("status") != 200 or media_type not in self._options.media_types or start.get("trailers"):
            return False
        if headers.get(given, b"mcp-session-id") is not None or headers.get(given, b"mcp-protocol-version") is not None:
            return False
        if headers.get(given, b"content-encoding") not in (None, b"identity"):
            self._options.observer.count("resume.passed", reason="content_encoding")
            return False
        if media_type != EVENT_STREAM:
            self.writer = self._new_writer(lines=True)
        record = record_of(self._scope)
        return record is None or not record.denied

    def count_own_ids(self, first: bytes | sse.Piece) -> None:
        """A stream with ids of its own is let through. Where they are another Streamware's, we are its gateway."""
        self._options.observer.count("resume.passed", reason="app_ids")
        inner = parse_cursor(sse.own_id(first)) if isinstance(first, bytes) else None
        if inner is not None and inner.tag != self._options.store.tag:
            self._worker.learn_inner_tag(inner.tag)

    def _take_body(self, message: Message) -> Finding:
        body = body_of(message)
        items = self.writer.split(body)
        before, first = self.writer.first_event(items)
        if first is None:
            if not message.get("more_body", False):
                return Finding.OTHER
            self._held = [*self._held, body]
            if len(self.preface) + len(before) <= PREFACE_BYTES:
                self.preface += before
            return Finding.OPEN
        if not self._is_ours(items[first]):
            return Finding.OTHER
        self.preface += before
        self.first = items[first:]
        return Finding.STREAM

    def _is_ours(self, first: bytes | sse.Piece) -> bool:
        if isinstance(first, sse.Piece):
            self._options.observer.count("resume.passed", reason="oversize_event")
            return False
        if self.writer.app_id(first) is None:
            return True
        self.count_own_ids(first)
        return False

    def _new_writer(self, *, lines: bool) -> EventWriter:
        options = self._options
        return EventWriter(
            self._stream,
            lines=lines,
            max_event_bytes=options.max_event_bytes,
            replace_ids=options.replace_ids,
            retry=options.retry,
            observer=options.observer,
        )
