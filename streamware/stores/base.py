"""Where logs live: the protocols that every store keeps, written for stores that several processes share.

Rules that each store keeps, and that the contract suite checks against all of them:

1. Seqs of a log run 1, 2, 3 … without holes. An event that was too large to keep leaves its seq behind.
2. ``append`` is synchronous and buffered. It never waits and never raises: trouble of a shared store is the store's.
3. Readers in the producer's process are served from its memory and never wait for a shared store.
4. The outcome is written exactly once, by whoever comes first. After it every append is refused.
5. Only events that were sent to some reader are trimmed; a reader that comes for a trimmed one is told so.
6. Expired logs leave a tombstone. Nothing is kept without a cap and a time to live.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Outcome(enum.StrEnum):
    """How a stream ended. ``DONE``: the app sent its final body. ``FAILED``: it raised, hung, or returned without one.
    ``STOPPED``: somebody asked. ``INTERRUPTED``: its worker died or left, or every reader was gone for ``linger``."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Head:
    """What a log remembers of the request and response that it belongs to.

    ``owner``: see ``streams/owner.py``; ``account``: whose share of a bounded store the log is charged to;
    ``path`` and ``method``: of the request, the path with its mount;
    ``status`` and ``headers``: of the response, allow-listed, lower-case names; ``media_type``: essence, lower case.
    """

    owner: str
    account: str
    path: str
    method: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    media_type: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of an expired log."""

    owner: str
    path: str
    method: str
    outcome: Outcome
    last: int


@dataclass(slots=True)
class Batch:
    """What ``LogReader.read`` returns.

    ``events``: wire bytes, in order, the last of them being number ``last``. ``aside``: bytes for live readers that
    are in no log (an app's own pings, the pieces of an event too large to keep). ``gap``: events between the reader's
    place and the first of ``events`` are lost to this reader. ``outcome``: set once nothing follows. ``torn``: with a
    gap or an outcome, that the start of an event has gone out whose end never will. ``within``: it ends in the middle
    of an event, the rest of which is to come.
    """

    events: Sequence[bytes]
    last: int
    aside: bytes = b""
    gap: bool = False
    outcome: Outcome | None = None
    torn: bool = False
    within: bool = False


class Sink(Protocol):
    """A connection that may be given events while its reader waits, in place of waking the reader for each."""

    def ready(self) -> bool:
        """Whether it may be given the next event. Asked when its reader begins to wait."""
        ...

    def give(self, event: bytes) -> bool | None:
        """Send one event. True where it has been sent, False where that has begun (the rest is the reader's: ``read``
        then returns an empty batch), None where it would not. It never waits, and never raises."""
        ...


class LogReader(Protocol):
    """One reader's place in a log. Reading on says that what was read before has been sent."""

    #: The seq of the last event that was read, or given to the sink; exact once ``read`` has returned.
    position: int
    #: Where set, a store may give it the next events while ``read`` waits, when this is the log's only reader.
    sink: Sink | None

    async def read(self) -> Batch | None:
        """The next events, waiting for them; at most about 64 KiB a batch. None once ``close`` was called."""
        ...

    def close(self) -> None:
        """Give up the place; wakes a ``read`` that waits. Harmless twice."""


class Log(Protocol):
    """The events of one stream."""

    stream: str
    head: Head
    #: The most bytes that it will ever hold.
    max_bytes: int
    #: True where the last event is the unfinished rest of the body: it has no id, so no reader's cursor reaches it.
    #: Set by the producer before it closes the log.
    unfinished: bool

    @property
    def first(self) -> int:
        """The seq of the oldest event that is kept; ``last + 1`` where none is."""
        ...

    @property
    def last(self) -> int:
        """The seq of the newest event; 0 before the first."""
        ...

    @property
    def outcome(self) -> Outcome | None:
        """None while the log is open."""
        ...

    def reader(self, after: int) -> LogReader:
        """A new place in the log, behind event ``after``."""
        ...

    async def reach(self, seq: int, timeout: float) -> bool:
        """Wait, at most ``timeout`` seconds, until event ``seq`` exists; False if it does not.

        :raises StoreUnavailable: a shared store cannot say.
        """
        ...


class ProducerLog(Log, Protocol):
    """A log as its producer sees it, in the process that writes it."""

    #: Called once, on the loop, when somebody else closed the log: a stop, or a lease that lapsed.
    on_closed: Callable[[Outcome], None] | None
    #: Called on the loop with the number of readers, in any process, whenever it changes.
    on_readers: Callable[[int], None] | None

    @property
    def readers(self) -> int:
        """How many readers follow it now."""
        ...

    def append(self, event: bytes) -> bool:
        """Add one event. False where the producer has to await ``room`` before the next one: it is ``window`` bytes
        ahead of the foremost reader, or the log is at its capacity with nothing that may be trimmed, or closed (then
        the event was refused)."""
        ...

    def aside(self, data: bytes) -> None:
        """Hand ``data`` to the readers that are connected here; kept nowhere, and dropped where one does not keep
        up."""

    async def pass_by(self, piece: bytes, last: bool) -> None:
        """Hand a piece of an event that is too large to keep to the readers connected here, waiting for the foremost
        of them. The ``last`` piece takes the event's seq; whoever was not there from the first piece on meets a gap."""

    async def room(self) -> bool:
        """Wait until there is room again; False where the log is closed."""
        ...

    def close(self, outcome: Outcome) -> bool:
        """Write the outcome; False if there was one already."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to ``Store.claim``. ``won``: the caller holds the key now and must ``settle`` it. Else ``stream`` and
    ``fingerprint`` are those of the request that holds it, and ``settled`` tells whether its stream has started.
    ``abandoned``: its worker died before it settled, so that nobody knows what its app has done."""

    won: bool
    stream: str
    fingerprint: bytes
    settled: bool
    abandoned: bool = False

    @property
    def pending(self) -> bool:
        """What becomes of it is still to be seen."""
        return not (self.won or self.settled or self.abandoned)


class Store(Protocol):
    """Where logs live."""

    #: Opens every stream id that this store makes, so that a cursor from elsewhere is known as such.
    tag: str
    #: True where other processes can read its logs.
    shared: bool

    async def start(self) -> None:
        """Open connections, start to sweep. Idempotent; called before the first use."""

    async def aclose(self) -> None:
        """Close open logs of this process as ``interrupted`` and release everything. Idempotent."""

    async def create(self, stream: str, head: Head, *, window: int) -> ProducerLog:
        """A new, empty log, whose producer may be ``window`` bytes ahead of the foremost reader.

        :raises StoreFull: no room, and nothing may be evicted.
        :raises StoreUnavailable: a shared store did not answer.
        """
        ...

    async def open(self, stream: str) -> Log | Tombstone | None:
        """The log of a stream, or what is left of it; None where it is unknown.

        :raises StoreUnavailable: a shared store did not answer.
        """
        ...

    async def stop(self, stream: str) -> bool:
        """Close the log as ``stopped`` on whichever worker it is produced; False where the stream is unknown. True
        also for one that has ended."""
        ...

    async def forget(self, stream: str) -> None:
        """Drop a log as if it had never been: no tombstone. For streams that turned out to need none."""

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        """Take an idempotency key for ``stream``, atomically, or learn who holds it."""
        ...

    async def settle(self, key: str, stream: str, started: bool) -> None:
        """The claim's stream has started (the key then lives as long as its log); or it is none, and the key is free.
        Nothing is done where the key is no longer ``stream``'s."""

    async def settled(self, key: str, timeout: float) -> Claim | None:
        """Wait, at most ``timeout`` seconds, for the holder of ``key`` to settle: the settled claim; None where the
        key became free; the unsettled claim on time-out."""
        ...
