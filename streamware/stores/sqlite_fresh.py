"""What was written of late, one row of ``fresh`` a batch, and what a reader of it remembers of these rows.

A row holds the entries of all logs in a batch, for SQLite's bindings let other threads run at every row that they read
or write: with a row an entry, a busy event loop would hold up each batch for as long as there are entries in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from .records import decode_events

#: Rows that are gone from the file are forgotten when so many are remembered.
REMEMBERED = 500


class Row(msgspec.Struct, array_like=True):
    """An entry of one log. Without events ``last`` is ``first - 1``."""

    log: int
    first: int
    last: int
    events: msgspec.Raw
    outcome: str | None = None
    unfinished: bool = False

    def decoded(self) -> list[bytes | None]:
        """The events."""
        return decode_events(bytes(self.events))


class NewRow(msgspec.Struct, array_like=True, gc=False):  # as ``Entry``
    """The same, as it is written."""

    log: int
    first: int
    last: int
    events: Sequence[bytes | None]
    outcome: str | None = None
    unfinished: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Row]).decode


def add(connection: sqlite3.Connection, worker: int, rows: Sequence[NewRow]) -> int:
    """Add a batch; its number."""
    added = connection.execute("INSERT INTO fresh (worker, entries) VALUES (?, ?)", (worker, _encode(rows)))
    return added.lastrowid or 0


def top(connection: sqlite3.Connection) -> int:
    """The number of the newest batch that ever was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'fresh'").fetchone()
    return 0 if row is None else int(row[0])


class Fresh:
    """The batches as one thread knows them."""

    def __init__(self) -> None:
        self._batches: dict[int, dict[int, list[Row]]] = {}  # by number, then by log
        self.top = 0

    def forget(self) -> None:
        """Begin anew: the file may be another."""
        self._batches.clear()
        self.top = 0

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Learn what was added."""
        newest = top(connection)
        if newest < self.top:
            self.forget()
        if newest == self.top:
            return
        found = connection.execute("SELECT n, entries FROM fresh WHERE n > ? ORDER BY n", (self.top,)).fetchall()
        for n, data in found:
            batch: dict[int, list[Row]] = {}
            for row in _decode(data):
                if row.log in batch:
                    batch[row.log].append(row)
                else:
                    batch[row.log] = [row]
            self._batches[n] = batch
        self.top = newest
        if len(self._batches) > REMEMBERED:
            kept = {n for (n,) in connection.execute("SELECT n FROM fresh")}
            for n in self._batches.keys() - kept:
                del self._batches[n]

    def of(self, log: int) -> Iterator[Row]:
        """The entries of a log, in order."""
        for batch in self._batches.values():
            if log in batch:
                yield from batch[log]

    def extent(self, log: int) -> tuple[int, int] | None:
        """The first and the last seq of a log's events here; None where there are none."""
        rows = [row for row in self.of(log) if row.last >= row.first]
        return (min(row.first for row in rows), max(row.last for row in rows)) if rows else None

    def since(self, seen: int, logs: Iterable[int]) -> tuple[list[Row], bool]:
        """The entries of ``logs`` in batches behind ``seen``, in order; and whether some are known no longer."""
        wanted, rows, missed = set(logs), list[Row](), False
        for n in range(seen + 1, self.top + 1):
            batch = self._batches.get(n)
            if batch is None:
                missed = True
                continue
            for log in wanted & batch.keys():
                rows += batch[log]
        return rows, missed
