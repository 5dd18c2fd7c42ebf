"""What a worker follows of other workers' logs in the file, and who follows its own.

Rules:

1. Who follows logs of others says so to their workers, which then wake it after each batch; it reads what was added for
   all logs at once. Whoever hears of a new follower wakes it at once, for what was written before it knew.
2. Where that cannot be said, for want of datagrams or of room in a queue, the file is looked at every 20 ms; only while
   something is followed.
3. A log is known here by its number in the file. Where another file has taken its place, numbers are looked up anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial

from ..exceptions import StoreUnavailable
from ..types import Clock, TimerHandle
from . import sqlite_reads as reads
from .backend import Appended, Entry, Resync, Signal
from .sqlite_desk import Desk
from .sqlite_fresh import Fresh
from .sqlite_wakes import Wakes

#: Without datagrams, how often what was added is looked for.
POLL_SECONDS = 0.02
#: Who follows says so about once a second, and counts as one who does for so long.
FOLLOWS_SECONDS = 5.0
MAX_FOLLOWERS = 1000

# The first byte of a datagram.
ADDED, FOLLOWS = b"a", b"f"


class Follow:
    """Of one worker. ``find``: a stream in the file, on the desk's thread; ``fresh``: what that thread knows of it."""

    def __init__(
        self,
        desk: Desk,
        fresh: Fresh,
        wakes: Wakes,
        worker: str,
        clock: Clock,
        find: Callable[[sqlite3.Connection, str], reads.Found | None],
        on_signal: Callable[[Signal], None],
    ) -> None:
        self._desk = desk
        self._fresh = fresh
        self._wakes = wakes
        self._worker = worker
        self._clock = clock
        self._find = find
        self._on_signal = on_signal
        self._logs: dict[int, str] = {}  # what is followed: log, stream
        self._watched: dict[str, int] = {}  # the other way round
        self._lost = False  # the numbers may be another file's
        self._seen = 0  # the last batch that was looked at
        self._scanning: asyncio.Task[None] | None = None
        self._more = False  # something was added while it was read
        self._poll: TimerHandle | None = None
        self._followers: dict[str, float] = {}  # workers that follow logs, and when they last said so

    async def aclose(self) -> None:
        """Follow nothing more."""
        self._watched.clear()
        self._stop_polling()
        if self._scanning is not None:
            self._scanning.cancel()
            await asyncio.wait([self._scanning])

    async def watch(self, stream: str) -> None:
        """As ``Backend.watch``."""
        begins = not self._watched
        found = await self._desk.do(partial(self._number, stream))
        if found is None:
            return
        log, owner, top = found
        if begins and not self._watched:
            self._seen = top
        self._watched[stream] = log
        if owner != self._worker and not self._wakes.send(owner, FOLLOWS + self._worker.encode()):
            self._poll_for_now()
        if begins:
            self._say_so()

    def unwatch(self, stream: str) -> None:
        """As ``Backend.unwatch``."""
        log = self._watched.pop(stream, None)
        if log is not None:
            self._logs.pop(log, None)
            if not self._watched:
                self._stop_polling()

    def _number(self, stream: str, connection: sqlite3.Connection) -> tuple[int, str, int] | None:
        """On the desk: the log's number, its worker, and the newest batch."""
        found = self._find(connection, stream)
        if found is None or found.buried:
            return None
        self._logs[found.id] = stream  # before anything of it can be told
        self._fresh.refresh(connection)
        return found.id, found.worker, self._fresh.top

    def reopened(self) -> None:
        """The desk has a new connection, maybe to another file. Called on its thread."""
        self._fresh.forget()
        self._lost = True

    async def refresh(self) -> None:
        """About once a second: say that we follow, and find again what was lost."""
        if not self._watched:
            return
        if self._lost:
            self._lost = False
            for stream in list(self._watched):
                found = await self._desk.do(partial(self._number, stream))
                if found is None:
                    self._lost = True  # its worker has not written it once more yet
                elif stream in self._watched and self._watched[stream] != found[0]:
                    self._logs.pop(self._watched[stream], None)
                    self._watched[stream] = found[0]
            self._on_signal(Resync())
        self._say_so()

    # -- from other workers

    def look(self) -> None:
        """Something may have been added."""
        if not self._watched:
            return
        self._more = True
        if self._scanning is None:
            self._scanning = asyncio.get_running_loop().create_task(self._scan())

    async def _scan(self) -> None:
        try:
            while self._more and self._watched:
                self._more = False
                added = await self._desk.do(partial(self._added, self._seen, list(self._logs)))
                self._seen = added.top
                if added.missed:
                    self._miss()
                for log, entry in added.rows:
                    stream = self._logs.get(log)
                    if stream is not None:
                        entry.stream = stream
                        self._on_signal(Appended(entry))
        except StoreUnavailable:
            self._miss()  # whoever reads finds out what is the matter
        finally:
            self._scanning = None

    def _miss(self) -> None:
        """We were too slow to see it all, which says nothing of other workers: the logs have to be read."""
        for stream in list(self._watched):
            self._on_signal(Appended(Entry(stream, 1)))

    def _added(self, seen: int, logs: Sequence[int], connection: sqlite3.Connection) -> reads.Added:
        return reads.added(connection, self._fresh, seen, logs)

    # -- to other workers

    def wake_followers(self) -> None:
        """Something was added."""
        self.look()  # logs of the dead are ended here
        if self._followers:
            old = time.monotonic() - FOLLOWS_SECONDS
            for worker, said in list(self._followers.items()):
                if said < old:
                    del self._followers[worker]
                else:
                    self._wakes.send(worker, ADDED)

    def followed_by(self, worker: str) -> None:
        """``worker`` follows some log."""
        if worker not in self._followers:
            if len(self._followers) >= MAX_FOLLOWERS:
                return
            self._wakes.send(worker, ADDED)  # what was written before it was known of
        self._followers[worker] = time.monotonic()

    def _say_so(self) -> None:
        if self._wakes.listening:
            self._stop_polling()
        datagram = FOLLOWS + self._worker.encode()
        for worker in self._wakes.others():
            if not self._wakes.send(worker, datagram):
                self._poll_for_now()
        if not self._wakes.listening:
            self._poll_for_now()

    def _poll_for_now(self) -> None:
        """Somebody who produces does not know that we follow, and will not wake us."""
        if self._poll is None and self._watched:
            self._poll_again()

    def _poll_again(self) -> None:
        self._poll = self._clock.call_later(POLL_SECONDS, self._poll_again)
        self.look()

    def _stop_polling(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
