"""What one worker changes of the file beside its batches: ends, stops, keys, mail, and the cleaning up.

Each function is one transaction on the connection that it is given, or a bounded number of them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .base import Claim, Outcome
from .sqlite_batches import last_of, page_fresh
from .sqlite_file import transaction
from .sqlite_fresh import Fresh, NewRow, add

#: So many logs are buried, and so many tombstones removed, in one go.
TIDY_LOGS = 100
TOMBSTONES = 50_000

_FORGOTTEN = "coalesce(expires + (CASE WHEN buried THEN 0 ELSE :tombstone_ttl END) <= :now, 0)"
_KNOWN = f"EXISTS (SELECT 1 FROM logs WHERE stream = claims.stream AND NOT {_FORGOTTEN})"  # noqa: S608  # our own texts
_ALIVE = "EXISTS (SELECT 1 FROM workers WHERE id = claims.worker AND renewed BETWEEN :lapsed AND :soon)"
#: A key is held by who is still starting, or has died of it, and by a stream that has started and is known.
HELD = f"(CASE WHEN settled THEN expires > :now OR {_KNOWN} ELSE 1 END)"
#: What ``settled`` is where a worker has gone before it settled, and is forgotten.
ABANDONED = 2


@dataclass(frozen=True, slots=True)
class Times:
    """``now``: wall time. Who has not renewed for ``lease`` seconds of monotonic time has no lease; one from the future
    is from before the machine was booted. ``tombstone_ttl``: see ``Bounds``."""

    now: float
    lease: float
    tombstone_ttl: float

    def parameters(self) -> dict[str, float]:
        """For the statements of this module."""
        here = time.monotonic()
        return {
            "now": self.now,
            "lapsed": here - self.lease,
            "soon": here + 1.0,
            "tombstone_ttl": self.tombstone_ttl,
        }


@dataclass(frozen=True, slots=True)
class Bounds:
    """``ttl`` of an ended log, ``tombstone_ttl`` of what is left of it, ``max_bytes`` of the file."""

    ttl: float
    tombstone_ttl: float
    max_bytes: int


# -- logs


def end(
    connection: sqlite3.Connection, fresh: Fresh, worker: int, stream: str, outcome: Outcome, expires: float
) -> Outcome | None:
    """As ``Backend.end``, by ``worker``."""
    with transaction(connection):
        row = connection.execute("SELECT id, outcome FROM logs WHERE stream = ?", (stream,)).fetchone()
        if row is None:
            return None
        log, ended = row
        if ended is not None:
            return Outcome(ended)
        page_fresh(connection, fresh, log)
        last = last_of(connection, fresh, log)
        connection.execute(
            "UPDATE logs SET outcome = ?, last = ?, fenced = 1, expires = ? WHERE id = ?",
            (outcome.value, last, expires, log),
        )
        _say_ended(connection, worker, log, last, outcome)
    return outcome


def _say_ended(connection: sqlite3.Connection, worker: int, log: int, last: int, outcome: Outcome) -> None:
    add(connection, worker, [NewRow(log, last + 1, last, (), outcome.value)])


def forget(connection: sqlite3.Connection, fresh: Fresh, worker: int, stream: str) -> None:
    """As ``Backend.forget``. Whoever follows the log is told that it was interrupted."""
    with transaction(connection):
        row = connection.execute("SELECT id, outcome FROM logs WHERE stream = ?", (stream,)).fetchone()
        if row is not None:
            log, ended = row
            if ended is None:
                _say_ended(connection, worker, log, last_of(connection, fresh, log), Outcome.INTERRUPTED)
            connection.execute("DELETE FROM pages WHERE log = ?", (log,))
            connection.execute("DELETE FROM logs WHERE id = ?", (log,))
        connection.execute("DELETE FROM claims WHERE stream = ?", (stream,))


def ask_stop(connection: sqlite3.Connection, stream: str) -> None:
    """As ``Backend.ask_stop``."""
    with transaction(connection):
        connection.execute("UPDATE logs SET stop = 1 WHERE stream = ? AND outcome IS NULL", (stream,))


# -- idempotency keys


def claim(
    connection: sqlite3.Connection, worker: int, key: str, fingerprint: bytes, stream: str, times: Times
) -> Claim:
    """As ``Backend.claim``."""
    with transaction(connection):
        held = claimed(connection, key, times)
        if held is not None:
            return held
        connection.execute(
            "INSERT OR REPLACE INTO claims (key, stream, fingerprint, worker) VALUES (?, ?, ?, ?)",
            (key, stream, fingerprint, worker),
        )
    return Claim(True, stream, fingerprint, False)


def claimed(connection: sqlite3.Connection, key: str, times: Times) -> Claim | None:
    """As ``Backend.claimed``."""
    row = connection.execute(
        f"SELECT stream, fingerprint, settled, {_ALIVE} FROM claims WHERE key = :key AND {HELD}",  # noqa: S608  # our own
        {"key": key, **times.parameters()},
    ).fetchone()
    if row is None:
        return None
    stream, fingerprint, settled, alive = row
    return Claim(False, stream, fingerprint, settled == 1, settled == ABANDONED or not (settled or alive))


def settle(connection: sqlite3.Connection, key: str, stream: str, started: bool, expires: float) -> None:
    """As ``Backend.settle``."""
    with transaction(connection):
        if started:
            connection.execute(
                "UPDATE claims SET settled = 1, expires = ? WHERE key = ? AND stream = ?", (expires, key, stream)
            )
        else:
            connection.execute("DELETE FROM claims WHERE key = ? AND stream = ?", (key, stream))


# -- mail


def post(connection: sqlite3.Connection, letters: Sequence[tuple[str, bytes]]) -> None:
    """Leave ``letters`` for workers by name, who cannot be reached otherwise."""
    with transaction(connection):
        connection.executemany(
            "INSERT INTO mail (worker, body) SELECT id, ? FROM workers WHERE name = ?",
            [(body, name) for name, body in letters],
        )


def clear_mail(connection: sqlite3.Connection, worker: int, last: int) -> None:
    """What was read up to ``last`` is no longer wanted."""
    with transaction(connection):
        connection.execute("DELETE FROM mail WHERE worker = ? AND id <= ?", (worker, last))


# -- cleaning up


def tidy(connection: sqlite3.Connection, bounds: Bounds, times: Times) -> bool:
    """Bury what has expired, remove old tombstones and dead workers; whether there is room for another log."""
    with transaction(connection):
        _bury(connection, bounds, times.now, "AND expires <= :now", TIDY_LOGS)
        _remove_tombstones(connection, times.now)
        _remove_the_dead(connection, times)
        _remove_abandoned(connection, times.now)
    for _ in range(TIDY_LOGS):
        if used(connection) < bounds.max_bytes:
            return True
        with transaction(connection):
            if not _bury(connection, bounds, times.now, "", 1):
                break
    return used(connection) < bounds.max_bytes


def used(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(size * (pages - free))


def _bury(connection: sqlite3.Connection, bounds: Bounds, now: float, which: str, count: int) -> int:
    """Leave tombstones of at most ``count`` ended logs, the oldest first; of how many."""
    rows = connection.execute(
        "SELECT id, min(expires, :now) FROM logs WHERE outcome IS NOT NULL AND NOT buried"  # noqa: S608
        f" {which} ORDER BY expires LIMIT :count",
        {"now": now, "count": count},
    ).fetchall()
    connection.executemany("DELETE FROM pages WHERE log = ?", [(log,) for log, _ in rows])
    connection.executemany(
        "UPDATE logs SET buried = 1, expires = ? WHERE id = ?",
        [(ended + bounds.tombstone_ttl, log) for log, ended in rows],
    )
    return len(rows)


def _remove_tombstones(connection: sqlite3.Connection, now: float) -> None:
    rows = connection.execute(
        "SELECT id, stream FROM logs WHERE outcome IS NOT NULL AND buried AND expires <= ? LIMIT ?", (now, TIDY_LOGS)
    ).fetchall()
    (newest, oldest) = connection.execute("SELECT max(id), min(id) FROM logs").fetchone()
    if newest is not None and newest - oldest >= TOMBSTONES:  # there may be too many: ids are given once
        (count,) = connection.execute("SELECT count(*) FROM logs WHERE outcome IS NOT NULL AND buried").fetchone()
        rows += connection.execute(
            "SELECT id, stream FROM logs WHERE outcome IS NOT NULL AND buried ORDER BY expires LIMIT ?",
            (max(0, min(count - TOMBSTONES, 10 * TIDY_LOGS)),),
        ).fetchall()
    connection.executemany("DELETE FROM logs WHERE id = ?", [(log,) for log, _ in rows])
    connection.executemany("DELETE FROM claims WHERE stream = ?", [(stream,) for _, stream in rows])


def _remove_abandoned(connection: sqlite3.Connection, now: float) -> None:
    """Claims whose time is over, and the oldest where there are too many."""
    # ``ABANDONED`` stands in the text: with a parameter the index would not be used.
    connection.execute("DELETE FROM claims WHERE settled = 2 AND expires <= ?", (now,))
    connection.execute(
        "DELETE FROM claims WHERE key IN"
        " (SELECT key FROM claims WHERE settled = 2 ORDER BY expires DESC LIMIT -1 OFFSET ?)",
        (TOMBSTONES,),
    )


def _remove_the_dead(connection: sqlite3.Connection, times: Times) -> None:
    """Workers without a lease of which nothing runs, and what they have left lying about."""
    rows = connection.execute(
        "SELECT id FROM workers WHERE renewed NOT BETWEEN :lapsed AND :soon"
        " AND NOT EXISTS (SELECT 1 FROM logs WHERE worker = workers.id AND outcome IS NULL) LIMIT 10",
        times.parameters(),
    ).fetchall()
    for (worker,) in rows:
        remove_worker(connection, worker, times)


def remove_worker(connection: sqlite3.Connection, worker: int, times: Times) -> None:
    """A worker that produces nothing any more. What it has not settled may have begun, and is never free."""
    connection.execute(
        "UPDATE claims SET settled = ?, expires = ? WHERE worker = ? AND NOT settled",
        (ABANDONED, times.now + times.tombstone_ttl, worker),
    )
    for statement in (
        "DELETE FROM fresh WHERE worker = ?",
        "DELETE FROM mail WHERE worker = ?",
        "DELETE FROM workers WHERE id = ?",
    ):
        connection.execute(statement, (worker,))


def leave(connection: sqlite3.Connection, worker: int, times: Times) -> None:
    """This worker goes. Where something of it still runs, for it could not be ended, the others will find that out."""
    with transaction(connection):
        running = connection.execute("SELECT 1 FROM logs WHERE worker = ? AND outcome IS NULL", (worker,)).fetchone()
        if running is None:
            remove_worker(connection, worker, times)
        else:
            connection.execute("UPDATE workers SET renewed = ? WHERE id = ?", (float("-inf"), worker))
