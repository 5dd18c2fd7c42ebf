"""What a worker of a shared store looks after, about once a second: stops, the dead, and what may have been missed.

Rules:

1. One round at a time, in bounded pieces; a round that fails is made up for by the next.
2. A running log whose worker has no lease in two rounds in a row is closed as ``interrupted``. Nobody is declared dead
   within ``hold_off`` of trouble of ours: everybody has to be able to renew first.
3. Where our own lease had lapsed, every running log of ours is asked for: others may have closed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from ..exceptions import StoreUnavailable
from ..observe import Observer
from ..types import Clock
from .backend import Backend, Signal
from .base import Outcome
from .claims import Claims
from .feed import Feed
from .flusher import Flusher
from .local_log import LocalLog
from .presence import Presence
from .shared_board import SharedBoard
from .timing import Timing
from .trouble import Trouble

logger = logging.getLogger("streamware.stores")

#: Streams that are to be forgotten once the store is back; more than these are left to expire as interrupted.
MAX_FORGOTTEN = 10_000


class Rounds:
    """The rounds of one worker, from its start to its end."""

    def __init__(
        self,
        backend: Backend,
        reads: Trouble,
        writes: Trouble,
        flusher: Flusher,
        presence: Presence,
        logs: Mapping[str, LocalLog],
        feeds: Mapping[str, Feed],
        board: SharedBoard,
        claims: Claims,
        *,
        worker: str,
        clock: Clock,
        observer: Observer,
        timing: Timing,
        on_signal: Callable[[Signal], None],
    ) -> None:
        self._backend = backend
        self._reads = reads
        self._writes = writes
        self._flusher = flusher
        self._presence = presence
        self._logs = logs
        self._feeds = feeds
        self._board = board
        self._claims = claims
        self._worker = worker
        self._clock = clock
        self._observer = observer
        self._timing = timing
        self._on_signal = on_signal
        self._connected = False
        self._task: asyncio.Task[None] | None = None
        self._suspects: set[str] = set()  # logs that had no lease in the last round
        self._hold_off = 0.0  # by real time, as leases are
        self._suspicious = False  # signals may have been lost
        self._forgotten: dict[str, None] = {}
        self._refreshed = clock.now()

    @property
    def unsure(self) -> bool:
        """There was trouble a moment ago: what the store does not have now, others may be about to write once more."""
        return self._backend.forgetful and time.monotonic() < self._hold_off

    async def connect(self) -> None:
        """Connect the back end; where it fails, the rounds try again."""
        with contextlib.suppress(StoreUnavailable):
            await self._writes.call(self._backend.connect, self._worker, self._timing.lease, self._on_signal)
            self._connected = True
            self._board.connected()

    def begin(self, lapsed: bool) -> None:
        """It is time for a round. ``lapsed``: this worker's lease had lapsed since the last."""
        if lapsed:
            self._observer.count("store.lease_lapsed")
            logger.warning("this worker was held up for so long that others may have taken it for dead")
            self._put_off_verdicts()
            self._touch(self._logs.values())
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._round())

    async def aclose(self) -> None:
        """No more rounds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def suspect(self) -> None:
        """Signals may have been lost: everything that is followed is looked at, and stops are asked for."""
        self._suspicious = True
        self._put_off_verdicts()
        for feed in list(self._feeds.values()):
            feed.suspect()
        self._touch(self._logs.values())

    def writes_are_back(self) -> None:
        """The store takes writes again."""
        self._put_off_verdicts()
        self._flusher.hurry()

    def forget(self, stream: str) -> None:
        """Forget ``stream`` once that is possible."""
        if len(self._forgotten) < MAX_FORGOTTEN:
            self._forgotten[stream] = None

    # -- one round

    async def _round(self) -> None:
        try:
            with contextlib.suppress(StoreUnavailable):
                await self._look_around()
        except Exception:
            logger.exception("a round of the store failed")
        finally:
            self._task = None

    async def _look_around(self) -> None:
        if not self._connected:
            await self.connect()
            if not self._connected:
                return
        self._board.keep_up()
        if self._writes.away:
            await self._writes.call(self._backend.write, ())
        await self._stops()
        self._visit_readers()
        self._keep_alive()
        await self._orphans()
        for stream in list(self._forgotten)[:100]:
            await self._writes.call(self._backend.forget, stream)
            self._forgotten.pop(stream, None)
        await self._claims.pay()
        await self._writes.call(self._backend.tidy)

    async def _stops(self) -> None:
        if self._logs or self._reads.away or self._suspicious:
            self._suspicious = False
            for stream in await self._reads.call(self._backend.asked):
                log = self._logs.get(stream)
                if log is not None:
                    log.close_from_outside(Outcome.STOPPED)

    def _visit_readers(self) -> None:
        now, timing, look_every = self._clock.now(), self._timing, self._backend.look_every
        for log in list(self._logs.values()):
            log.forget_silent(now - timing.silence)
        if now - self._refreshed >= timing.refresh:
            self._refreshed = now
            for feed in list(self._feeds.values()):
                self._presence.refresh(feed)
        if look_every is not None:
            for feed in list(self._feeds.values()):
                if feed.outcome is None and now - feed.heard >= look_every:
                    feed.suspect()

    def _keep_alive(self) -> None:
        keep_every = self._backend.keep_every
        if keep_every is not None:
            old = self._clock.now() - keep_every
            self._touch([log for log in self._logs.values() if log.written_at <= old])

    def _touch(self, logs: Iterable[LocalLog]) -> None:
        """Write something of each of ``logs``, if only to learn whether somebody has closed it."""
        for log in logs:
            log.touched = True
            self._flusher.mark(log)

    def _put_off_verdicts(self) -> None:
        self._hold_off = time.monotonic() + self._timing.hold_off
        self._suspects.clear()

    async def _orphans(self) -> None:
        if time.monotonic() < self._hold_off:
            return
        orphans = set(await self._reads.call(self._backend.orphans))
        if time.monotonic() < self._hold_off:  # trouble came up while it was asked
            return
        dead, self._suspects = orphans & self._suspects, orphans
        for stream in dead:
            if await self._writes.call(self._backend.end, stream, Outcome.INTERRUPTED) is Outcome.INTERRUPTED:
                self._observer.count("store.orphan_closed")
            feed = self._feeds.get(stream)
            if feed is not None:
                feed.suspect()
