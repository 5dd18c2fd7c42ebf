"""``SQLiteBackend``: the back end of ``SQLiteStore``, one file that several workers of a machine share.

Rules:

1. Three threads, each with a connection of its own: what is written, what is read, and checkpoints, which may take as
   long as the disk takes. The lease has a fourth, the core's.
2. What one worker tells another goes by datagram. Where it may not be lost it is in the file, too; where it cannot be
   sent it is left there, to be found within about a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ..exceptions import StoreUnavailable
from ..types import Clock
from . import sqlite_board as board
from . import sqlite_changes as changes
from . import sqlite_reads as reads
from .backend import Entry, Page, Report, Reported, Resync, Signal, State, StopAsked, Written
from .base import Claim, Outcome, Tombstone
from .sqlite_batches import Batches, renew
from .sqlite_changes import Bounds, Times
from .sqlite_desk import Desk
from .sqlite_file import identity, open_file, tag_of, unavailable
from .sqlite_follow import ADDED, FOLLOWS, Follow
from .sqlite_fresh import Fresh
from .sqlite_wakes import Wakes

#: Beyond so much the write-ahead log is moved into the file.
CHECKPOINT_BYTES = 4 * 1024 * 1024
#: Beyond so much whoever writes has to wait until that is done, so that it begins anew.
RESTART_BYTES = 16 * 1024 * 1024
REPORTS = 200
JOIN_SECONDS = 2.0

# The first byte of a datagram, or of a letter; see ``sqlite_follow.py`` for more.
STOP, REPORT, NOTICE = b"s", b"r", b"n"

_encode = msgspec.msgpack.Encoder().encode
_decode_reports = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, int, int]]]).decode


class SQLiteBackend:
    """A ``Backend`` over a file."""

    keep_every: float | None = None
    look_every: float | None = None
    forgetful = False

    def __init__(self, path: Path, bounds: Bounds, clock: Clock, now: Callable[[], float]) -> None:
        self.name = f"SQLite at {path}"
        self.tag = tag_of(path)
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._now = now
        self._lease = 12.0
        self._worker = ""
        self._closed = True
        self._desks: list[Desk] = []
        self._lease_connection: sqlite3.Connection | None = None
        self._lease_file: tuple[int, int] | None = None
        self._lease_lock = threading.Lock()
        self._fresh = Fresh()  # the read desk's
        self._checkpoint: asyncio.Task[None] | None = None

    # -- lifecycle

    async def connect(self, worker: str, lease_ttl: float, on_signal: Callable[[Signal], None]) -> None:
        if self._closed:
            self._closed = False
            self._worker, self._lease, self._on_signal = worker, lease_ttl, on_signal
            self._loop = asyncio.get_running_loop()
            self._batches = Batches(worker, self._now, self._bounds.ttl)
            self._write_desk = Desk(self.name, self._path, "write", self._opened)
            self._read_desk = Desk(self.name, self._path, "read", lambda _: self._follow.reopened())
            self._checkpoint_desk = Desk(self.name, self._path, "checkpoint")
            self._desks = [self._write_desk, self._read_desk, self._checkpoint_desk]
            self._wakes = Wakes(self._path.with_name(f"{self._path.name}-wakes"), worker, self._hear)
            self._follow = Follow(self._read_desk, self._fresh, self._wakes, worker, self._clock, self._find, on_signal)
            self._notices = board.Notices(self._read_desk, worker, on_signal)
        await self._write_desk.do(self._connected)
        self._wakes.open()

    def _opened(self, connection: sqlite3.Connection) -> None:
        """A new connection of the write desk: on its thread. If it is not the first, the file may be another."""
        again = self._batches.worker != 0
        self._batches.opened(connection)
        if again:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._on_signal, Resync())

    def _connected(self, connection: sqlite3.Connection) -> None:
        self._batches.worker = renew(connection, self._worker, self._batches.worker or None)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wakes.close()
        await self._follow.aclose()
        await self._notices.aclose()
        if self._checkpoint is not None:
            self._checkpoint.cancel()
            await asyncio.wait([self._checkpoint])
        leaving = asyncio.ensure_future(self._write_desk.do(self._leave))
        await asyncio.wait([leaving], timeout=JOIN_SECONDS)
        for desk in self._desks:
            desk.close()
        await asyncio.get_running_loop().run_in_executor(None, self._join)
        leaving.cancel()
        await asyncio.wait([leaving])
        if not leaving.cancelled():
            leaving.exception()  # the others will find that this worker is dead

    def _leave(self, connection: sqlite3.Connection) -> None:
        self._batches.tidy(connection, hurry=True)
        changes.leave(connection, self._batches.worker, self._times())

    def _join(self) -> None:
        for desk in self._desks:
            desk.join(JOIN_SECONDS)
        if self._lease_lock.acquire(timeout=JOIN_SECONDS):
            connection, self._lease_connection = self._lease_connection, None
            self._lease_lock.release()
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    # -- logs

    async def write(self, entries: Sequence[Entry]) -> Sequence[Written]:
        answers = await self._write_desk.do(lambda connection: self._batches.write(connection, entries))
        if entries:
            self._follow.wake_followers()
        return answers

    async def read(self, stream: str, after: int) -> Page | None:
        now, ttl = self._now(), self._bounds.tombstone_ttl
        return await self._read_desk.do(lambda connection: reads.page(connection, self._fresh, stream, after, now, ttl))

    async def state(self, stream: str) -> State | Tombstone | None:
        now, ttl = self._now(), self._bounds.tombstone_ttl
        return await self._read_desk.do(lambda connection: reads.state(connection, self._fresh, stream, now, ttl))

    async def end(self, stream: str, outcome: Outcome) -> Outcome | None:
        worker, expires = self._batches.worker, self._now() + self._bounds.ttl
        fresh = self._batches.fresh
        ended = await self._write_desk.do(
            lambda connection: changes.end(connection, fresh, worker, stream, outcome, expires)
        )
        self._follow.wake_followers()
        return ended

    async def forget(self, stream: str) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            self._batches.forget(stream)
            changes.forget(connection, self._batches.fresh, self._batches.worker, stream)

        await self._write_desk.do(forget)
        self._follow.wake_followers()

    async def tidy(self) -> None:
        times, bounds = self._times(), self._bounds

        def tidy(connection: sqlite3.Connection) -> None:
            # What is fresh may be in pages as well: nothing else has to go for it.
            self._batches.tidy(connection, hurry=changes.used(connection) >= bounds.max_bytes)
            self._batches.may_create = changes.tidy(connection, bounds, times)
            board.tidy(connection, times.now)
            self._batches.fresh.forget()  # it is seldom wanted here, and large

        await self._write_desk.do(tidy)
        await self._follow.refresh()
        await self._notices.refresh()
        await self._read_mail()
        if self._checkpoint is None:
            self._checkpoint = asyncio.get_running_loop().create_task(self._move_log())

    def _times(self) -> Times:
        return Times(self._now(), self._lease, self._bounds.tombstone_ttl)

    async def _move_log(self) -> None:
        """Move the write-ahead log into the file, if it is long."""
        try:
            size = os.stat(f"{self._path}-wal").st_size
            if size > CHECKPOINT_BYTES:
                await self._checkpoint_desk.do(partial(_checkpoint, restart=size > RESTART_BYTES))
        except (OSError, StoreUnavailable):
            pass  # whoever writes finds out what is the matter
        finally:
            self._checkpoint = None

    # -- leases

    def renew(self) -> None:
        with self._lease_lock:  # a connection must not be closed while it is used
            if self._closed:
                return
            try:
                number = self._batches.worker or None
                if self._lease_connection is not None and identity(self._path) != self._lease_file:
                    self._lease_connection.close()
                    self._lease_connection, number = None, None  # in another file it may be somebody else's
                if self._lease_connection is None:
                    self._lease_connection = open_file(self._path)
                    self._lease_file = identity(self._path)
                renew(self._lease_connection, self._worker, number)
            except (sqlite3.Error, OSError) as error:
                connection, self._lease_connection = self._lease_connection, None
                if connection is not None:
                    connection.close()
                raise unavailable(self.name, error) from error

    async def orphans(self) -> Sequence[str]:
        return await self._read_desk.do(lambda connection: reads.orphans(connection, self._times()))

    # -- idempotency keys

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        worker, times = self._batches.worker, self._times()
        return await self._write_desk.do(
            lambda connection: changes.claim(connection, worker, key, fingerprint, stream, times)
        )

    async def settle(self, key: str, stream: str, started: bool) -> None:
        expires = self._now() + self._bounds.ttl
        await self._write_desk.do(lambda connection: changes.settle(connection, key, stream, started, expires))

    async def claimed(self, key: str) -> Claim | None:
        times = self._times()
        return await self._read_desk.do(lambda connection: changes.claimed(connection, key, times))

    # -- to other workers

    async def watch(self, stream: str) -> None:
        await self._follow.watch(stream)

    async def unwatch(self, stream: str) -> None:
        self._follow.unwatch(stream)

    def _find(self, connection: sqlite3.Connection, stream: str) -> reads.Found | None:
        return reads.find(connection, stream, self._now(), self._bounds.tombstone_ttl)

    async def tell(self, reports: Sequence[Report]) -> None:
        by_owner: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        for report in reports:
            by_owner[report.owner].append((report.stream, report.readers, report.sent))
        letters: list[tuple[str, bytes]] = []
        for owner, told in by_owner.items():
            for start in range(0, len(told), REPORTS):
                datagram = REPORT + _encode((self._worker, told[start : start + REPORTS]))
                if not self._wakes.send(owner, datagram):
                    letters.append((owner, datagram))
        if letters:
            await self._write_desk.do(lambda connection: changes.post(connection, letters))

    async def ask_stop(self, stream: str, owner: str) -> None:
        await self._write_desk.do(lambda connection: changes.ask_stop(connection, stream))
        self._wakes.send(owner, STOP + stream.encode())

    async def asked(self) -> Sequence[str]:
        return await self._read_desk.do(lambda connection: reads.asked(connection, self._batches.worker))

    # -- what workers leave for one another

    async def put(self, key: str, value: bytes, ttl: float) -> bool:
        return await self._write_desk.do(lambda connection: board.put(connection, key, value, self._now(), ttl))

    async def take(self, key: str) -> bytes | None:
        return await self._write_desk.do(lambda connection: board.take(connection, key, self._now()))

    async def announce(self, topic: str, message: bytes) -> None:
        worker = self._worker
        await self._write_desk.do(lambda connection: board.announce(connection, worker, topic, message, self._now()))
        for other in self._wakes.others():
            self._wakes.send(other, NOTICE)

    async def listen(self, topics: Collection[str]) -> None:
        await self._notices.listen(topics)

    # -- from other workers

    def _hear(self, datagram: bytes) -> None:
        what, rest = datagram[:1], datagram[1:]
        with contextlib.suppress(ValueError, msgspec.MsgspecError):
            if what == ADDED:
                self._follow.look()
            elif what == FOLLOWS:
                self._follow.followed_by(rest.decode())
            elif what == NOTICE:
                self._notices.look()
            elif what == STOP:
                self._on_signal(StopAsked(rest.decode()))
            elif what == REPORT:
                worker, told = _decode_reports(rest)
                for stream, readers, sent in told:
                    self._on_signal(Reported(worker, Report(stream, self._worker, readers, sent)))

    async def _read_mail(self) -> None:
        worker = self._batches.worker
        letters = await self._read_desk.do(lambda connection: reads.mail(connection, worker))
        for _, body in letters:
            self._hear(body)
        if letters:
            last = letters[-1][0]
            await self._write_desk.do(lambda connection: changes.clear_mail(connection, worker, last))


def _checkpoint(connection: sqlite3.Connection, *, restart: bool) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if restart:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
