"""Batches of entries, as one worker writes them into the file.

Rules:

1. It is used by one thread, and knows of each running log of its own how far it has got: a batch asks for nothing but
   whether somebody has fenced a log of ours.
2. What is known changes with the commit, never before.
3. What is written goes to ``fresh``, and from memory to ``pages`` as well: when a log has a page full, when it ends,
   and otherwise after half a second, of some logs with each batch, so that no batch has to wait for all of them. Rows
   leave ``fresh`` some time after that, so that whoever follows it live finds them there.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import sqlite_fresh as fresh
from .backend import LOST, PAGE_BYTES, PAGE_EVENTS, TAKEN, Entry, Verdict, Written
from .base import Outcome
from .records import encode_events, encode_head
from .sqlite_file import transaction
from .sqlite_fresh import Fresh, NewRow

#: What is in no page for so long is put into one; with a batch, of so many logs at most.
LOOSE_SECONDS = 0.5
LOOSE_LOGS = 64
#: Rows of ``fresh`` stay so long at least, and are removed so often.
FRESH_SECONDS = 0.3

_ADD_PAGE = "INSERT OR REPLACE INTO pages (log, first, last, events) VALUES (?, ?, ?, ?)"
#: The same for many at once, in one step: their bytes one after the other, and where each of them is.
_ADD_PAGES = (
    "INSERT OR REPLACE INTO pages (log, first, last, events)"
    " SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),"
    " substr(?, json_extract(value, '$[3]'), json_extract(value, '$[4]')) FROM json_each(?)"
)
#: From so many on.
MANY = 4

_RENEW = (
    "INSERT INTO workers (id, name, renewed) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET renewed = excluded.renewed"
)


@dataclass(slots=True, eq=False)
class _Own:
    """A running log of ours. ``top``: the last seq that is stored; ``loose``: those of its events, from ``first`` on,
    that are in no page yet, ``size`` bytes."""

    log: int
    top: int
    first: int
    loose: list[bytes | None] = field(default_factory=list[bytes | None])
    size: int = 0


@dataclass(slots=True)
class _Change:
    """What an entry changes of what we know. ``own`` is None where there is nothing to know any more."""

    stream: str
    own: _Own | None
    first: int = 0
    events: Sequence[bytes | None] = ()
    size: int = 0
    paged: bool = False


class Batches:
    """One worker's. ``now``: wall time; ``ttl``: of a log that has ended. ``worker``: its number in the file;
    ``fresh``: what this thread knows of that; ``may_create``: there is room for another log."""

    def __init__(self, name: str, now: Callable[[], float], ttl: float) -> None:
        self._name = name
        self._now = now
        self._ttl = ttl
        self._own: dict[str, _Own] = {}
        self._loose: dict[_Own, tuple[float, int]] = {}  # since when, and since which batch; the oldest first
        self._written: deque[tuple[float, int]] = deque()  # of each batch: when, and its number
        self._removed = 0.0  # when rows of ``fresh`` were last removed
        self._newest = 0  # the newest batch of anybody, at the last tidying
        self.fresh = Fresh()
        self.worker = 0
        self.may_create = True

    def opened(self, connection: sqlite3.Connection) -> None:
        """A new connection: what was known of the file may be wrong."""
        self._own.clear()
        self._loose.clear()
        self._written.clear()
        self._newest = 0
        self.fresh.forget()
        self.worker = renew(connection, self._name)
        with transaction(connection):
            running = connection.execute("SELECT id FROM logs WHERE worker = ? AND outcome IS NULL", (self.worker,))
            for (log,) in running.fetchall():
                page_fresh(connection, self.fresh, log)  # what was loose, we no longer have

    def forget(self, stream: str) -> None:
        """The log is no more."""
        own = self._own.pop(stream, None)
        if own is not None:
            self._loose.pop(own, None)

    def write(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> Sequence[Written]:
        """As ``Backend.write``."""
        with transaction(connection):
            batch = _Batch(self, connection)
            answers = batch.take(entries)
            batch.page(self._aged(LOOSE_LOGS))
            batch.store()
            self._remove(connection)
        batch.learn()
        return answers

    def tidy(self, connection: sqlite3.Connection, *, hurry: bool = False) -> None:
        """Make pages where no batches come to do it. ``hurry``: of everything."""
        with transaction(connection):
            batch = _Batch(self, connection)
            batch.page(list(self._loose) if hurry else self._aged(10 * LOOSE_LOGS))
            batch.store()
            self._remove(connection)
            if not self._loose and not self._written:  # no batches: what is left are ends of others' logs
                connection.execute("DELETE FROM fresh WHERE worker = ? AND n <= ?", (self.worker, self._newest))
            self._newest = fresh.top(connection)
        batch.learn()

    def _aged(self, count: int) -> list[_Own]:
        """Logs with events that have been loose for long enough."""
        old = time.monotonic() - LOOSE_SECONDS
        aged: list[_Own] = []
        for own, (since, _) in self._loose.items():
            if since > old or len(aged) == count:
                break
            aged.append(own)
        return aged

    def _remove(self, connection: sqlite3.Connection) -> None:
        """Let go of what was fresh for long enough, and is in pages."""
        now = time.monotonic()
        if now - self._removed < FRESH_SECONDS:
            return
        self._removed = now
        kept = next((n for _, n in self._loose.values()), None)
        mark = 0
        while self._written and self._written[0][0] < now - FRESH_SECONDS:
            if kept is not None and self._written[0][1] >= kept:
                break
            mark = self._written.popleft()[1]
        if mark:
            connection.execute("DELETE FROM fresh WHERE worker = ? AND n <= ?", (self.worker, mark))


class _Batch:
    """One batch, within its transaction."""

    def __init__(self, batches: Batches, connection: sqlite3.Connection) -> None:
        self._batches = batches
        self._connection = connection
        self._worker = batches.worker
        self._alive = False  # this worker is known to be in the file
        self._fenced = {
            stream: Written(Verdict.FENCED, last, Outcome(outcome))
            for stream, last, outcome in connection.execute(
                "SELECT stream, last, outcome FROM logs WHERE worker = ? AND fenced", (batches.worker,)
            )
        }
        self._n = 0
        self._rows: list[NewRow] = []
        self._pages: list[tuple[int, int, int, bytes]] = []
        self._trims: list[tuple[int, int]] = []
        self._ends: list[tuple[str, bool, int, float, int]] = []
        self._plain: list[_Own] = []  # of the entries that bring no more than events
        self._more: list[Sequence[bytes | None]] = []  # those
        self._changes: list[_Change] = []
        self._aged: list[_Own] = []

    def take(self, entries: Sequence[Entry]) -> list[Written]:
        """What becomes of each of ``entries``."""
        known, fenced = self._batches._own, self._fenced
        rows, plain, more = self._rows, self._plain, self._more
        answers = list[Written]()
        for entry in entries:
            own = known.get(entry.stream)
            events = entry.events
            count = len(events)
            if (
                own is None
                or own.top + 1 != entry.first
                or not count
                or entry.outcome is not None
                or entry.trim
                or len(own.loose) + count >= PAGE_EVENTS
                or own.size >= PAGE_BYTES
                or entry.stream in fenced
            ):
                answers.append(self._take(entry, own))
                continue
            rows.append(NewRow(own.log, entry.first, own.top + count, events))  # as a rule: more of a known log
            plain.append(own)
            more.append(events)
            answers.append(TAKEN)
        return answers

    def _take(self, entry: Entry, own: _Own | None) -> Written:
        stream = entry.stream
        answer = self._fenced.get(stream)
        if answer is None and own is None:
            found = self._find(entry)
            if isinstance(found, Written):
                answer = found
            else:
                own = found
        if answer is not None or own is None:
            self._changes.append(_Change(stream, None))
            return answer or LOST
        known = own.top + 1 - entry.first
        if known < 0 and not entry.gap:
            self._changes.append(_Change(stream, own))
            return Written(Verdict.BEHIND, own.top)
        self._add(own, entry, max(0, known))
        return TAKEN

    def _find(self, entry: Entry) -> _Own | Written:
        """A log of which nothing is known yet."""
        connection = self._connection
        row = connection.execute("SELECT id, outcome, last FROM logs WHERE stream = ?", (entry.stream,)).fetchone()
        if row is not None:
            log, outcome, last = row
            if outcome is not None:
                return Written(Verdict.FENCED, last, Outcome(outcome))
            top = last_of(connection, self._batches.fresh, log)
            return _Own(log, top, top + 1)
        if entry.head is None:
            return LOST
        if not self._batches.may_create:
            return Written(Verdict.FULL)
        if not self._alive:  # or nobody would look after the log if we died now: we may have been paused, and removed
            self._alive = True
            connection.execute(_RENEW, (self._worker, self._batches._name, time.monotonic()))
        made = connection.execute(
            "INSERT INTO logs (stream, worker, head) VALUES (?, ?, ?)",
            (entry.stream, self._worker, encode_head(entry.head)),
        )
        return _Own(made.lastrowid or 0, 0, 1)

    def _add(self, own: _Own, entry: Entry, known: int) -> None:
        events = entry.events[known:]
        first = entry.first + known
        last = max(entry.last, own.top)
        change = _Change(entry.stream, own, first, events)
        outcome = None if entry.outcome is None else entry.outcome.value
        if events or outcome is not None:
            self._rows.append(NewRow(own.log, first if events else last + 1, last, events, outcome, entry.unfinished))
            change.size = sum(len(event) for event in events if event is not None)
        gap = bool(own.loose) and first > own.top + 1
        size, count = own.size + change.size, len(own.loose) + len(events)
        if gap or outcome is not None or size >= PAGE_BYTES or count >= PAGE_EVENTS:
            change.paged = True
            if own.loose and gap:
                self._pages.append((own.log, own.first, own.top, encode_events(own.loose)))
                self._pages.append((own.log, first, last, encode_events(events)))
            elif own.loose or events:
                start = own.first if own.loose else first
                self._pages.append((own.log, start, last, encode_events([*own.loose, *events])))
        if entry.trim:
            self._trims.append((own.log, min(entry.trim, last)))  # the newest page stays: it says how long the log is
        if outcome is not None:
            expires = self._batches._now() + self._batches._ttl
            self._ends.append((outcome, entry.unfinished, last, expires, own.log))
        self._changes.append(change)

    def page(self, aged: Sequence[_Own]) -> None:
        """Make pages of what was loose in these logs before this batch."""
        changed = {id(change.own) for change in self._changes}
        self._aged = [own for own in aged if own.loose and id(own) not in changed]
        self._pages += [(own.log, own.first, own.top, encode_events(own.loose)) for own in self._aged]

    def store(self) -> None:
        """Write what was taken."""
        connection = self._connection
        if self._rows:
            self._n = fresh.add(connection, self._worker, self._rows)
        if self._pages:
            add_pages(connection, self._pages)
        if self._trims:
            connection.executemany("DELETE FROM pages WHERE log = ? AND last < ?", self._trims)
        if self._ends:
            connection.executemany(
                "UPDATE logs SET outcome = ?, unfinished = ?, last = ?, expires = ? WHERE id = ?", self._ends
            )

    def learn(self) -> None:
        """It is committed: know it."""
        known, loose, now = self._batches._own, self._batches._loose, time.monotonic()
        for own in self._aged:
            own.loose, own.size = [], 0
            del loose[own]
        since = (now, self._n)
        for own, events in zip(self._plain, self._more, strict=True):
            if not own.loose:
                own.first = own.top + 1
                loose[own] = since
            own.top += len(events)
            own.loose += events
            own.size += sum(len(event) for event in events if event is not None)
        ended = {log for *_, log in self._ends}
        for change in self._changes:
            self._learn(known, change, ended)
            if change.own is not None:
                if known.get(change.stream) is not change.own or not change.own.loose:
                    loose.pop(change.own, None)
                elif change.own not in loose:
                    loose[change.own] = since
        if self._n:
            self._batches._written.append((now, self._n))

    def _learn(self, known: dict[str, _Own], change: _Change, ended: set[int]) -> None:
        own = change.own
        if own is None or own.log in ended:
            gone = known.pop(change.stream, None)
            if gone is not None:
                self._batches._loose.pop(gone, None)
            return
        known[change.stream] = own
        if change.events:
            if not own.loose:
                own.first = change.first
            own.top = max(own.top, change.first + len(change.events) - 1)
            if not change.paged:
                own.loose += change.events
                own.size += change.size
        if change.paged:
            own.loose, own.size = [], 0


def renew(connection: sqlite3.Connection, name: str, number: int | None = None) -> int:
    """Take or renew the lease of a worker; its number, which it keeps where it has one already."""
    with transaction(connection):
        connection.execute(_RENEW, (number, name, time.monotonic()))
        row = connection.execute("SELECT id FROM workers WHERE name = ?", (name,)).fetchone()
    return int(row[0])


def add_pages(connection: sqlite3.Connection, pages: Sequence[tuple[int, int, int, bytes]]) -> None:
    """Add pages: log, first seq, last seq, events."""
    if len(pages) < MANY:
        connection.executemany(_ADD_PAGE, pages)
        return
    places: list[tuple[int, int, int, int, int]] = []
    begin = 1
    for log, first, last, data in pages:
        places.append((log, first, last, begin, len(data)))
        begin += len(data)
    connection.execute(_ADD_PAGES, (b"".join(data for *_, data in pages), json.dumps(places)))


def page_fresh(connection: sqlite3.Connection, known: Fresh, log: int) -> None:
    """Make pages of what is only fresh of a log: nobody else will."""
    (paged,) = connection.execute("SELECT max(last) FROM pages WHERE log = ?", (log,)).fetchone()
    known.refresh(connection)
    rows = [row for row in known.of(log) if row.last >= row.first and row.last > (paged or 0)]
    add_pages(connection, [(log, row.first, row.last, encode_events(row.decoded())) for row in rows])


def last_of(connection: sqlite3.Connection, known: Fresh, log: int) -> int:
    """The last seq of a running log."""
    (paged,) = connection.execute("SELECT max(last) FROM pages WHERE log = ?", (log,)).fetchone()
    known.refresh(connection)
    extent = known.extent(log)
    return max(paged or 0, extent[1] if extent is not None else 0)
