"""One log in this process's memory: the whole of ``MemoryStore``'s, and the local side of every shared store's.

Rules:

1. Nothing here waits but ``read``, ``reach``, ``room`` and ``pass_by``; the rest runs to its end within one tick.
2. A reader says what it has *sent* by reading on. Only what was sent to some reader is ever trimmed.
3. The producer is held back by the foremost reader connected now, never by a slow one.
4. The capacity is what the budget grants, up to ``max_bytes``: a full store slows a log down, it never breaks one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from ..types import Clock
from .base import Head, Outcome, Sink
from .memory_reader import MemoryReader


class Budget(Protocol):
    """Where a log gets its bytes from: the store, which bounds the sum over all logs."""

    def grant(self, log: MemoryLog, wanted: int) -> bool:
        """Allow the log to hold ``wanted`` bytes in all; False where the store is full, which calls ``give_room`` once
        that may have changed."""
        ...

    def ended(self, log: MemoryLog) -> None:
        """The log has its outcome."""


class MemoryLog:
    """A ``ProducerLog`` in memory."""

    __slots__ = (
        "_audience",
        "_base",
        "_budget",
        "_clock",
        "_events",
        "_foremost",
        "_holes",
        "_idle",
        "_left",
        "_look_at",
        "_max_events",
        "_outcome",
        "_places",
        "_present",
        "_rooms",
        "_sent",
        "_sink",
        "_trimmed",
        "_waiting",
        "_window",
        "capacity",
        "head",
        "max_bytes",
        "on_closed",
        "on_readers",
        "stream",
        "unfinished",
    )

    def __init__(
        self,
        stream: str,
        head: Head,
        *,
        window: int,
        max_bytes: int,
        max_events: int,
        capacity: int,
        budget: Budget,
        clock: Clock,
    ) -> None:
        self.stream = stream
        self.head = head
        self.max_bytes = max_bytes
        self.capacity = capacity
        self.unfinished = False
        self.on_closed: Callable[[Outcome], None] | None = None
        self.on_readers: Callable[[int], None] | None = None
        self._window = window
        self._max_events = max_events
        self._budget = budget
        self._clock = clock
        self._events: list[bytes | None] = []  # None: an event that was too large to keep
        self._holes = 0
        self._base = 0  # the seq before that of _events[0]
        self._trimmed = 0  # bytes that were appended and are no longer in _events
        # Until so many are written, no bound can have been reached; what is left until then is all that is counted at
        # each event, for with many streams whatever an event touches is in no cache.
        self._look_at = self._left = 0
        self._sent = 0  # the highest seq that was sent to some reader
        self._foremost = 0  # bytes that the foremost reader connected now has been sent
        self._places: list[MemoryReader] = []
        # Tuples, for most often there is none, or one, and an empty list for each would be paid by every log.
        self._waiting: tuple[asyncio.Future[None], ...] = ()
        self._rooms: tuple[asyncio.Future[None], ...] = ()
        self._audience: list[MemoryReader] | None = None  # of the large event under way, who still gets it
        self._present: Sequence[MemoryReader] = ()  # who was there when it began
        self._idle: MemoryReader | None = None  # the only reader, which waits, lacks nothing, and has a sink
        self._sink: Sink | None = None  # that one; what was given to it is noted only when somebody wants to know
        self._outcome: Outcome | None = None

    # -- what both sides see

    @property
    def first(self) -> int:
        return self._base + 1

    @property
    def last(self) -> int:
        return self._base + len(self._events)

    @property
    def outcome(self) -> Outcome | None:
        return self._outcome

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._written - self._trimmed

    @property
    def readers(self) -> int:
        return len(self._places)

    def reader(self, after: int) -> MemoryReader:
        self._end_idling()
        place = self._place(after)
        self._places.append(place)
        self._find_foremost()
        self._plan_look()
        self.give_room()  # it may be the foremost
        self._changed_readers()
        return place

    async def reach(self, seq: int, timeout: float) -> bool:
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            self._wake()

        timer = self._clock.call_later(timeout, expire)
        try:
            while self.last < seq and self._outcome is None and not late:
                await self._wait()
        finally:
            timer.cancel()
        return self.last >= seq

    # -- the producer's side

    def append(self, event: bytes) -> bool:
        if self._outcome is not None:
            return False
        self._events.append(event)
        left = self._left = self._left - len(event)
        sink = self._sink
        if sink is not None:
            taken = sink.give(event)
            if not taken:
                self._hand_back(event, begun=taken is not None)
        elif self._waiting:
            self._wake()
        if left > 0:
            return True
        return self._look()

    def aside(self, data: bytes) -> None:
        for place in self._places:
            place.hand(data)
        self._wake()

    async def pass_by(self, piece: bytes, last: bool) -> None:
        if self._outcome is not None:
            return
        self._end_idling()
        seq = self.last + 1
        if self._audience is None:
            self._audience = self._present = list(self._places)
        present = self._present
        audience: list[MemoryReader] = []
        for place in self._audience:
            if place not in self._places:
                continue
            if place.pending > self._window:  # does not keep up: it loses this event, the foremost is not held back
                place.lose(seq)
            else:
                place.hand_piece(seq, piece)
                audience.append(place)
        self._audience = audience
        if last:
            self._audience = None
            self._present = ()
            self._events.append(None)
            self._holes += 1
            self._plan_look()  # it has no bytes, and counts all the same
        self._wake()
        if not audience:
            await asyncio.sleep(0)  # nobody holds it back: let others run all the same
        while self.outcome is None and audience and min(place.pending for place in audience) > 0:
            if self._places[-1] not in present:  # it waits for what follows: no stalled reader holds it back
                await asyncio.sleep(0)
                break
            await self._wait_room()
            audience = [place for place in audience if place in self._places]

    async def room(self) -> bool:
        while self._outcome is None and (self._over_capacity() or self._too_far_ahead()):
            await self._wait_room()
        return self._outcome is None

    def close(self, outcome: Outcome) -> bool:
        if self._outcome is not None:
            return False
        self._outcome = outcome
        self._wake()
        self.give_room()
        self._budget.ended(self)
        return True

    def close_from_outside(self, outcome: Outcome) -> bool:
        """Close it for somebody other than its producer, who is told."""
        closed = self.close(outcome)
        if closed and self.on_closed is not None:
            self.on_closed(outcome)
        return closed

    # -- within

    @property
    def _written(self) -> int:
        """Bytes ever appended."""
        return self._look_at - self._left

    def _place(self, after: int) -> MemoryReader:
        return MemoryReader(self, after, self._written_up_to(after))

    def _written_up_to(self, seq: int) -> int:
        """What ``_written`` was behind event ``seq``."""
        return self._written - sum(map(_length, self._events[max(0, seq - self._base) :]))

    def idle(self, place: MemoryReader, sink: Sink) -> None:
        """``place`` is the only reader and begins to wait: what comes next may be given to its ``sink``."""
        self._idle, self._sink = place, sink

    def _end_idling(self) -> None:
        """From here on nothing goes straight to a sink."""
        if self._idle is not None:
            self._note_given()
            self._idle = self._sink = None

    def _note_given(self) -> None:
        """The idle reader has been sent all there is."""
        place = self._idle
        if place is not None:
            place.position = self._sent = self.last
            place.taken = place.sent = self._foremost = self._written

    def _hand_back(self, event: bytes, *, begun: bool) -> None:
        """The newest event, which the sink has only ``begun`` to send or has not taken, is the idle reader's."""
        place = self._idle
        self._end_idling()
        if place is not None:
            place.sent = self._foremost = self._written - len(event)
            self._sent = self.last - 1
            if begun:
                place.in_flight = True
            else:
                place.position, place.taken = self._sent, place.sent
            self._plan_look()
        self._wake()

    def _find_foremost(self) -> None:
        self._note_given()
        self._foremost = max((place.sent for place in self._places), default=0)

    def _too_far_ahead(self) -> bool:
        return self.readers > 0 and self._written - self._foremost >= self._window

    def _look(self) -> bool:
        """Whether there is room for more; and when to look again. One comparison an event is all that bounds cost."""
        self._note_given()
        room = not self._over_capacity() and not self._too_far_ahead()
        self._plan_look()
        return room

    def _plan_look(self) -> None:
        written = self._written
        self._look_at = self._next_look(written)
        self._left = self._look_at - written

    def _next_look(self, written: int) -> int:
        """What ``written`` will be when a bound may be reached next."""
        # An event has a byte at least, so that the bound on their number is met by counting bytes too.
        soonest = min(self._trimmed + self.capacity, written + self._max_events - len(self._events)) + 1
        return min(soonest, self._foremost + self._window) if self.readers else soonest

    def _over_capacity(self) -> bool:
        return (self.size > self.capacity or len(self._events) > self._max_events) and not self._make_room()

    def _make_room(self) -> bool:
        """Ask the budget for more, then trim what some reader has been sent."""
        if self.size > self.capacity and self.capacity < self.max_bytes:
            wanted = min(self.max_bytes, max(self.size, 2 * self.capacity))
            if self._budget.grant(self, wanted):
                self.capacity = wanted
        cut = 0
        over_bytes, over_events = self.size - self.capacity, len(self._events) - self._max_events
        if over_bytes > 0 or over_events > 0:
            # An eighth more than needed, so that a log at its cap does not move its list at every event.
            over_bytes += self.capacity // 8
            over_events += self._max_events // 8
            trimmable = min(self._may_go() - self._base, len(self._events))
            freed = 0
            while cut < trimmable and (freed < over_bytes or cut < over_events):
                event = self._events[cut]
                freed += len(event or b"")
                self._holes -= event is None
                cut += 1
            del self._events[:cut]
            self._base += cut
            self._trimmed += freed
        return self.size <= self.capacity and len(self._events) <= self._max_events

    def _may_go(self) -> int:
        """The seq up to which events may be trimmed."""
        return self._sent

    def _progress(self, place: MemoryReader) -> None:
        """``place`` has been sent all up to its position."""
        sent = min(place.position, self._base + len(self._events))
        if sent > self._sent:
            self._sent = sent
        place.sent = place.taken
        if place.sent > self._foremost:
            self._foremost = place.sent
        if self._rooms:
            self.give_room()

    def _leave(self, place: MemoryReader) -> None:
        if place in self._places:
            self._places.remove(place)
            self._find_foremost()
            self._plan_look()
            self.give_room()
            self._changed_readers()

    def _changed_readers(self) -> None:
        if self.on_readers is not None:
            self.on_readers(self.readers)

    def _wait(self) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting += (waiter,)
        return waiter

    def _wake(self) -> None:
        self._end_idling()
        waiting = self._waiting
        if waiting:
            self._waiting = ()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _wait_room(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._rooms += (waiter,)
        await waiter

    def give_room(self) -> None:
        """There may be room again: whoever waits for it looks for himself."""
        waiting, self._rooms = self._rooms, ()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def _length(event: bytes | None) -> int:
    return 0 if event is None else len(event)
