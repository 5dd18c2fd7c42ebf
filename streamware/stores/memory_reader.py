"""One reader's place in a ``MemoryLog``: what it gets next.

Rules:

1. Events come in order. What is lost to this reader (trimmed under it, or too large to keep and gone by without it) is
   told as a gap, and with it whether the start of an event has gone out whose end never will.
2. An event too large to keep comes in its place among the others, in pieces, and nothing comes within it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .base import Batch, Sink

if TYPE_CHECKING:
    from .memory_log import MemoryLog

READ_BYTES = 64 * 1024
ASIDE_BYTES = 4096
NO_PARCELS: dict[int, list[bytes]] = {}  # of all readers that never had one


class MemoryReader:
    """A ``LogReader`` over a ``MemoryLog``. ``taken`` and ``sent`` count bytes as the log's ``_written`` does."""

    __slots__ = (
        "_aside", "_closed", "_log", "_parcels", "_torn", "in_flight", "pending", "position", "sent", "sink", "taken",
    )  # fmt: skip

    def __init__(self, log: MemoryLog, after: int, taken: int) -> None:
        self._log = log
        self.position: int = after
        self.taken = taken
        self.sent = taken
        self._aside = b""
        self._closed = False
        self.in_flight = False  # the sink has begun to send an event and could not end
        self.sink: Sink | None = None
        self._torn = False  # the start of a large event has gone out, its end has not
        self._parcels = NO_PARCELS  # by seq, the pieces of large events that were not yet read
        self.pending = 0  # bytes in them

    async def read(self) -> Batch | None:
        log = self._log
        if not self._closed:
            log._progress(self)
        while not self._closed:
            batch = self._take()
            if batch is not None:
                return batch
            sink = self.sink
            if sink is not None and len(log._places) == 1 and self.position == log.last and sink.ready():
                log.idle(self, sink)
            try:
                await log._wait()
            except BaseException:  # cancelled: nobody waits any more
                log._end_idling()
                raise
        return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._log._leave(self)
            self._log._wake()

    def hand(self, data: bytes) -> None:
        """Bytes to go out after the events read next; dropped where the reader has not taken the earlier ones."""
        if len(self._aside) + len(data) <= ASIDE_BYTES:
            self._aside += data

    def hand_piece(self, seq: int, piece: bytes) -> None:
        """A piece of event ``seq``, which is in no log."""
        if self._parcels is NO_PARCELS:
            self._parcels = {}
        self._parcels.setdefault(seq, []).append(piece)
        self.pending += len(piece)

    def lose(self, seq: int) -> None:
        """Drop the pieces of event ``seq`` that were not yet read: the rest of it will not come."""
        self.pending -= sum(map(len, self._parcels.pop(seq, ())))

    def _take(self) -> Batch | None:
        """What is there now; None where there is nothing."""
        log = self._log
        if self.in_flight:
            self.in_flight = False
            return Batch((), self.position)
        if self._parcels and self.position + 1 in self._parcels:
            return self._take_pieces()
        start = self.position - log._base
        gap = torn = False
        if start < 0:
            gap, torn = True, self._torn
            self._skip_to(log._base)
            start = 0
        if start < len(log._events):
            if log._events[start] is None:  # an event that went by without us
                torn = torn or self._torn
                self._skip_to(self.position + 1)
                return Batch((), self.position, b"", True, None, torn)
            taken = self._slice(start)
            ended = log._outcome if self.position == log.last and not self._parcels else None
            return Batch(taken, self.position, self._take_aside(), gap, ended, torn)
        if self._aside and not self._torn:
            return Batch((), self.position, self._take_aside(), gap, None, torn)
        if log._outcome is not None:
            return Batch((), self.position, b"", gap, log._outcome, torn or self._torn)
        return Batch((), self.position, b"", True, None, torn) if gap else None

    def _take_aside(self) -> bytes:
        aside, self._aside = self._aside, b""
        return aside

    def _take_pieces(self) -> Batch:
        """What there is of the event behind our place, which is too large for the log; asides stay out of it."""
        seq = self.position + 1
        pieces = b"".join(self._parcels.pop(seq))
        self.pending -= len(pieces)
        if not self._torn:
            pieces = self._take_aside() + pieces
        self._torn = seq > self._log.last
        if not self._torn:
            self.position = seq
        return Batch((), self.position, pieces)

    def _skip_to(self, position: int) -> None:
        """Pass over what is lost to this reader."""
        log = self._log
        self.position = position
        self._torn = False
        if position == log._base:
            self.taken = log._trimmed
        for seq in [seq for seq in self._parcels if seq <= position]:
            self.lose(seq)

    def _slice(self, start: int) -> list[bytes]:
        """Events from ``start`` on, up to the next that was not kept, about ``READ_BYTES`` of them."""
        log = self._log
        events, ahead = log._events, log._written - self.taken
        end = len(events)
        if ahead > READ_BYTES:  # as many as would be right if all were of the same size, and no look at each
            end = start + READ_BYTES * (end - start) // ahead + 1
        if log._holes and None in (found := events[start:end]):
            end = start + found.index(None)
        taken = cast("list[bytes]", events[start:end])
        size = ahead if start + len(taken) == len(events) else sum(map(len, taken))
        while size > 2 * READ_BYTES and len(taken) > 1:  # they are not
            del taken[len(taken) // 2 :]
            size = sum(map(len, taken))
        self.taken += size
        self.position += len(taken)
        return taken
