"""A log that this worker does not produce, as ``Store.open`` gives it: what is known now, and the ways to follow it.

It is a snapshot until somebody follows it; then it shares the worker's one feed of that log.
"""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import StoreUnavailable
from ..types import Clock
from .backend import State
from .base import Head, LogReader, Outcome
from .feed import Feed
from .remote_reader import RemoteReader
from .timing import Timing


class RemoteLog:
    """A ``Log`` over a feed. ``follow``: the worker's feed of the stream, made where there is none. ``unsure``: whether
    the store may not have again yet what it had."""

    __slots__ = (
        "_clock", "_feed", "_follow", "_state", "_timing", "_unsure", "head", "max_bytes", "stream", "unfinished",
    )  # fmt: skip

    def __init__(
        self,
        stream: str,
        state: State,
        follow: Callable[[str, State], Feed],
        *,
        max_bytes: int,
        clock: Clock,
        timing: Timing,
        unsure: Callable[[], bool],
    ) -> None:
        self.stream = stream
        self.head: Head = state.head
        self.max_bytes = max_bytes
        self.unfinished = state.unfinished
        self._state = state
        self._follow = follow
        self._clock = clock
        self._timing = timing
        self._unsure = unsure
        self._feed: Feed | None = None

    @property
    def first(self) -> int:
        return self._state.first if self._feed is None else max(self._state.first, self._feed.first)

    @property
    def last(self) -> int:
        return self._state.last if self._feed is None else self._feed.last

    @property
    def outcome(self) -> Outcome | None:
        return self._state.outcome if self._feed is None else self._feed.outcome

    def reader(self, after: int) -> LogReader:
        return RemoteReader(self._join(), after, self._clock, self._timing)

    async def reach(self, seq: int, timeout: float) -> bool:
        if await self._follow_until(lambda feed: feed.last >= seq, seq - 1, timeout):
            return True
        if self.outcome is None and self._unsure():
            raise StoreUnavailable("it is not known yet what has become of the log")
        return False

    async def ends(self, timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until it has an outcome; False if it does not, or if nobody can say."""
        try:
            return await self._follow_until(lambda feed: feed.outcome is not None, self._state.last, timeout)
        except StoreUnavailable:
            return False

    async def _follow_until(self, wanted: Callable[[Feed], bool], after: int, timeout: float) -> bool:
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            feed.wake()

        feed = self._join()
        feed.join()
        timer = self._clock.call_later(timeout, expire)
        seen = -1
        try:
            while not wanted(feed) and feed.outcome is None and not feed.lost and not late:
                if seen != feed.doubt:
                    await feed.watched()
                    seen = feed.doubt
                    await feed.page(max(0, after))
                else:
                    await feed.wait()
        finally:
            timer.cancel()
            feed.leave()
        self.unfinished = feed.unfinished
        return wanted(feed)

    def _join(self) -> Feed:
        if self._feed is None or not self._feed.followed:
            self._feed = self._follow(self.stream, self._state)
        return self._feed
