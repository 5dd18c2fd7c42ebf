"""When the logs of a worker are written: soon where somebody waits, less often where many have something to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from streamware.observe import NullObserver
from streamware.stores.backend import PAGE_BYTES, TAKEN, Entry, Written
from streamware.stores.budget import WorkerBudget
from streamware.stores.flusher import BATCH_ENTRIES, BUSY_ENTRIES, WIDE, WIDEST, Flusher
from streamware.stores.local_log import LocalLog
from streamware.stores.timing import Timing
from streamware.stores.trouble import Trouble
from streamware.testing import FakeClock
from tests.stores.worlds import head

WINDOW = 0.008
MANY = int(10 * BUSY_ENTRIES)  # so many logs that the window would be wider than it may be


class Recorder:
    """Takes every entry, and notes when."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.batches: list[tuple[float, Sequence[Entry]]] = []
        self.on_write: Callable[[], None] = lambda: None

    async def write(self, entries: Sequence[Entry]) -> Sequence[Written]:
        self.batches.append((self.clock.now(), entries))
        self.on_write()
        return [TAKEN] * len(entries)


class Worker:
    """The logs of one worker and their flusher, over a store that answers at once."""

    def __init__(self, *, durable: bool = False) -> None:
        self.clock = FakeClock()
        self.recorder = Recorder(self.clock)
        self.logs: dict[str, LocalLog] = {}
        self.durable = durable
        timing = Timing(window=WINDOW)
        trouble = Trouble("a store", "writes", self.clock, NullObserver(), timing)
        store: Any = self.recorder
        self.flusher = Flusher(store, trouble, self.logs, self.clock, NullObserver(), timing)

    def log(self) -> LocalLog:
        stream = str(len(self.logs))
        made = self.logs[stream] = LocalLog(
            stream, head(), window=10**6, max_bytes=10**6, max_events=10**6, budget=WorkerBudget(10**9, 1.0),
            clock=self.clock, writer=self.flusher, durable=self.durable,
        )  # fmt: skip
        self.flusher.mark(made)
        return made

    def log_while(self, batch: int) -> list[LocalLog]:
        """A log that will be made while the batch of that number is written; none until then."""
        made: list[LocalLog] = []

        def at_write() -> None:
            if len(self.recorder.batches) == batch:
                made.append(self.log())

        self.recorder.on_write = at_write
        return made

    async def busy(self) -> None:
        """Many logs, all known to the store, and a batch of them all has just been written."""
        for _ in range(MANY):
            self.log()
        await self.clock.advance(1)
        self.append()
        await self.clock.advance(0)
        self.recorder.batches.clear()

    def append(self) -> None:
        for log in self.logs.values():
            log.append(b"data: 1\n\n")

    async def pause(self) -> float:
        """How long it takes until the next batch, in windows."""
        begun = self.clock.now()
        assert not self.recorder.batches
        for _ in range(100):
            await self.clock.advance(WINDOW / 4)
            if self.recorder.batches:
                return round((self.recorder.batches[0][0] - begun) / WINDOW, 2)
        raise AssertionError("nothing is written")


async def test_the_first_event_is_written_at_once_and_the_next_a_window_later() -> None:
    worker = Worker()
    log = worker.log()
    await worker.clock.advance(0)
    await worker.clock.advance(1)
    log.append(b"data: 1\n\n")
    await worker.clock.advance(0)
    assert [len(entries) for _, entries in worker.recorder.batches] == [1, 1]
    log.append(b"data: 2\n\n")
    worker.recorder.batches.clear()
    assert await worker.pause() == 1


async def test_where_many_write_and_nobody_waits_the_window_is_at_its_widest() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    assert await worker.pause() == WIDEST


@pytest.mark.parametrize("case", ["a reader elsewhere", "durable"])
async def test_where_somebody_waits_for_what_is_written_the_window_stays_narrower(case: str) -> None:
    worker = Worker(durable=case == "durable")
    for _ in range(MANY):
        worker.log()
    await worker.clock.advance(1)
    if case == "a reader elsewhere":
        worker.logs["7"].elsewhere("another worker", 1, 0)
    worker.append()
    await worker.clock.advance(0)
    worker.recorder.batches.clear()
    worker.append()
    assert await worker.pause() == WIDE


async def test_a_new_stream_does_not_wait_for_the_widest_window() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    await worker.clock.advance(WINDOW)
    new = worker.log()
    assert await worker.pause() == WIDE - 1
    assert new.headed


async def test_a_new_stream_that_comes_late_in_the_widest_window_is_written_at_once() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    await worker.clock.advance((WIDE + 1) * WINDOW)
    assert not worker.recorder.batches
    new = worker.log()
    await worker.clock.advance(0)
    assert new.headed


async def test_more_logs_than_a_batch_holds_are_written_in_several_without_a_pause() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    await worker.pause()
    await worker.clock.advance(0)
    sizes = [len(entries) for _, entries in worker.recorder.batches]
    assert max(sizes) == BATCH_ENTRIES
    assert sum(sizes) == MANY
    assert len({when for when, _ in worker.recorder.batches}) == 1


async def test_where_more_than_a_batch_waits_the_first_holds_what_somebody_waits_for() -> None:
    worker = Worker()
    await worker.busy()
    last = list(worker.logs)[-1]
    worker.logs[last].elsewhere("another worker", 1, 0)
    worker.append()
    await worker.clock.advance(1)
    first = worker.recorder.batches[0][1]
    assert len(first) == BATCH_ENTRIES
    assert last in [entry.stream for entry in first]


async def test_large_logs_that_nobody_waits_for_do_not_fill_the_first_batch_alone() -> None:
    worker = Worker()
    await worker.busy()
    *large, last = worker.logs.values()
    last.elsewhere("another worker", 1, 0)
    for log in large:
        log.append(bytes(PAGE_BYTES))
    last.append(b"data: 1\n\n")
    await worker.clock.advance(1)
    first = worker.recorder.batches[0][1]
    assert len(first) < BATCH_ENTRIES
    assert last.stream in [entry.stream for entry in first]


async def test_what_nobody_waits_for_is_written_however_much_others_wait_for() -> None:
    worker = Worker()
    await worker.busy()
    *waited_for, last = worker.logs.values()
    for log in waited_for:
        log.elsewhere("another worker", 1, 0)

    def go_on() -> None:
        for log in waited_for:
            log.append(b"data: 2\n\n")

    worker.recorder.on_write = go_on  # there is always more than a batch of it
    worker.append()
    for _ in range(100):
        await worker.clock.advance(WINDOW)
        if last.stored == last.last:
            break
    batches = [[entry.stream for entry in entries] for _, entries in worker.recorder.batches]
    its = next(number for number, streams in enumerate(batches) if last.stream in streams)
    assert its <= MANY / (BATCH_ENTRIES // 2)


async def test_what_comes_while_many_batches_are_written_waits_for_the_next_window() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    worker.recorder.on_write = worker.append
    assert await worker.pause() == WIDEST
    assert len(worker.recorder.batches) == MANY / BATCH_ENTRIES


async def test_a_new_stream_that_comes_while_many_batches_are_written_is_in_the_next() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    made = worker.log_while(1)
    assert await worker.pause() == WIDEST
    assert made[0].headed
    assert made[0].stream in [entry.stream for entry in worker.recorder.batches[1][1]]


async def test_a_new_stream_that_comes_while_the_last_batch_is_written_does_not_wait_for_the_widest_window() -> None:
    worker = Worker()
    await worker.busy()
    worker.append()
    made = worker.log_while(MANY // BATCH_ENTRIES)
    assert await worker.pause() == WIDEST
    written = worker.recorder.batches[0][0]
    await worker.clock.advance(WIDEST * WINDOW)
    assert made[0].headed
    assert round((worker.recorder.batches[-1][0] - written) / WINDOW, 2) == WIDE


async def test_what_a_reader_elsewhere_waits_for_does_not_wait_for_the_widest_window_that_others_have_set() -> None:
    worker = Worker()
    await worker.busy()
    followed = worker.logs["7"]
    followed.elsewhere("another worker", 1, 0)
    for log in worker.logs.values():
        if log is not followed:
            log.append(b"data: 1\n\n")
    await worker.clock.advance(WINDOW)
    followed.append(b"data: 1\n\n")
    assert await worker.pause() == WIDE - 1
