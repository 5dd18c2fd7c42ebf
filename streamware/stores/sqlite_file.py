"""The database file of a ``SQLiteStore``: how it is opened, what is in it, and what its errors mean.

``fresh`` takes what is written, one row a batch of all logs (``sqlite_fresh.py``). A worker moves its own from there to
``pages``, which is found by log, whenever there is enough of it. What is in both, or in two pages, is the same: events
are told apart by seq. ``workers.renewed`` is ``time.monotonic``, which all
processes of a machine share; everything else is wall time, so that it outlives a boot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import string
from collections.abc import Generator
from pathlib import Path

from ..exceptions import StoreUnavailable

VERSION = 2
#: How long a statement waits for another worker's transaction; less than an operation of the core may take.
BUSY_SECONDS = 1.5

_SCHEMA = """
CREATE TABLE IF NOT EXISTS workers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never another's: one that was removed while it was paused comes back
    name TEXT NOT NULL UNIQUE,
    renewed REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL UNIQUE,
    worker INTEGER NOT NULL,
    head BLOB NOT NULL,
    last INTEGER NOT NULL DEFAULT 0, -- once it has ended
    outcome TEXT,
    unfinished INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0, -- somebody asked for it
    fenced INTEGER NOT NULL DEFAULT 0, -- somebody else ended it
    buried INTEGER NOT NULL DEFAULT 0, -- only a tombstone is left
    expires REAL -- once it has ended
);
CREATE INDEX IF NOT EXISTS running ON logs (worker) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS stopping ON logs (worker) WHERE stop AND outcome IS NULL;
CREATE INDEX IF NOT EXISTS fenced ON logs (worker) WHERE fenced;
CREATE INDEX IF NOT EXISTS ended ON logs (buried, expires) WHERE outcome IS NOT NULL;
CREATE TABLE IF NOT EXISTS fresh (
    n INTEGER PRIMARY KEY AUTOINCREMENT, -- without holes, but for rows that were removed
    worker INTEGER NOT NULL,
    entries BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS pages (
    log INTEGER NOT NULL,
    last INTEGER NOT NULL,
    first INTEGER NOT NULL,
    events BLOB NOT NULL,
    PRIMARY KEY (log, last)
);
CREATE TABLE IF NOT EXISTS claims (
    key TEXT PRIMARY KEY,
    stream TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    worker INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0, -- 2: its worker died before
    expires REAL -- once it is settled; it lives at least as long as its log
);
CREATE INDEX IF NOT EXISTS abandoned ON claims (expires) WHERE settled = 2;
CREATE INDEX IF NOT EXISTS claimed ON claims (stream);
CREATE TABLE IF NOT EXISTS mail (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    worker INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS addressed ON mail (worker);
CREATE TABLE IF NOT EXISTS board (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    size INTEGER NOT NULL,
    expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS perishable ON board (expires);
CREATE TABLE IF NOT EXISTS board_size (bytes INTEGER NOT NULL);
INSERT INTO board_size SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM board_size);
CREATE TRIGGER IF NOT EXISTS item_put AFTER INSERT ON board BEGIN UPDATE board_size SET bytes = bytes + new.size; END;
CREATE TRIGGER IF NOT EXISTS item_taken AFTER DELETE ON board BEGIN UPDATE board_size SET bytes = bytes - old.size; END;
CREATE TABLE IF NOT EXISTS notices (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    worker TEXT NOT NULL, -- that has told its own listeners
    topic TEXT NOT NULL,
    message BLOB NOT NULL,
    expires REAL NOT NULL
);
"""


def open_file(path: Path) -> sqlite3.Connection:
    """A connection, to be used by one thread at a time, over a file that has the tables.

    :raises sqlite3.Error: it cannot be opened, or is none of ours.
    :raises OSError: it cannot be made.
    """
    # What is in it is for its owner alone. SQLite gives the same rights to the files beside it.
    with contextlib.suppress(FileExistsError):  # and never open one that is there: closing it would drop SQLite's locks
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    # A thread that is stuck has to be interruptible from another.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= VERSION:
            raise sqlite3.DatabaseError(f"its tables are of version {version}, {VERSION} is known")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        # With WAL that loses no commit when a process dies, and at worst the last ones when the machine does.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # it would stall the batch that hits it
        connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}").fetchone()
        if version < VERSION:  # all that was added since is in tables of its own
            with transaction(connection):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at ``path`` now; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All or nothing, with the write lock from the beginning."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def unavailable(name: str, error: Exception) -> StoreUnavailable:
    """What the core is told of ``error``. SQLite's own texts name no data."""
    return StoreUnavailable(f"{name}: {error}")


def tag_of(path: Path) -> str:
    """The tag of the store in ``path``: the same in all of its workers."""
    digits = string.digits + string.ascii_letters
    number = int.from_bytes(hashlib.sha256(b"sqlite\0" + str(path).encode("utf-8", "surrogateescape")).digest())
    return "".join(digits[number // len(digits) ** place % len(digits)] for place in range(6))
