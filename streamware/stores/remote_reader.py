"""One reader's place in a log that another worker produces, or that has ended: pages and live tail as one read.

Rules:

1. Events come in order, and each seq is checked to be the next. What is missing is told as a gap, never passed over.
2. A reader that has come to the end of what is known waits for a signal. It has looked into the store since it began to
   be signalled to, and looks again whenever a signal may have been lost.
3. A reader ahead of a log that was rolled back waits for the log to reach it; where the log ends before that, the end
   is ``interrupted`` for it, whatever it was.
4. While the store is away a reader waits, for ``patience`` seconds; then it raises, so that its client is cut off and
   may find a worker that can read. The first read of a connection raises at once.
5. A running log that the store knows no more may come again, when its worker finds that the store has lost it: a reader
   looks for it for ``hold_off`` seconds before it ends as ``interrupted``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from ..exceptions import StoreUnavailable
from ..types import Clock
from .base import Batch, Outcome, Sink
from .feed import Feed
from .memory_reader import READ_BYTES
from .timing import Timing
from .waiters import release

NEVER = -1
NOT_SINCE = -2


class RemoteReader:
    """A ``LogReader`` over a ``Feed``; its ``sink`` is never used. ``sent``: the seq up to which all was sent."""

    __slots__ = (
        "_clock", "_closed", "_feed", "_lost_since", "_page", "_page_first", "_seen", "_size", "_timing", "position",
        "sent", "sink",
    )  # fmt: skip

    def __init__(self, feed: Feed, after: int, clock: Clock, timing: Timing) -> None:
        self.position = after
        self.sent = after
        self.sink: Sink | None = None
        self._feed = feed
        self._clock = clock
        self._timing = timing
        self._closed = False
        self._size = 0  # bytes read since ``sent``
        self._seen = NEVER  # the feed's doubt when this reader last looked into the store
        self._lost_since: float | None = None
        self._page: Sequence[bytes | None] = ()  # what was read and not yet returned
        self._page_first = 0
        feed.join()
        feed.readers.append(self)
        feed.on_change(feed)

    async def read(self) -> Batch | None:
        feed = self._feed
        if not self._closed and self.position > self.sent:
            self.sent = self.position
            feed.fresh += self._size
            self._size = 0
            feed.on_change(feed)
        while not self._closed:
            batch = self._take()
            if batch is None and (self._seen != feed.doubt or self.position < feed.last):
                batch = await self._look()
            elif batch is None and feed.outcome is not None:
                batch = self._ended()
            elif batch is None:
                await feed.wait()
            if batch is not None and not self._closed:
                return batch
        return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._page = ()
            self._feed.readers.remove(self)
            self._feed.on_change(self._feed)
            self._feed.wake()
            self._feed.leave()

    def _take(self) -> Batch | None:
        """What is at hand of the events behind our place."""
        seq = self.position + 1
        place = seq - self._page_first
        if 0 <= place < len(self._page):
            return self._batch(self._page, place)
        self._page = ()
        tail = self._feed.tail(seq)
        return self._batch(tail, 0) if tail else None

    def _batch(self, events: Sequence[bytes | None], place: int) -> Batch:
        """``events`` from ``place`` on, up to the next that was too large to keep, about ``READ_BYTES`` of them."""
        if events[place] is None:
            self.position += 1
            return Batch((), self.position, gap=True)
        taken: list[bytes] = []
        size = 0
        for event in events[place:]:
            if event is None or (taken and size + len(event) > READ_BYTES):
                break
            taken.append(event)
            size += len(event)
        self.position += len(taken)
        self._size += size
        return Batch(taken, self.position)

    async def _look(self) -> Batch | None:
        """Read behind our place from the store; None where that has changed nothing but what is known."""
        feed = self._feed
        first_time = self._seen == NEVER
        try:
            if feed.outcome is None:
                await feed.watched()
            doubt = feed.doubt
            page = await feed.page(self.position)
        except StoreUnavailable:
            if self._closed:
                return None
            if first_time or feed.over or not await self._wait_for_store():
                raise
            return None
        self._seen = doubt
        if page is None:
            return await self._lost()
        self._lost_since = None
        if page.first > self.position + 1 and page.last > self.position:
            self.position = page.first - 1
            if not page.events:
                return Batch((), self.position, gap=True)
            self._page, self._page_first = page.events, page.first
            if page.events[0] is None:
                return Batch((), self.position, gap=True)
            batch = self._batch(page.events, 0)
            batch.gap = True
            return batch
        self._page, self._page_first = page.events, page.first
        return None

    async def _lost(self) -> Batch | None:
        """The store does not know the log; None where that may change."""
        feed = self._feed
        if feed.outcome is not None and self.position >= feed.last:
            return self._ended()
        now = self._clock.now()
        if self._lost_since is None:
            self._lost_since = now
        if feed.outcome is not None or now - self._lost_since >= self._timing.hold_off:
            return Batch((), self.position, outcome=Outcome.INTERRUPTED)
        await self._pause()
        self._seen = NOT_SINCE
        return None

    def _ended(self) -> Batch:
        feed = self._feed
        whole = self.position <= feed.last and feed.outcome is not None
        return Batch((), self.position, outcome=feed.outcome if whole else Outcome.INTERRUPTED)

    async def _wait_for_store(self) -> bool:
        """Wait a moment for a store that is away; False where it has been for too long."""
        feed = self._feed
        since = self._clock.now()
        while not self._closed:
            await self._pause()
            if not feed.away:
                return True
            if self._clock.now() - since > self._timing.patience:
                return False
        return True

    async def _pause(self) -> None:
        """Wait until something is new, or it is time to try again."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(self._timing.retry, partial(release, woken))
        try:
            await asyncio.wait([woken, self._feed.wait()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
