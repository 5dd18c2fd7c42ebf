"""Turns the bytes of an app's body into the numbered events of a log.

Rules:

1. The ``id`` line is the last of its block, and block and id are one event of the log: a torn block never moves a
   client's cursor past an event that it did not get.
2. An event is logged once it is whole. What is unfinished at the end of the body is logged as it is, without an id
   that would make it look whole.
3. Comments are no events: they reach who is connected, with one newline, and no log. Nor are blocks without data
   before the first event, for an answer of nothing else is a refusal, not a stream.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..observe import Observer
from ..stores.base import ProducerLog
from ..types import Message
from ..wire import ndjson, sse

BOM = b"\xef\xbb\xbf"

#: How an event ends, by its number's last two digits: of the first hundred, and of all that follow.
_FIRST_ENDS = tuple(b"%d\n\n" % number for number in range(100))
_ENDS = tuple(b"%02d\n\n" % number for number in range(100))


class ForeignIds(Exception):
    """The first event has an id of the app's own: the stream is not ours to number."""


class EventWriter:
    """Numbers one stream's events.

    A number is kept as its ``_hundreds`` and what is ``_over`` them, with the bytes that are the same for a hundred
    events in ``_before`` and ``_ends``: no event makes a number of its own, or its digits.
    """

    __slots__ = (
        "_before", "_blocks", "_ends", "_fast", "_framer", "_hundreds", "_max_event_bytes", "_observer", "_over",
        "_replace_ids", "_retry",
    )  # fmt: skip

    def __init__(
        self, stream: str, *, lines: bool, max_event_bytes: int, replace_ids: bool, retry: float, observer: Observer
    ) -> None:
        self._before = b"\nid: %b." % stream.encode()  # from an event's last character to its number's last two digits
        self._ends = _FIRST_ENDS
        self._hundreds = self._over = 0
        self._max_event_bytes = max_event_bytes
        self._blocks = None if lines else sse.EventFramer(max_event_bytes)
        self._framer = self._blocks or ndjson.LineFramer(max_event_bytes)
        self._fast = False  # what comes next begins an event of an event stream, and is not its first
        self._replace_ids = replace_ids
        self._retry = retry
        self._observer = observer

    @property
    def seq(self) -> int:
        """The number of the newest event."""
        return self._hundreds * 100 + self._over

    def _count(self) -> None:
        """Another event."""
        self._over += 1
        if self._over == 100:
            stem = self._before[: self._before.rindex(b".") + 1]
            self._hundreds, self._over = self._hundreds + 1, 0
            self._before, self._ends = b"%b%d" % (stem, self._hundreds), _ENDS

    @property
    def _lines(self) -> bool:
        return self._blocks is None

    def split(self, body: bytes) -> Sequence[bytes | sse.Piece]:
        """The blocks that ``body`` completes, and pieces of those too large to keep."""
        items = self._framer.feed(body)
        self._fast = self._blocks is not None and self._blocks.ready and self.seq > 0
        return items

    def unsplit(self, items: Sequence[bytes | sse.Piece]) -> bytes:
        """The bytes that ``items``, and what the framer still holds, were split from."""
        raw = [
            item + sse.line_end(item) if isinstance(item, bytes) and not self._lines else bytes_of(item)
            for item in items
        ]
        return b"".join([*raw, self._framer.finish()])

    def first_event(self, items: Sequence[bytes | sse.Piece]) -> tuple[bytes, int | None]:
        """What ``items`` opens with that is no event, as it goes out, and the place of the first event behind it."""
        before: list[bytes] = []
        for place, item in enumerate(items):
            beside = None if self._lines or isinstance(item, sse.Piece) else beside_events(item)
            if beside is None:
                return b"".join(before), place
            before.append(beside)
        return b"".join(before), None

    def app_id(self, block: bytes) -> bytes | None:
        """The app's own id of a block that we must not take over; None where there is none."""
        return None if self._replace_ids or self._lines else sse.own_id(block)

    def write(self, log: ProducerLog, body: bytes) -> bool | None:
        """The fast path: log ``body`` if it is one whole event of one line, as most are, behind others. As ``append``;
        None, and nothing done, where it is anything else."""
        line, _, rest = body.partition(b"\n")
        over = self._over + 1
        if (
            not self._fast
            or over == 100
            or rest != b"\n"
            or not line
            or line[0] != 100  # "d": of one line, only a data field makes an event
            or 13 in line
            or len(line) >= self._max_event_bytes
        ):
            return None
        self._over = over
        return log.append(b"%b%b%b" % (line, self._before, self._ends[over]))

    def append(self, log: ProducerLog, block: bytes) -> bool:
        """Number one block and log it. False where the app has to wait for room.

        :raises ForeignIds: it is the first event and has an id of the app's own.
        """
        if self._lines:
            self._count()
            return log.append(block)
        first = not self._over and not self._hundreds
        if block[0] != 100 and (first or block[:1] == b":"):  # "d": begins with its data, and so is an event
            beside = beside_events(block)
            if beside is not None and (first or sse.is_comment(block)):
                log.aside(beside)
                return True
        if sse.own_id(block) is not None:
            if first and not self._replace_ids:
                raise ForeignIds
            self._observer.count("resume.app_id_removed", reason="replaced" if self._replace_ids else "late")
            block = sse.without_ids(block)
            if not block:
                return True
        if block.startswith(BOM):
            # In mid-stream it is part of a field's name, at the start of one, where a replay may put it, a mark.
            block = b":\n" + block
        self._count()
        if first:
            self._fast = self._blocks is not None and self._blocks.ready
            block = sse.with_retry(block, jittered_milliseconds(self._retry))
        if block[-2:] == b"\r\n" or block[-1:] == b"\r":
            return log.append(sse.with_id(block, self._id_line[len(b"id: ") : -2]))
        return log.append(b"%.*b%b%b" % (len(block) - 1, block, self._before, self._ends[self._over]))

    @property
    def _id_line(self) -> bytes:
        """That of the newest event, and the blank line that ends it."""
        return self._before[1:] + self._ends[self._over]

    async def pass_piece(self, log: ProducerLog, piece: sse.Piece) -> None:
        """A part of an event too large to keep: to the readers that are here, behind its last part the id."""
        data = piece.data
        if piece.last:
            self._count()
            self._observer.count("resume.oversize_event")
            if not self._lines:
                end = sse.line_end(data)
                data += self._id_line[:-2] + end + end
        await log.pass_by(data, piece.last)

    async def finish(self, log: ProducerLog) -> None:
        """The body has ended: log what is left of it."""
        in_pieces, rest = self._framer.in_pieces, self._framer.finish()
        if in_pieces:
            self._count()
            log.unfinished = not self._lines
            await log.pass_by(rest, True)
        elif not self._lines and sse.is_comment(rest):
            log.aside(rest)
        elif rest.strip(b"\r\n"):
            self._count()
            log.unfinished = not self._lines
            log.append(rest)


def beside_events(block: bytes) -> bytes | None:
    """``block`` as it goes out where it is no event: a comment, with one newline, or fields without data, which an
    EventSource obeys but never shows. None where it is an event, or has an id."""
    if block[:1] == b":" and sse.is_comment(block):
        return block
    if sse.has_field(block, b"data") or sse.own_id(block) is not None:
        return None
    return block + sse.line_end(block)


def body_of(message: Message) -> bytes:
    """The body of a message as bytes of its own: some apps reuse the buffer that they send.

    :raises TypeError: it is nothing like bytes.
    """
    body = message.get("body", b"")
    return body if isinstance(body, bytes) else bytes(memoryview(body))


def bytes_of(item: bytes | sse.Piece) -> bytes:
    return item if isinstance(item, bytes) else item.data


def jittered_milliseconds(seconds: float) -> int:
    """``seconds`` give or take a half: browsers add no jitter of their own (why a half: docs/scaling.md)."""
    return round(seconds * random.uniform(500, 1500))
