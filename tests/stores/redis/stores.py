"""Whole stores on one server, as several workers have them, in real time that runs faster than production's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamware.observe import CountingObserver
from streamware.stores.base import LogReader, Outcome, ProducerLog, Tombstone
from streamware.stores.redis import RedisStore
from streamware.stores.timing import Timing
from streamware.wire.cursor import new_stream_id
from tests.stores.redis.kit import HEAD

FAST = Timing(
    operation=0.5,
    creation=0.5,
    retry=0.05,
    max_retry=0.2,
    beat=0.1,
    lease=1.2,
    renewal=0.3,
    hold_off=0.5,
    report=0.05,
    refresh=0.3,
    silence=1.0,
    patience=8.0,
    farewell=0.5,
)
WINDOW = 10**9


class Worker:
    """A store, and what it has counted."""

    def __init__(self, url: str, prefix: str, timing: Timing = FAST, **options: object) -> None:
        self.observer = CountingObserver()
        self.store = RedisStore(url, prefix=prefix, timing=timing, observer=self.observer, **options)  # type: ignore[arg-type]

    async def begin(self) -> ProducerLog:
        return await self.store.create(new_stream_id(self.store.tag), HEAD, window=WINDOW)

    async def open(self, stream: str, after: int = 0) -> LogReader:
        log = await self.store.open(stream)
        assert log is not None
        assert not isinstance(log, Tombstone)
        return log.reader(after)


@asynccontextmanager
async def workers(url: str, prefix: str, count: int = 2, **options: object) -> AsyncIterator[list[Worker]]:
    """``count`` workers that share a store."""
    made = [Worker(url, prefix, **options) for _ in range(count)]  # type: ignore[arg-type]
    try:
        for worker in made:
            await worker.store.start()
        yield made
    finally:
        for worker in made:
            await worker.store.aclose()


class Following:
    """A reader that reads on its own, and checks that seqs follow one another."""

    def __init__(self, reader: LogReader) -> None:
        self.reader = reader
        self.events: list[bytes] = []
        self.outcome: Outcome | None = None
        self.gaps = 0
        self.silence = 0.0  # the longest
        self.task = asyncio.ensure_future(self._read())
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # where nobody waits for it

    async def _read(self) -> None:
        heard = time.monotonic()
        while self.outcome is None:
            batch = await self.reader.read()
            if batch is None:
                return
            now = time.monotonic()
            self.silence = max(self.silence, now - heard)
            heard = now
            self.gaps += batch.gap
            self.events += batch.events
            self.outcome = batch.outcome

    async def end(self, seconds: float = 15.0) -> list[bytes]:
        """All events, once the log has ended."""
        await asyncio.wait_for(self.task, seconds)
        self.reader.close()
        return self.events


class Producing:
    """A producer that appends an event every ``every`` seconds, until it is told to end."""

    def __init__(self, log: ProducerLog, every: float = 0.002) -> None:
        self.log = log
        self.events: list[bytes] = []
        self.held_back = 0.0  # the longest
        self._every = every
        self._done = asyncio.Event()
        self._task = asyncio.ensure_future(self._produce())

    async def _produce(self) -> None:
        while not self._done.is_set():
            event = b"data: event %d of a stream that is read elsewhere\n\n" % (len(self.events) + 1)
            self.events.append(event)
            if not self.log.append(event):
                since = time.monotonic()
                if not await self.log.room():
                    return
                self.held_back = max(self.held_back, time.monotonic() - since)
            await asyncio.sleep(self._every)

    async def reach(self, count: int) -> None:
        """Wait until there are ``count`` more events."""
        count += len(self.events)
        while len(self.events) < count:
            await asyncio.sleep(self._every)

    async def end(self, outcome: Outcome = Outcome.DONE) -> list[bytes]:
        self._done.set()
        await self._task
        self.log.close(outcome)
        return self.events
