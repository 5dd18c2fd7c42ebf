"""The stores that the contract suite runs against, what they may differ in, and shorthand for tests of them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from streamware.exceptions import StoreUnavailable
from streamware.stores.base import Batch, Head, LogReader, Outcome, ProducerLog, Store
from streamware.stores.memory import MemoryStore
from streamware.stores.redis import RedisStore
from streamware.stores.shared import SharedStore
from streamware.stores.sqlite import SQLiteStore
from streamware.stores.timing import Timing
from streamware.testing import FakeClock, settle
from streamware.types import Clock
from streamware.wire.cursor import new_stream_id
from tests.redis_server import binaries, newest, shared

T = TypeVar("T")

WINDOW = 1000


@dataclass(frozen=True)
class Limits:
    """What every store can be told to keep within."""

    max_bytes: int = 1_000_000
    max_log_bytes: int = 100_000
    max_log_events: int = 10_000
    ttl: float = 300.0
    tombstone_ttl: float = 86_400.0
    owner_share: float = 1.0
    lease: float = 12.0


@dataclass(frozen=True)
class StoreKind:
    """One store under test. ``shared``: other processes can read its logs. ``clocked``: what it expires goes by the
    clock that it is given, not by a server's. ``bounded``: it refuses logs for want of room."""

    name: str
    build: Callable[[Clock, Limits, Path], Store]
    shared: bool
    clocked: bool
    bounded: bool


def memory(clock: Clock, limits: Limits, place: Path) -> Store:
    return MemoryStore(
        max_bytes=limits.max_bytes,
        max_log_bytes=limits.max_log_bytes,
        max_log_events=limits.max_log_events,
        ttl=limits.ttl,
        tombstone_ttl=limits.tombstone_ttl,
        owner_share=limits.owner_share,
        clock=clock,
    )


#: Nothing waits for others to join a batch, so that no timer is set for that; what is done about once a second is done
#: much oftener; and a clock that is moved by hand makes no call to the store late.
PROMPT = Timing(window=0.0, beat=0.05, renewal=0.1, operation=10**6, creation=10**6, farewell=10**6)


def timing_of(limits: Limits) -> Timing:
    """As many renewals in a lease as with the default."""
    lease = limits.lease
    return replace(PROMPT, lease=lease, renewal=min(0.1, lease / 4), hold_off=lease * 7 / 12)


def sqlite(clock: Clock, limits: Limits, place: Path) -> SQLiteStore:
    return _sqlite(clock, limits, place, "local")


def durable_sqlite(clock: Clock, limits: Limits, place: Path) -> SQLiteStore:
    return _sqlite(clock, limits, place, "store")


def _sqlite(clock: Clock, limits: Limits, place: Path, durability: Literal["local", "store"]) -> SQLiteStore:
    return SQLiteStore(
        place / "streams.db",
        max_memory=limits.max_bytes,
        max_log_bytes=limits.max_log_bytes,
        max_log_events=limits.max_log_events,
        ttl=limits.ttl,
        tombstone_ttl=limits.tombstone_ttl,
        owner_share=limits.owner_share,
        durability=durability,
        clock=clock,
        timing=timing_of(limits),
    )


def redis_kinds(version: str) -> list[StoreKind]:
    def build(durability: Literal["local", "store"], clock: Clock, limits: Limits, place: Path) -> RedisStore:
        return RedisStore(
            shared(version).url,
            prefix=f"{place.name}:",
            max_memory=limits.max_bytes,
            max_log_bytes=limits.max_log_bytes,
            max_log_events=limits.max_log_events,
            ttl=limits.ttl,
            tombstone_ttl=limits.tombstone_ttl,
            owner_share=limits.owner_share,
            durability=durability,
            clock=clock,
            timing=timing_of(limits),
        )

    return [
        StoreKind(version, partial(build, "local"), shared=True, clocked=False, bounded=False),
        StoreKind(f"durable {version}", partial(build, "store"), shared=True, clocked=False, bounded=False),
    ]


KINDS = [
    StoreKind("memory", memory, shared=False, clocked=True, bounded=True),
    StoreKind("sqlite", sqlite, shared=True, clocked=True, bounded=False),
    StoreKind("durable sqlite", durable_sqlite, shared=True, clocked=True, bounded=False),
    *[kind for version in binaries() for kind in redis_kinds(version)],
]
#: Without the older ones of several versions of one server.
DISTINCT = [kind for kind in KINDS if not kind.name.endswith(tuple(binaries())) or kind.name.endswith(newest())]
CLOCKED = [kind for kind in KINDS if kind.clocked]
SHARED = [kind for kind in KINDS if kind.shared]
BOUNDED = [kind for kind in KINDS if kind.bounded]


class World:
    """One store, its clock, and shorthand for what tests do with them."""

    def __init__(self, kind: StoreKind, clock: FakeClock, limits: Limits, place: Path | None = None) -> None:
        self.kind = kind
        self.clock = clock
        self.limits = limits
        self.place = place or Path(tempfile.mkdtemp(prefix="streamware-"))
        self.store = kind.build(clock, limits, self.place)

    def stream(self) -> str:
        return new_stream_id(self.store.tag)

    async def stored(self) -> None:
        """Wait until a shared store has all that was appended."""
        if isinstance(self.store, SharedStore):
            await asyncio.wait_for(self.store.flush(), 5)

    async def log(self, *, window: int = WINDOW, account: str = "client:a", stream: str | None = None) -> ProducerLog:
        return await self.store.create(stream or self.stream(), head(account), window=window)


def head(account: str = "client:a", owner: str = "") -> Head:
    headers = ((b"content-type", b"text/event-stream"),)
    return Head(owner, account, "/chat", "POST", 200, headers, "text/event-stream")


async def read(reader: LogReader) -> Batch:
    """The next batch, which must be there or come."""
    batch = await asyncio.wait_for(reader.read(), 5)
    assert batch is not None
    return batch


async def waiting(awaitable: Awaitable[T]) -> asyncio.Future[T]:
    """``awaitable`` as a future that is seen to wait."""
    task = asyncio.ensure_future(awaitable)
    await settle()
    assert not task.done()
    return task


async def read_all(reader: LogReader) -> tuple[list[bytes], Outcome]:
    """Every event to the end of the log, and that. There must be no gap."""
    events: list[bytes] = []
    while True:
        batch = await read(reader)
        assert not batch.gap
        events += batch.events
        if batch.outcome is not None:
            reader.close()
            return events, batch.outcome


async def answered(ask: Callable[[], Awaitable[T]], seconds: float = 10) -> T:
    """What ``ask`` returns, once the store can say."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await ask()
            await asyncio.sleep(0.002)


async def until(holds: Callable[[], object], seconds: float = 5) -> None:
    """Wait for something that happens in real time: on a thread, or in another process."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.002)


Build = Callable[..., World]
