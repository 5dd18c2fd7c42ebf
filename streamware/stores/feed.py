"""What this worker knows of a log that another one produces, shared by all who follow it here.

Rules:

1. A feed is watched from its first follower to its last: what is appended comes as a signal, as a rule with the events.
2. Signals are hints. Events of the tail are spliced by seq; where one is missing the tail begins anew, and readers find
   what lies before it in the store. ``doubt`` says that something may have been missed: whoever has not looked into the
   store since must do so before it believes that nothing more is there.
3. The tail is bounded; whoever is behind it reads pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..exceptions import StoreUnavailable
from .backend import Backend, Entry, Page, State
from .trouble import Trouble
from .waiters import Waiters

if TYPE_CHECKING:
    from .remote_reader import RemoteReader

TAIL_BYTES = 256 * 1024


class Feed:
    """``owner``: the worker that produces it. ``heard``: when something was last known of it. ``fresh``: bytes that
    readers here were sent since that was last reported. ``on_change``: readers have come, gone, or got on; ``on_idle``:
    nobody follows it any more. ``before``: what has to end before it is watched."""

    __slots__ = (
        "_backend", "_before", "_followers", "_now", "_said", "_tail", "_tail_bytes", "_tail_first", "_trouble",
        "_waiting", "_watch", "doubt", "first", "fresh", "heard", "last", "lost", "on_change", "on_idle", "outcome",
        "owner", "readers", "stream", "unfinished",
    )  # fmt: skip

    def __init__(
        self,
        stream: str,
        state: State,
        backend: Backend,
        trouble: Trouble,
        *,
        now: Callable[[], float],
        on_change: Callable[[Feed], None],
        on_idle: Callable[[Feed], None],
        before: asyncio.Task[None] | None,
    ) -> None:
        self.stream = stream
        self.owner = state.worker
        self.first = state.first
        self.last = state.last
        self.outcome = state.outcome
        self.unfinished = state.unfinished
        self.lost = False  # the store knows it no more, or not yet again
        self.readers: list[RemoteReader] = []
        self.fresh = 0
        self.doubt = 0
        self.heard = now()
        self.on_change = on_change
        self.on_idle = on_idle
        self._now = now
        self._backend = backend
        self._trouble = trouble
        self._before = before
        self._followers = 0
        self._said = 0  # how many signals have told of something new
        self._tail: list[bytes | None] = []
        self._tail_first = state.last + 1
        self._tail_bytes = 0
        self._waiting = Waiters()
        self._watch: asyncio.Task[None] | None = None

    @property
    def sent(self) -> int:
        """The seq up to which the foremost reader here has been sent all."""
        return max((reader.sent for reader in self.readers), default=0)

    @property
    def away(self) -> bool:
        """The store does not answer for now."""
        return self._trouble.away

    # -- followers

    @property
    def over(self) -> bool:
        """The store was closed."""
        return self._trouble.over

    @property
    def followed(self) -> bool:
        """Somebody follows it."""
        return self._followers > 0

    def join(self) -> None:
        """One more follows it."""
        self._followers += 1

    def leave(self) -> None:
        """One less."""
        self._followers -= 1
        if self._followers == 0:
            self.on_idle(self)

    async def watched(self) -> None:
        """Wait until it is watched: what is read from then on leaves nothing out.

        :raises StoreUnavailable: the store is away.
        """
        if self._watch is None or (self._watch.done() and (self._watch.cancelled() or self._watch.exception())):
            self._watch = asyncio.get_running_loop().create_task(self._begin())
            self._watch.add_done_callback(_retrieve)
        watch, task = self._watch, asyncio.current_task()
        try:
            await asyncio.shield(watch)
        except asyncio.CancelledError:
            if watch.cancelled() and task is not None and not task.cancelling():
                raise StoreUnavailable("it is no longer followed") from None  # by whoever waited for this, too
            raise

    async def _begin(self) -> None:
        if self._before is not None:
            await asyncio.wait([self._before])
            self._before = None
        await self._trouble.call(self._backend.watch, self.stream)

    async def end_watch(self) -> None:
        """Nobody follows it any more.

        :raises StoreUnavailable: the store is away.
        """
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
            await self._trouble.call(self._backend.unwatch, self.stream)

    def wait(self) -> asyncio.Future[None]:
        """Until something is new."""
        return self._waiting.wait()

    def wake(self) -> None:
        """Something is new."""
        self._waiting.wake()

    # -- what is heard and read

    def hear(self, entry: Entry) -> None:
        """A signal says that ``entry`` was written. Behind the end it is a dead worker's that was refused."""
        if self.outcome is not None:
            return
        self._said += 1
        self.heard = self._now()
        if entry.events:
            self._splice(entry.first, entry.events)
        self.last = max(self.last, entry.last)
        self.first = max(self.first, entry.trim)
        if entry.outcome is not None:
            self.outcome, self.unfinished = entry.outcome, entry.unfinished
            self.last = entry.last
        elif not entry.events:
            self.doubt += 1
        self.wake()

    def suspect(self) -> None:
        """Something may have been missed."""
        self.doubt += 1
        self.wake()

    def _splice(self, first: int, events: Sequence[bytes | None]) -> None:
        fresh = self._tail_first + len(self._tail) - first  # so many of the events are known
        if fresh < 0 or not self._tail:
            self._tail, self._tail_first, self._tail_bytes, fresh = [], first, 0, 0
        for event in events[fresh:]:
            self._tail.append(event)
            self._tail_bytes += len(event or b"")
        if self._tail_bytes > TAIL_BYTES:
            cut = 0
            while self._tail_bytes > TAIL_BYTES // 2:
                self._tail_bytes -= len(self._tail[cut] or b"")
                cut += 1
            del self._tail[:cut]
            self._tail_first += cut

    def tail(self, seq: int) -> Sequence[bytes | None]:
        """Events from ``seq`` on, as far as they are at hand; none where they have to be read."""
        place = seq - self._tail_first
        return self._tail[place:] if 0 <= place < len(self._tail) else ()

    async def page(self, after: int) -> Page | None:
        """Events behind ``after`` from the store, which also says how long the log is. None where it is known no more.

        :raises StoreUnavailable: the store is away.
        """
        said = self._said
        page = await self._trouble.call(self._backend.read, self.stream, after)
        self.heard = self._now()
        self.lost = page is None
        if page is None:
            return None
        if said == self._said or page.last > self.last:
            # Nothing newer was heard while it was read: this is the store's word, even where it is less than before.
            news = (self.last, self.outcome) != (page.last, page.outcome)
            self.last, self.outcome, self.unfinished = page.last, page.outcome, page.unfinished
            if news:
                self.wake()  # whoever waits may never hear of it otherwise
        return page


def _retrieve(task: asyncio.Task[None]) -> None:
    """Those who wait for it are told; where nobody does any more, it is no error."""
    if not task.cancelled():
        task.exception()
