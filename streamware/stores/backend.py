"""The port of the shared stores: what a back end (SQLite, Redis) has to do, and no more.

``SharedStore`` decides all that is about logs, readers, leases, claims and trouble; a back end stores, fetches, wakes.

Rules that every back end keeps:

1. Whatever fails or takes too long is ``StoreUnavailable``, raised ``from`` the library's own exception. The core
   bounds each call by a time-out of its own and may give up on it: such a write may have been taken all the same.
2. The first terminal entry of a log wins, whoever writes it. After it every write is ``FENCED``, with nothing stored.
3. A write is idempotent by seq: what the log has already is passed over, and the rest taken. The same events may come
   again in an entry that is cut otherwise.
4. Nothing is stored behind a hole: an entry that begins above ``top + 1`` is ``BEHIND``, unless ``gap`` is set.
5. A signal is a hint and may be lost, come twice or come late. What has to be known can be asked for; after the wake-up
   connection was made anew comes ``Resync``, and everything is asked for.
6. ``on_signal`` is called on the loop that ``connect`` was called on, never from within a call to the back end.
7. Nothing is kept without an expiry: a finished log becomes a tombstone after ``ttl``, and that goes after
   ``tombstone_ttl``; a running one lives on while its worker writes to it at least every ``keep_every`` seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgspec

from .base import Claim, Head, Outcome, Tombstone

#: About how many bytes and at most how many events ``Backend.read`` returns, and one ``Entry`` holds.
PAGE_BYTES = 64 * 1024
PAGE_EVENTS = 256


class Entry(msgspec.Struct, gc=False):  # in no cycle, and a batch of them would set off one collection after another
    """One step of one log: consecutive events, or its end, or both.

    ``first``: the seq of ``events[0]``, or of the event that would come next. ``events``: None stands for one that was
    too large to keep. ``head``: with the first entry of a log, which is made by it; harmless where it is there already.
    ``trim``: events below this seq may go (0: none). ``gap``: events before ``first`` are lost for good, and the log
    goes on behind them. ``outcome``: the log ends with this entry; ``unfinished`` as in ``Log``. With no events, head
    or outcome it only keeps the log from expiring, and asks whether it is fenced.
    """

    stream: str
    first: int
    events: Sequence[bytes | None] = ()
    head: Head | None = None
    trim: int = 0
    gap: bool = False
    outcome: Outcome | None = None
    unfinished: bool = False

    @property
    def last(self) -> int:
        """The seq of the last event, or of the one before ``first`` where it has none."""
        return self.first + len(self.events) - 1


class Verdict(enum.Enum):
    """What became of an entry. ``TAKEN``: it is stored, now or already. ``FENCED``: the log has ended, by somebody else
    or by this very entry when it was sent before. ``LOST``: there is no such log and no tombstone (it expired, or the
    store was emptied). ``BEHIND``: the store lacks events before this entry (it was rolled back). ``FULL``: no room for
    another log; only with a head."""

    TAKEN = "taken"
    FENCED = "fenced"
    LOST = "lost"
    BEHIND = "behind"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to one entry. ``top``: with ``BEHIND``, the last seq that the store has; with ``FENCED``, the log's
    final seq. ``outcome``: with ``FENCED``, how it ended."""

    verdict: Verdict
    top: int = 0
    outcome: Outcome | None = None


TAKEN = Written(Verdict.TAKEN)
LOST = Written(Verdict.LOST)


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a log. ``first``: the seq of ``events[0]``; above ``after + 1`` where events before it are gone.
    ``last``: of the whole log, as it is now. ``outcome`` and ``unfinished``: of the whole log, whether or not this is
    its last page."""

    first: int
    events: Sequence[bytes | None]
    last: int
    outcome: Outcome | None = None
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What there is of a log. ``worker``: who produces it, or did. ``first`` and ``last`` as in ``Log``."""

    head: Head
    worker: str
    first: int
    last: int
    outcome: Outcome | None = None
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One worker's readers of one stream, told to the worker that produces it. ``owner``: that one. ``readers``: how
    many now. ``sent``: the highest seq that any of them has been sent."""

    stream: str
    owner: str
    readers: int
    sent: int


@dataclass(frozen=True, slots=True)
class Appended:
    """Something was written to a log that is watched. ``entry`` may hold the events, then without a head; or none, and
    they have to be read."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Another worker asks this one to stop a stream: ``Backend.asked`` would name it, too."""

    stream: str


@dataclass(frozen=True, slots=True)
class Reported:
    """``Backend.tell`` of another worker. ``worker``: that one."""

    worker: str
    report: Report


@dataclass(frozen=True, slots=True)
class Announced:
    """``Backend.announce`` of another worker, under a topic that this one listens to."""

    topic: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Resync:
    """Signals may have been lost."""


Signal: TypeAlias = Appended | StopAsked | Reported | Announced | Resync


class Backend(Protocol):
    """Where a shared store keeps its logs. All coroutines may raise ``StoreUnavailable``."""

    #: For logs and errors, without secrets: "SQLite at /var/…", "Redis at host:6379".
    name: str
    #: Derived from what identifies the store, so that all of its workers have the same: 6 letters or digits.
    tag: str
    #: A running log is written to at least so often, if need be by an empty entry; None: it does not expire.
    keep_every: float | None
    #: A watched log that nothing is heard of for so many seconds is read all the same; None: signals are not lost
    #: without a ``Resync``.
    look_every: float | None
    #: It may come back from trouble without what it had, until those who know have written it once more.
    forgetful: bool

    async def connect(self, worker: str, lease_ttl: float, on_signal: Callable[[Signal], None]) -> None:
        """Open connections and take the lease of ``worker``, which holds for ``lease_ttl`` seconds of real time. Called
        again where it failed."""

    async def aclose(self) -> None:
        """Give the lease back and release everything; after a failed ``connect`` too. Never raises, never hangs."""

    # -- logs

    async def write(self, entries: Sequence[Entry]) -> Sequence[Written]:
        """Write a batch: at most one entry a stream. One answer each, in order. Calls do not overlap, but for those
        that were given up. An empty batch asks whether the store takes writes."""
        ...

    async def read(self, stream: str, after: int) -> Page | None:
        """The events behind ``after``, at most about a page; None where the log is unknown or expired."""
        ...

    async def state(self, stream: str) -> State | Tombstone | None:
        """What is known of a stream."""
        ...

    async def end(self, stream: str, outcome: Outcome) -> Outcome | None:
        """Close a log that another worker produces, or did; the outcome that stands now. None where it is unknown.
        Whoever watches it is woken."""
        ...

    async def forget(self, stream: str) -> None:
        """Drop a log, its tombstone and its idempotency key."""

    async def tidy(self) -> None:
        """A bounded piece of cleaning up, about once a second; whatever the store does not expire by itself."""

    # -- other workers

    async def watch(self, stream: str) -> None:
        """Signal what is appended to ``stream``, from before this returns on."""

    async def unwatch(self, stream: str) -> None:
        """No longer."""

    async def tell(self, reports: Sequence[Report]) -> None:
        """Pass reports on to the owners of their streams."""

    async def ask_stop(self, stream: str, owner: str) -> None:
        """Ask the worker that produces ``stream`` to stop it: durably, and by a signal."""

    async def asked(self) -> Sequence[str]:
        """The running streams of this worker that somebody asked to stop: one cheap look-up, about once a second."""
        ...

    # -- leases

    def renew(self) -> None:
        """Renew this worker's lease, and take it anew if it has lapsed. Blocks; called on a thread of its own, so with
        a connection of its own, for it has to go on while the loop does not."""

    async def orphans(self) -> Sequence[str]:
        """Some of the running logs whose worker has no lease, at most 100."""
        ...

    # -- idempotency keys

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        """Take a key for ``stream``, atomically, or learn who holds it. A key is free where it was never taken, and
        where its settled stream is known no more, not even by a tombstone. It is held, as abandoned, for about a day
        where its holder has lost its lease before it settled: its app may have begun."""
        ...

    async def settle(self, key: str, stream: str, started: bool) -> None:
        """The holder's stream has started, or it is none and the key is free. Nothing where it is another's by now. May
        be said again. A claim that was on its way for a stream that is none takes nothing when it comes."""

    async def claimed(self, key: str) -> Claim | None:
        """Who holds a key (``won`` is False); None where it is free."""
        ...

    # -- what workers leave for one another; see ``board.py``

    async def put(self, key: str, value: bytes, ttl: float) -> bool:
        """Leave ``value`` under ``key``, a short plain word, for ``ttl`` seconds; False where there is no room."""
        ...

    async def take(self, key: str) -> bytes | None:
        """What was left there: to one caller only."""
        ...

    async def announce(self, topic: str, message: bytes) -> None:
        """Signal ``message`` to the other workers that listen to ``topic``, a short plain word."""

    async def listen(self, topics: Collection[str]) -> None:
        """Signal what other workers announce under ``topics``, from before this returns on, and nothing else; until it
        is called again, or the back end is closed."""
