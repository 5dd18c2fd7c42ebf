"""Many timers on one of the clock's: those of all connections that a middleware serves in one event loop.

A timer of the loop's own takes more memory than all else that a silent connection keeps here, so connections share one:
the earliest. Rules:

1. A timer that is called off holds its owner no longer, and what is left of it is bounded by the number of live ones.
2. While no timer is live, the clock has none either.
3. The object belongs to one loop: one app may be served by several, even at once in threads.
"""

from __future__ import annotations

import asyncio
import heapq
from contextvars import Context
from typing import Protocol

from ..types import Clock, TimerHandle

#: So many timers that were called off are always tolerated.
SLACK = 64
NEVER = float("inf")


class Fires(Protocol):
    """Whose time has come."""

    def fire(self) -> None:
        """Called once, at or just after the time."""


class Timer:
    """One timer. ``owner``: None once it has run or was called off."""

    __slots__ = ("_timers", "owner", "when")

    def __init__(self, timers: Timers, when: float, owner: Fires) -> None:
        self._timers = timers
        self.when = when
        self.owner: Fires | None = owner

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Call it off; harmless when it has run."""
        if self.owner is not None:
            self.owner = None
            self._timers._called_off()


def of_this_loop(timers: Timers | None, clock: Clock) -> Timers:
    """``timers``, if they are the running loop's, else new ones.

    :raises RuntimeError: no loop runs.
    """
    loop = asyncio.get_running_loop()
    return timers if timers is not None and timers.loop is loop else Timers(clock, loop)


class Timers:
    """All timers of one loop, on ``clock``."""

    __slots__ = ("_clock", "_dead", "_due", "_handle", "_heap", "loop")

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._clock = clock
        self._heap: list[Timer] = []
        self._dead = 0  # of them, how many were called off
        self._handle: TimerHandle | None = None
        self._due = NEVER  # when the clock's timer is to fire

    def call_later(self, delay: float, owner: Fires) -> Timer:
        """Have ``owner`` fire in ``delay`` seconds."""
        timer = Timer(self, self._clock.now() + delay, owner)
        heapq.heappush(self._heap, timer)
        if timer.when < self._due:
            self._arm()
        return timer

    def _arm(self) -> None:
        """Set the clock's timer to the earliest live one."""
        heap = self._heap
        while heap and heap[0].owner is None:
            heapq.heappop(heap)
            self._dead -= 1
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._due = NEVER
        if heap:
            self._due = heap[0].when
            # In a context of its own: the one at hand is a request's, and would be held for as long as the timer.
            self._handle = Context().run(self._clock.call_later, max(0.0, self._due - self._clock.now()), self._run)

    def _run(self) -> None:
        self._handle = None
        self._due = -NEVER  # whoever sets a timer now leaves it to us to arm
        now = self._clock.now()
        try:
            while (heap := self._heap) and heap[0].when <= now:
                timer = heapq.heappop(heap)
                owner, timer.owner = timer.owner, None
                if owner is None:
                    self._dead -= 1
                else:
                    owner.fire()
        finally:
            self._arm()

    def _called_off(self) -> None:
        self._dead += 1
        heap = self._heap
        if self._dead == len(heap):
            heap.clear()
            self._dead = 0
            if self._due > -NEVER:
                self._arm()
        elif self._dead > SLACK and self._dead > len(heap) // 2:
            self._heap = [timer for timer in heap if timer.owner is not None]
            heapq.heapify(self._heap)
            self._dead = 0
