"""What is read from the file: logs by page, what was added since, and who asks for what."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from .backend import PAGE_BYTES, PAGE_EVENTS, Entry, Page, State
from .base import Outcome, Tombstone
from .records import decode_events, decode_head, tombstone
from .sqlite_changes import Times
from .sqlite_fresh import Fresh

#: Who has missed more batches than these looks at the logs instead.
SCAN_BATCHES = 1000

_LOG = (
    "SELECT logs.id, head, outcome, unfinished, last, buried, expires, name FROM logs"
    " LEFT JOIN workers ON workers.id = worker WHERE stream = ?"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A row of ``logs``, of a log or of a tombstone that has not expired."""

    id: int
    head: bytes
    outcome: Outcome | None
    unfinished: bool
    last: int
    buried: bool
    worker: str


def find(connection: sqlite3.Connection, stream: str, now: float, tombstone_ttl: float) -> Found | None:
    """What there is of a stream. What has expired and is not yet buried counts as buried."""
    row = connection.execute(_LOG, (stream,)).fetchone()
    if row is None:
        return None
    log, head, outcome, unfinished, last, buried, expires, worker = row
    if expires is not None and expires <= now:
        if buried or expires + tombstone_ttl <= now:
            return None
        buried = True
    return Found(
        log, head, None if outcome is None else Outcome(outcome), bool(unfinished), last, bool(buried), worker or ""
    )


def state(
    connection: sqlite3.Connection, fresh: Fresh, stream: str, now: float, tombstone_ttl: float
) -> State | Tombstone | None:
    """As ``Backend.state``."""
    with _snapshot(connection):
        found = find(connection, stream, now, tombstone_ttl)
        if found is None:
            return None
        head = decode_head(found.head)
        if found.buried:
            return tombstone(head, found.outcome or Outcome.INTERRUPTED, found.last)
        first, last = _extent(connection, fresh, found)
        return State(head, found.worker, first, last, found.outcome, found.unfinished)


def page(
    connection: sqlite3.Connection, fresh: Fresh, stream: str, after: int, now: float, tombstone_ttl: float
) -> Page | None:
    """As ``Backend.read``."""
    with _snapshot(connection):
        found = find(connection, stream, now, tombstone_ttl)
        if found is None or found.buried:
            return None
        first, events, full = _splice(
            connection.execute(
                "SELECT first, last, events FROM pages WHERE log = ? AND last > ? ORDER BY last", (found.id, after)
            ),
            after,
            [],
        )
        last = found.last
        if found.outcome is None:
            _, last = _extent(connection, fresh, found)
            if not full:
                begun = first if events else after + 1
                here = begun + len(events) - 1
                rows = (row for row in fresh.of(found.id) if row.last >= row.first and row.last > here)
                first, events, _ = _splice(((r.first, r.last, bytes(r.events)) for r in rows), after, events, first)
        if not events:
            first = max(after, last) + 1
        return Page(first, events, last, found.outcome, found.unfinished)


def _splice(
    rows: Iterable[tuple[int, int, bytes]], after: int, events: list[bytes | None], first: int = 0
) -> tuple[int, list[bytes | None], bool]:
    """``events`` from ``first`` on, and those of ``rows`` that follow, up to a page or a hole: the first seq, the
    events, and whether that is all that a page holds."""
    size = sum(len(event or b"") for event in events)
    for begins, ends, data in rows:
        follows = first + len(events) if events else after + 1
        if ends < follows:
            continue
        if begins > follows and events:
            return first, events, True  # a hole: the next page begins behind it
        found = decode_events(data)
        if events:
            found = found[follows - begins :]
        else:
            first = max(begins, follows)
            found = found[first - begins :]
        for event in found:
            if events and (size + len(event or b"") > PAGE_BYTES or len(events) >= PAGE_EVENTS):
                return first, events, True
            size += len(event or b"")
            events.append(event)
    return first, events, False


def _extent(connection: sqlite3.Connection, fresh: Fresh, found: Found) -> tuple[int, int]:
    """The first and the last seq of a log."""
    first = last = None
    row = connection.execute("SELECT first FROM pages WHERE log = ? ORDER BY last LIMIT 1", (found.id,)).fetchone()
    if row is not None:
        (first,) = row
        (last,) = connection.execute("SELECT max(last) FROM pages WHERE log = ?", (found.id,)).fetchone()
    if found.outcome is not None:
        return first or found.last + 1, found.last
    fresh.refresh(connection)
    begins, ends = fresh.extent(found.id) or (None, 0)
    last = max(last or 0, ends)
    return first or begins or last + 1, last


# -- what was added


@dataclass(frozen=True, slots=True)
class Added:
    """What was added behind some batch. ``top``: the newest batch; ``rows``: by log, entries without a stream;
    ``missed``: some of it is gone already, or too much to tell."""

    top: int
    rows: list[tuple[int, Entry]]
    missed: bool


def added(connection: sqlite3.Connection, fresh: Fresh, seen: int, logs: Iterable[int]) -> Added:
    """What was added to ``logs`` behind batch ``seen``."""
    with _snapshot(connection):
        fresh.refresh(connection)
    if not seen <= fresh.top <= seen + SCAN_BATCHES:
        return Added(fresh.top, [], True)
    rows, missed = fresh.since(seen, logs)
    entries = [
        (
            row.log,
            Entry(
                "",
                row.first,
                row.decoded(),
                outcome=None if row.outcome is None else Outcome(row.outcome),
                unfinished=row.unfinished,
            ),
        )
        for row in rows
    ]
    return Added(fresh.top, entries, missed)


# -- this worker's own


def asked(connection: sqlite3.Connection, worker: int) -> list[str]:
    """As ``Backend.asked``."""
    rows = connection.execute("SELECT stream FROM logs WHERE worker = ? AND stop AND outcome IS NULL", (worker,))
    return [stream for (stream,) in rows]


def orphans(connection: sqlite3.Connection, times: Times) -> list[str]:
    """As ``Backend.orphans``."""
    rows = connection.execute(
        "SELECT stream FROM workers JOIN logs ON logs.worker = workers.id AND outcome IS NULL"
        " WHERE renewed NOT BETWEEN :lapsed AND :soon LIMIT 100",
        times.parameters(),
    )
    return [stream for (stream,) in rows]


def mail(connection: sqlite3.Connection, worker: int) -> list[tuple[int, bytes]]:
    """What was left for this worker, oldest first."""
    return connection.execute("SELECT id, body FROM mail WHERE worker = ? ORDER BY id LIMIT 1000", (worker,)).fetchall()


class _snapshot:  # noqa: N801  # read like a function
    """All that is read within belongs together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *exc: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
