"""A clock that stands still until a test moves it.

Rules: ``now`` changes in ``advance`` only; timers run in the order of their time, equal times in the order they were
set; after each of them the event loop settles, so that what a timer wakes can set timers of its own, and those run in
the same ``advance`` when they are due in it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

SETTLE_ROUNDS = 25


async def settle(rounds: int = SETTLE_ROUNDS) -> None:
    """Let everything that is ready run, ``rounds`` turns of the loop deep.

    It waits for no I/O and no thread: for those, wait for the thing itself.
    """
    for _ in range(rounds):
        await asyncio.sleep(0)


class FakeTimer:
    """What ``FakeClock.call_later`` returns."""

    __slots__ = ("callback", "cancelled", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Call the timer off; harmless when it has run."""
        self.cancelled = True


class FakeClock:
    """``Clock`` for tests: pass it as a middleware's ``clock`` and move time with ``await clock.advance(seconds)``.

    :param start: what ``now`` says at first. Not 0, so that a forgotten "never" shows.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._queue: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self._now + max(delay, 0.0), callback)
        heapq.heappush(self._queue, (timer.when, next(self._order), timer))
        return timer

    @property
    def timers(self) -> int:
        """How many timers are set and neither called off nor run: 0 once nothing is left behind."""
        return sum(not timer.cancelled for _, _, timer in self._queue)

    async def advance(self, seconds: float) -> None:
        """Move time on by ``seconds``, and run what falls due on the way, each timer at its own time."""
        if seconds < 0:
            raise ValueError(f"time does not go back: got {seconds!r}")
        await settle()
        end = self._now + seconds
        while self._queue and self._queue[0][0] <= end:
            when, _, timer = heapq.heappop(self._queue)
            if timer.cancelled:
                continue
            self._now = max(self._now, when)
            timer.cancelled = True
            timer.callback()
            await settle()
        self._now = end
        await settle()
