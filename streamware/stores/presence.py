"""Tells the workers that produce what is read here how many read it and how far they are.

Rules:

1. A change in the number of readers is told at once, progress at most every ``report`` seconds or every 32 KiB, and
   everything again every ``refresh`` seconds, for a report may be lost.
2. All that is to be told goes in one call, one at a time. One that fails is made up for by the next.
"""

from __future__ import annotations

import asyncio
from contextvars import Context

from ..exceptions import StoreUnavailable
from ..types import Clock, TimerHandle
from .backend import Backend, Report
from .feed import Feed
from .timing import Timing
from .trouble import Trouble

#: So many bytes sent are told before ``report`` seconds are over: the window of the producer may be waiting for it.
FRESH_BYTES = 32 * 1024


class Presence:
    """The reports of one worker."""

    def __init__(self, worker: str, backend: Backend, trouble: Trouble, clock: Clock, timing: Timing) -> None:
        self._worker = worker
        self._backend = backend
        self._trouble = trouble
        self._clock = clock
        self._timing = timing
        self._told: dict[str, int] = {}  # stream: the number of readers that its owner was told
        self._changed: dict[str, Feed] = {}
        self._timer: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def changed(self, feed: Feed) -> None:
        """The readers of ``feed`` have come, gone, or got on."""
        if feed.owner == self._worker or feed.outcome is not None:
            return  # nobody is waiting for it
        self._changed[feed.stream] = feed
        if self._task is not None:
            return
        if feed.fresh >= FRESH_BYTES or len(feed.readers) != self._told.get(feed.stream, 0):
            self._tell()
        elif self._timer is None:
            self._timer = Context().run(self._clock.call_later, self._timing.report, self._tell)

    def refresh(self, feed: Feed) -> None:
        """Say it once more."""
        if feed.readers and feed.owner != self._worker and feed.outcome is None:
            self._changed[feed.stream] = feed
            if self._task is None:
                self._tell()

    async def aclose(self) -> None:
        """Tell no more."""
        self._call_off()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._changed.clear()
        self._told.clear()

    def _tell(self) -> None:
        self._call_off()
        self._task = asyncio.get_running_loop().create_task(self._report())

    async def _report(self) -> None:
        await asyncio.sleep(0)  # what changes in the same tick goes with it
        reports: list[Report] = []
        for feed in self._changed.values():
            reports.append(Report(feed.stream, feed.owner, len(feed.readers), feed.sent))
            feed.fresh = 0
            if feed.readers:
                self._told[feed.stream] = len(feed.readers)
            else:
                self._told.pop(feed.stream, None)
        self._changed.clear()
        try:
            await self._trouble.call(self._backend.tell, reports)
        except StoreUnavailable:
            pass
        finally:
            self._task = None
        changed = list(self._changed.values())
        for feed in changed:
            self.changed(feed)

    def _call_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
