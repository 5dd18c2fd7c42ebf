"""Turns the bytes of an app's body into the numbered events of a log.

Rules:

1. The ``id`` line is the last of its block, and block and id are one event of the log: a torn block never moves a
   client's cursor past an event that it did not get.
2. An event is logged once it is whole. What is unfinished at the end of the body is logged as it is, without an id
   that would make it look whole.
3. Comments are no events: they reach who is connected, with one newline, and no log.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..observe import Observer
from ..stores.base import ProducerLog
from ..wire import ndjson, sse


class ForeignIds(Exception):
    """The first event has an id of the app's own: the stream is not ours to number."""


class EventWriter:
    """Numbers one stream's events. ``seq`` is that of the newest."""

    __slots__ = ("_framer", "_lines", "_observer", "_prefix", "_replace_ids", "_retry", "_stream", "seq")

    def __init__(
        self, stream: str, *, lines: bool, max_event_bytes: int, replace_ids: bool, retry: float, observer: Observer
    ) -> None:
        self.seq = 0
        self._stream = stream.encode()
        self._prefix = b"id: " + self._stream + b"."
        self._lines = lines
        self._framer = ndjson.LineFramer(max_event_bytes) if lines else sse.EventFramer(max_event_bytes)
        self._replace_ids = replace_ids
        self._retry = retry
        self._observer = observer

    def split(self, body: bytes) -> Sequence[bytes | sse.Piece]:
        """The blocks that ``body`` completes, and pieces of those too large to keep."""
        return self._framer.feed(body)

    def unsplit(self, items: Sequence[bytes | sse.Piece]) -> bytes:
        """The bytes that ``items``, and what the framer still holds, were split from."""
        raw = [
            item + sse.line_end(item) if isinstance(item, bytes) and not self._lines else bytes_of(item)
            for item in items
        ]
        return b"".join([*raw, self._framer.finish()])

    def first_event(self, items: Sequence[bytes | sse.Piece]) -> tuple[bytes, int | None]:
        """The comments that ``items`` opens with, and the place of the first event behind them."""
        comments = []
        for place, item in enumerate(items):
            if isinstance(item, sse.Piece) or self._lines or not sse.is_comment(item):
                return b"".join(comments), place
            comments.append(item)
        return b"".join(comments), None

    def app_id(self, block: bytes) -> bytes | None:
        """The app's own id of a block that we must not take over; None where there is none."""
        return None if self._replace_ids or self._lines else sse.own_id(block)

    def append(self, log: ProducerLog, block: bytes) -> bool:
        """Number one block and log it. False where the app has to wait for room.

        :raises ForeignIds: it is the first event and has an id of the app's own.
        """
        if self._lines:
            self.seq += 1
            return log.append(block)
        if block[:1] == b":" and sse.is_comment(block):
            log.aside(block)
            return True
        if sse.own_id(block) is not None:
            if self.seq == 0 and not self._replace_ids:
                raise ForeignIds
            self._observer.count("resume.app_id_removed", reason="replaced" if self._replace_ids else "late")
            block = sse.without_ids(block)
            if not block:
                return True
        self.seq = seq = self.seq + 1
        if seq == 1:
            block = sse.with_retry(block, jittered_milliseconds(self._retry))
        if block[-2:] == b"\r\n" or block[-1:] == b"\r":
            return log.append(sse.with_id(block, b"%b.%d" % (self._stream, seq)))
        return log.append(b"%b%b%d\n\n" % (block, self._prefix, seq))

    async def pass_piece(self, log: ProducerLog, piece: sse.Piece) -> None:
        """A part of an event too large to keep: to the readers that are here, behind its last part the id."""
        data = piece.data
        if piece.last:
            self.seq += 1
            self._observer.count("resume.oversize_event")
            if not self._lines:
                end = sse.line_end(data)
                data += self._prefix + b"%d" % self.seq + end + end
        await log.pass_by(data, piece.last)

    def finish(self, log: ProducerLog) -> None:
        """The body has ended: log what is left of it."""
        rest = self._framer.finish()
        if rest.strip(b"\r\n"):
            self.seq += 1
            log.append(rest)


def bytes_of(item: bytes | sse.Piece) -> bytes:
    return item if isinstance(item, bytes) else item.data


def jittered_milliseconds(seconds: float) -> int:
    """``seconds`` give or take a quarter: browsers add no jitter of their own."""
    return round(seconds * random.uniform(750, 1250))
