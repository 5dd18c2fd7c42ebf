"""A log of a shared store in the worker that produces it: all of it in memory, and on its way into the store.

Rules:

1. Local readers are served from memory and never wait for the store; with ``durability="store"`` they get what the
   store has acknowledged, and nothing else.
2. ``append`` marks the log once as one that has something to write; what that is is found out when it is written.
3. What the store has not acknowledged is never trimmed. Where there is too much of it, the producer waits.
4. Readers in other workers hold the producer back, and let events be trimmed, as local ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from ..types import Clock
from .backend import PAGE_BYTES, PAGE_EVENTS, Entry
from .base import Batch, Head, Outcome, Sink
from .memory_log import Budget, MemoryLog
from .memory_reader import MemoryReader
from .waiters import Waiters


class Writer(Protocol):
    """Who takes what is unwritten to the store."""

    #: So many unacknowledged bytes hold a log's producer back.
    backlog_per_log: int
    #: The worker's own bound is reached: everybody waits.
    clogged: bool

    def mark(self, log: LocalLog) -> None:
        """The log has something to write."""


@dataclass(slots=True)
class Elsewhere:
    """The readers of one other worker. ``sent``: the highest seq that any of them was sent; ``heard``: when it said
    so."""

    readers: int
    sent: int
    heard: float


class LocalLog(MemoryLog):
    """A ``ProducerLog`` that is written to a shared store."""

    __slots__ = (
        "_acks", "_durable", "_elsewhere", "_stored_bytes", "_told_first", "_writer", "dirty",
        "dropped", "headed", "refused", "settled", "stored", "touched", "written_at",
    )  # fmt: skip

    def __init__(
        self,
        stream: str,
        head: Head,
        *,
        window: int,
        max_bytes: int,
        max_events: int,
        budget: Budget,
        clock: Clock,
        writer: Writer,
        durable: bool,
    ) -> None:
        super().__init__(
            stream,
            head,
            window=window,
            max_bytes=max_bytes,
            max_events=max_events,
            capacity=0,
            budget=budget,
            clock=clock,
        )
        self._writer = writer
        self._durable = durable
        self._elsewhere: dict[str, Elsewhere] = {}
        self._acks = Waiters()
        self._stored_bytes = 0  # what ``_written`` was behind ``stored``
        self._told_first = 1  # what the store may trim up to, as it was told
        self.stored = 0  # the seq up to which the store has acknowledged all
        self.dirty = False  # the writer knows that there is something to write
        self.touched = False  # an entry is wanted even if it is empty
        self.written_at = clock.now()
        self.headed = False  # the store knows of it
        self.refused = False  # the store has no room for it
        self.settled = False  # the store has its outcome, its own or another's
        self.dropped = False  # nobody wants it written any more

    # -- the producer's side

    def append(self, event: bytes) -> bool:
        if not self.dirty and self._outcome is None:
            self._writer.mark(self)
        return MemoryLog.append(self, event)  # ``super()`` makes an object, at each event

    async def pass_by(self, piece: bytes, last: bool) -> None:
        if last:
            self._writer.mark(self)
        await super().pass_by(piece, last)

    def close(self, outcome: Outcome) -> bool:
        closed = super().close(outcome)
        if closed:
            self._writer.mark(self)
        return closed

    # -- the writer's side

    @property
    def backlog(self) -> int:
        """Bytes that the store has not acknowledged."""
        return self._written - self._stored_bytes

    def entry(self) -> Entry | None:
        """The next thing to write, about a page at most; None where there is nothing."""
        stored, base = self.stored, self._base
        if self._outcome is None and self.headed and not self.touched and base <= stored and base < self._told_first:
            more = self._events[stored - base :]  # as a rule: more events, and no more than a page of them
            if 0 < len(more) <= PAGE_EVENTS and self._written - self._stored_bytes <= PAGE_BYTES:
                return Entry(self.stream, stored + 1, more)
        start = max(stored, base)
        events = self._page(start - self._base)
        first, last = start + 1, start + len(events)
        ends = self._outcome is not None and not self.settled and last == self.last
        if not (events or ends or self.touched) and self.headed:
            return None
        self.touched = False
        return Entry(
            self.stream,
            first,
            events,
            head=None if self.headed else self.head,
            trim=self.first if self.first > self._told_first else 0,
            gap=start > self.stored,
            outcome=self._outcome if ends else None,
            unfinished=ends and self.unfinished,
        )

    def _page(self, start: int) -> Sequence[bytes | None]:
        events = self._events[start : start + PAGE_EVENTS]
        size = 0
        for place, event in enumerate(events):
            size += 0 if event is None else len(event)
            if size > PAGE_BYTES:
                return events[: max(1, place)]
        return events

    @property
    def hurried(self) -> bool:
        """Somebody waits for what is to be written: a request for the log, readers elsewhere, or all of them."""
        return not self.headed or self._durable or bool(self._elsewhere)

    @property
    def has_more(self) -> bool:
        """There is more to write than is on its way."""
        return self.stored < self.last or (self._outcome is not None and not self.settled) or not self.headed

    def acknowledge(self, entry: Entry) -> None:
        """The store has ``entry``."""
        last = entry.last
        if last > self.stored:
            self.stored = last
            # Where nothing came meanwhile, there is nothing to add up.
            self._stored_bytes = self._written if last == self.last else self._written_up_to(last)
            if self._rooms:  # when to look again may be found out too early, which is no harm
                self.give_room()
        if entry.head is not None:
            self.headed = True
        if entry.trim:
            self._told_first = entry.trim
        if entry.outcome is not None:
            self.settled = True
        self.written_at = self._clock.now()
        if self._acks or self._durable:
            self._acknowledged()

    def roll_back(self, top: int) -> None:
        """The store has lost what was behind ``top``, or all of it and the head (-1): write it once more."""
        self.headed = self.headed and top >= 0
        self._told_first = 1
        self.stored = max(0, min(self.stored, top))
        self._stored_bytes = self._written_up_to(self.stored)
        self._plan_look()

    def fence(self, outcome: Outcome) -> None:
        """Somebody else has written ``outcome``."""
        self.settled = True
        self.close_from_outside(outcome)
        self._acknowledged()

    def refuse(self) -> None:
        """The store has no room for it."""
        self.refused = True
        self._acknowledged()

    def drop(self) -> None:
        """Nobody wants it written any more."""
        self.dropped = self.settled = True
        super().close(Outcome.INTERRUPTED)  # whoever reads it must not take it for complete
        self._acknowledged()

    def look_again(self) -> None:
        """The worker's bound was reached, or is no longer."""
        self._plan_look()
        self.give_room()

    async def acknowledged(self, wanted: Callable[[LocalLog], bool]) -> None:
        """Wait until ``wanted`` holds; it is asked at each acknowledgement."""
        while not wanted(self):
            await self._acks.wait()

    def _acknowledged(self) -> None:
        self._acks.wake()
        if self._durable:
            self._wake()

    # -- readers in other workers

    @property
    def readers(self) -> int:
        return len(self._places) + sum(other.readers for other in self._elsewhere.values())

    def elsewhere(self, worker: str, readers: int, sent: int) -> None:
        """``worker`` says how many readers it has, and how far the foremost of them is."""
        before = self.readers
        if readers:
            self._elsewhere[worker] = Elsewhere(readers, min(sent, self.last), self._clock.now())
            self._sent = max(self._sent, min(sent, self.last))
        else:
            self._elsewhere.pop(worker, None)
        self._find_foremost()
        self._plan_look()
        self.give_room()
        if self.readers != before:
            self._changed_readers()

    def forget_silent(self, since: float) -> None:
        """Readers of workers that were last heard of before ``since`` no longer count."""
        for worker in [worker for worker, other in self._elsewhere.items() if other.heard < since]:
            self.elsewhere(worker, 0, 0)

    # -- within

    def _place(self, after: int) -> MemoryReader:
        return (PatientReader if self._durable else MemoryReader)(self, after, self._written_up_to(after))

    def idle(self, place: MemoryReader, sink: Sink) -> None:
        if not self._durable:  # what is fresh is in no store yet: the acknowledgement wakes the reader
            super().idle(place, sink)

    def _find_foremost(self) -> None:
        super()._find_foremost()
        if self._elsewhere:
            sent = self._written_up_to(max(other.sent for other in self._elsewhere.values()))
            self._foremost = max(self._foremost, sent)

    def _too_far_ahead(self) -> bool:
        writer = self._writer
        return self.backlog >= writer.backlog_per_log or writer.clogged or super()._too_far_ahead()

    def _next_look(self, written: int) -> int:
        if self._writer.clogged:
            return 0
        return min(super()._next_look(written), self._stored_bytes + self._writer.backlog_per_log)

    def _may_go(self) -> int:
        return min(self._sent, self.stored)


class PatientReader(MemoryReader):
    """A reader that gets nothing before the store has it."""

    __slots__ = ()

    def _take(self) -> Batch | None:
        log = cast(LocalLog, self._log)
        if self.position < log.stored or self.position + 1 in self._parcels:
            batch = super()._take()
            if batch is not None and not log.settled:
                batch.outcome = None
                if not (batch.events or batch.aside or batch.gap):
                    return None
            return batch
        if self._aside and not self._torn and self.position >= log.last:
            return Batch((), self.position, self._take_aside())
        return Batch((), self.position, outcome=log.outcome, torn=self._torn) if log.settled else None

    def _slice(self, start: int) -> list[bytes]:
        taken = super()._slice(start)
        log = cast(LocalLog, self._log)
        excess = self.position - log.stored
        if excess > 0:
            del taken[-excess:]
            self.position -= excess
            self.taken = log._written_up_to(self.position)
        return taken
