"""Streams that start on one worker, are cut anywhere, read on at another, and stopped from a third, against a model.

The model is the list of what the producer has appended. Each client reads over any number of connections, each at a
worker of its own, cut at a random moment, and resumes by its cursor. What it has at the end is what the log has: every
event, once, in order, and a gap only where one was too large to keep. The log is the same in every worker, and so is
its outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from streamware import SQLiteStore, StoreUnavailable
from streamware.clock import LoopClock
from streamware.stores.base import Log, Outcome, ProducerLog, Store, Tombstone
from streamware.stores.shared import SharedStore
from streamware.wire.cursor import new_stream_id
from tests.stores.worlds import SHARED, Limits, StoreKind, head

WORKERS = 3
AT_ONCE = 20
LIMITS = Limits(max_bytes=50_000_000, max_log_bytes=2_000_000)


class Run:
    """One stream, from its start to the last of its readers."""

    def __init__(self, stores: Sequence[Store], seed: int) -> None:
        self.draw = random.Random(seed)
        self.stores = stores
        self.events: list[bytes | None] = []
        self.stops = self.draw.random() < 0.3
        self.length = self.draw.randrange(1, 60)
        self.told: list[Outcome] = []
        self.stopped_within = 0.0

    async def run(self) -> None:
        store = self.draw.choice(self.stores)
        stream = new_stream_id(store.tag)
        log = await store.create(stream, head(), window=self.draw.choice([500, 20_000, 1_000_000]))
        log.on_closed = self.told.append
        clients = [self.follow(stream) for _ in range(self.draw.randrange(1, 4))]
        stopping = [self.stop(stream)] if self.stops else []
        results = await asyncio.gather(self.produce(log), *clients, *stopping)
        outcome = log.outcome
        assert outcome is not None
        if self.stops:
            assert outcome in (Outcome.STOPPED, Outcome.DONE)
            assert self.told == ([Outcome.STOPPED] if outcome is Outcome.STOPPED else [])
        else:
            assert outcome is Outcome.DONE
        for seen, ended in results[1 : 1 + len(clients)]:
            assert seen == self.events
            assert ended is outcome
        if isinstance(store, SharedStore):
            await store.flush()
        for other in self.stores:
            found = await other.open(stream)
            assert found is not None
            assert not isinstance(found, Tombstone)
            assert (found.last, found.outcome) == (len(self.events), outcome)

    async def produce(self, log: ProducerLog) -> None:
        for seq in range(1, self.length + 1):
            if log.outcome is not None:
                return
            size = self.draw.choice([1, 10, 200, 200, 200, 5000, 40_000, 100_000] if self.draw.random() < 0.1 else [20])
            if self.draw.random() < 0.03:
                await log.pass_by(b"too large", True)
                if log.last == seq:
                    self.events.append(None)
            else:
                event = b"%d:" % seq + self.draw.randbytes(size)
                room = log.append(event)
                if log.last == seq:
                    self.events.append(event)
                if not room and not await log.room():
                    return
            if self.draw.random() < 0.5:
                await asyncio.sleep(self.draw.choice([0, 0, 0, 0.001, 0.005]))
        log.close(Outcome.DONE)

    async def stop(self, stream: str) -> None:
        await asyncio.sleep(self.draw.random() * 0.05)
        began = time.monotonic()
        assert await self.draw.choice(self.stores).stop(stream) is True
        self.stopped_within = time.monotonic() - began
        assert self.stopped_within < 1.0

    async def follow(self, stream: str) -> tuple[list[bytes | None], Outcome]:
        """One client, over as many connections as its cuts make necessary."""
        seen: list[bytes | None] = []
        while True:
            store = self.draw.choice(self.stores)
            found = await store.open(stream)
            assert found is not None
            assert not isinstance(found, Tombstone)
            if len(seen) > found.last:
                assert await found.reach(len(seen), 5), "what one worker had, the others get"
            outcome = await self.connection(found, seen)
            if outcome is not None:
                return seen, outcome

    async def connection(self, log: Log, seen: list[bytes | None]) -> Outcome | None:
        """Read until the end, or a cut."""
        reader = log.reader(len(seen))
        batches = self.draw.choice([1, 1, 2, 5, 1000])
        try:
            while batches:
                batches -= 1
                reading = asyncio.ensure_future(reader.read())
                patience = 30.0 if self.draw.random() < 0.8 else self.draw.random() * 0.01
                done, _ = await asyncio.wait([reading], timeout=patience)
                if not done:
                    assert patience < 30.0, "nothing came"
                    reading.cancel()
                    await asyncio.wait([reading])
                    if reading.cancelled():
                        return None
                batch = reading.result()
                assert batch is not None
                begin = batch.last - len(batch.events)
                if batch.gap:
                    seen += [None] * (begin - len(seen))
                elif batch.aside and begin == len(seen) + 1 and not batch.events:
                    seen.append(None)  # the large one, as it went by
                assert begin == len(seen), "the next, and no other"
                seen += batch.events
                if batch.outcome is not None:
                    return batch.outcome
            return None
        finally:
            reader.close()


Meanwhile = Callable[[Sequence[Store]], Coroutine[object, object, None]]


async def runs(kind: StoreKind, count: int, seed: int, meanwhile: Meanwhile | None = None) -> None:
    place = Path(tempfile.mkdtemp(prefix="streamware-"))
    stores = [kind.build(LoopClock(), LIMITS, place) for _ in range(WORKERS)]
    for store in stores:
        await store.start()
    disturbing = None if meanwhile is None else asyncio.ensure_future(meanwhile(stores))
    try:
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*(Run(stores, seed + n).run() for n in range(first, min(first + AT_ONCE, count))))
    finally:
        if disturbing is not None:
            disturbing.cancel()
            await asyncio.wait([disturbing])
        for store in stores:
            await store.aclose()
        shutil.rmtree(place)


@pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.name)
async def test_streams_that_are_cut_anywhere_are_whole(kind: StoreKind) -> None:
    await runs(kind, 60, seed=1)


async def break_connections(stores: Sequence[Store]) -> None:
    """Now and then a thread of some worker takes its connection to the file for broken, and begins anew."""
    draw = random.Random(7)
    while True:
        await asyncio.sleep(draw.random() * 0.1)
        store = draw.choice(stores)
        assert isinstance(store, SQLiteStore)
        with contextlib.suppress(StoreUnavailable):
            await draw.choice(store._backend._desks).do(broken)  # type: ignore[attr-defined]


def broken(connection: sqlite3.Connection) -> None:
    raise sqlite3.DatabaseError("for the test")


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
async def test_streams_are_whole_while_connections_to_the_file_break(count: int) -> None:
    (kind,) = (kind for kind in SHARED if kind.name == "sqlite")
    await runs(kind, count, 2_000_000, break_connections)


@pytest.mark.soak
@pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.name)
async def test_a_thousand_streams_that_are_cut_anywhere_are_whole(kind: StoreKind) -> None:
    await runs(kind, 1000, seed=1_000_000)
