"""The board in the file: what was left for one who takes it, and what was announced of late.

Rules:

1. What is left is taken in one transaction: by one caller. What nobody takes goes with its time, when others clean up.
2. An announcement is a row that is kept for some seconds. Who listens reads on from the last that it has seen: when a
   datagram says that there are some, and about once a second, for datagrams are lost. Who does not listen reads none.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..exceptions import StoreUnavailable
from .backend import Announced, Signal
from .board import BOARD_BYTES, ITEM_BYTES
from .sqlite_desk import Desk
from .sqlite_file import transaction

#: What has expired goes in pieces of so many.
SWEPT = 1000
#: How long an announcement is kept, for workers that are held up, and how many at most.
NOTICE_SECONDS = 15.0
NOTICES = 1000


def put(connection: sqlite3.Connection, key: str, value: bytes, now: float, ttl: float) -> bool:
    """As ``Backend.put``."""
    with transaction(connection):
        size = ITEM_BYTES + len(key) + len(value)
        if _held_beside(connection, key) + size > BOARD_BYTES:
            _remove_expired(connection, now)
            if _held_beside(connection, key) + size > BOARD_BYTES:
                return False
        connection.execute("DELETE FROM board WHERE key = ?", (key,))
        connection.execute("INSERT INTO board VALUES (?, ?, ?, ?)", (key, value, size, now + ttl))
    return True


def take(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    """As ``Backend.take``."""
    if connection.execute("SELECT 1 FROM board WHERE key = ?", (key,)).fetchone() is None:
        return None  # without a lock: anybody may come with a key that was made up
    with transaction(connection):
        row = connection.execute("SELECT value, expires FROM board WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        connection.execute("DELETE FROM board WHERE key = ?", (key,))
    value, expires = row
    return bytes(value) if expires > now else None


def announce(connection: sqlite3.Connection, worker: str, topic: str, message: bytes, now: float) -> None:
    """As ``Backend.announce``, by ``worker``."""
    with transaction(connection):
        added = connection.execute(
            "INSERT INTO notices (worker, topic, message, expires) VALUES (?, ?, ?, ?)",
            (worker, topic, message, now + NOTICE_SECONDS),
        )
        connection.execute("DELETE FROM notices WHERE n <= ?", ((added.lastrowid or 0) - NOTICES,))


def tidy(connection: sqlite3.Connection, now: float) -> None:
    """Remove some of what has expired."""
    if connection.execute("SELECT 1 FROM board UNION ALL SELECT 1 FROM notices LIMIT 1").fetchone() is None:
        return  # without a lock that others would wait for
    with transaction(connection):
        _remove_expired(connection, now)
        connection.execute("DELETE FROM notices WHERE expires <= ?", (now,))


def _remove_expired(connection: sqlite3.Connection, now: float) -> None:
    connection.execute(
        "DELETE FROM board WHERE rowid IN (SELECT rowid FROM board WHERE expires <= ? ORDER BY expires LIMIT ?)",
        (now, SWEPT),
    )


def _held_beside(connection: sqlite3.Connection, key: str) -> int:
    """The bytes of all items but that under ``key``."""
    (held,) = connection.execute(
        "SELECT bytes - coalesce((SELECT size FROM board WHERE key = ?), 0) FROM board_size", (key,)
    ).fetchone()
    return int(held)


# -- who listens


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was announced behind some place, and the place where that ends."""

    top: int
    told: list[tuple[str, str, bytes]]


def _look(connection: sqlite3.Connection, seen: int | None) -> _Seen:
    """What was announced behind ``seen``; None: nothing, only where it would begin."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notices'").fetchone()
    top = 0 if row is None else int(row[0])
    if seen is None or top == seen:
        return _Seen(top, [])
    behind = seen if seen < top else 0  # else it is another file
    told = connection.execute(
        "SELECT worker, topic, message, n FROM notices WHERE n > ? ORDER BY n", (behind,)
    ).fetchall()
    last = told[-1][3] if told else top
    return _Seen(max(top, last), [(worker, topic, message) for worker, topic, message, _ in told])


class Notices:
    """What one worker hears. ``desk``: the one that reads."""

    def __init__(self, desk: Desk, worker: str, on_signal: Callable[[Signal], None]) -> None:
        self._desk = desk
        self._worker = worker
        self._on_signal = on_signal
        self._topics: frozenset[str] = frozenset()
        self._seen: int | None = None
        self._reading = asyncio.Lock()
        self._more = False  # something was announced
        self._task: asyncio.Task[None] | None = None

    async def listen(self, topics: Collection[str]) -> None:
        """As ``Backend.listen``."""
        async with self._reading:
            await self._read()  # what was announced so far is for who listened so far
            self._topics = frozenset(topics)
            if not topics:
                self._seen = None

    async def refresh(self) -> None:
        """About once a second."""
        if self._topics:
            async with self._reading:
                await self._read()

    def look(self) -> None:
        """Something was announced."""
        if self._topics:
            self._more = True
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._follow())

    async def aclose(self) -> None:
        """Hear nothing more."""
        self._topics = frozenset()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        try:
            while self._more and self._topics:
                self._more = False
                async with self._reading:
                    await self._read()
        except StoreUnavailable:
            pass  # ``refresh`` will find it
        finally:
            self._task = None

    async def _read(self) -> None:
        seen = self._seen
        found = await self._desk.do(lambda connection: _look(connection, seen))
        self._seen = found.top
        for worker, topic, message in found.told:
            if topic in self._topics and worker != self._worker:
                self._on_signal(Announced(topic, message))
