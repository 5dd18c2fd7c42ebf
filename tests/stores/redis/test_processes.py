"""Workers that die, are paused, or are held up: real processes, each of which produces a stream that is read here."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from streamware.stores.base import Outcome
from streamware.stores.timing import Timing
from tests.redis_server import RedisServer
from tests.stores.redis.kit import until
from tests.stores.redis.producer import event
from tests.stores.redis.stores import FAST, Following, Worker

ROOT = Path(__file__).parents[3]


class Process:
    """A ``producer`` of its own."""

    def __init__(self, running: asyncio.subprocess.Process, stream: str) -> None:
        self.stream = stream
        self._running = running

    async def says(self) -> str:
        assert self._running.stdout is not None
        return (await asyncio.wait_for(self._running.stdout.readline(), 20)).decode().strip()

    def tell(self, line: str) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write(f"{line}\n".encode())

    def signal(self, number: int) -> None:
        self._running.send_signal(number)


@asynccontextmanager
async def producing(server: RedisServer, speed: str) -> AsyncIterator[Process]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stores.redis.producer", server.url, "t:", speed),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        process = Process(running, "")
        process.stream = await process.says()
        yield process
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
        running._transport.close()  # type: ignore[attr-defined]  # its pipes


@asynccontextmanager
async def reading(server: RedisServer, stream: str, count: int, timing: Timing) -> AsyncIterator[list[Following]]:
    """``count`` other workers that each follow the stream."""
    made = [Worker(server.url, "t:", timing) for _ in range(count)]
    readers = [Following(await worker.open(stream)) for worker in made]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.task.cancel()
        for worker in made:
            await worker.store.aclose()


def whole(events: list[bytes]) -> bool:
    """Events from the first on, none missing and none twice."""
    return events == [event(n) for n in range(1, len(events) + 1)]


@pytest.mark.parametrize("speed", ["fast", pytest.param("real", marks=pytest.mark.soak)])
async def test_the_stream_of_a_killed_worker_is_closed_once_and_keeps_what_it_had(own: RedisServer, speed: str):
    timing = FAST if speed == "fast" else Timing()
    async with producing(own, speed) as process, reading(own, process.stream, 3, timing) as readers:
        await until(lambda: all(len(reader.events) > 200 for reader in readers))
        had = [len(reader.events) for reader in readers]
        process.signal(signal.SIGKILL)
        killed = time.monotonic()
        ends = [await reader.end(20) for reader in readers]
        took = time.monotonic() - killed
        assert all(map(whole, ends))
        assert len({len(events) for events in ends}) == 1
        assert len(ends[0]) >= max(had)
        assert {reader.outcome for reader in readers} == {Outcome.INTERRUPTED}
        assert took <= timing.lease + 3 * timing.beat + 0.5
        assert took <= 15 or speed == "fast"
        entries = own.run("XRANGE", f"t:{{{process.stream}}}:log", "2-0", "+")
        assert isinstance(entries, list)
        assert len(entries) == 1, "exactly one end"


async def test_a_worker_that_is_paused_past_its_lease_is_fenced_off_when_it_wakes(own: RedisServer):
    async with producing(own, "fast") as process, reading(own, process.stream, 2, FAST) as readers:
        await until(lambda: all(len(reader.events) > 100 for reader in readers))
        process.signal(signal.SIGSTOP)
        ends = [await reader.end(20) for reader in readers]
        assert {reader.outcome for reader in readers} == {Outcome.INTERRUPTED}
        assert all(map(whole, ends))
        process.signal(signal.SIGCONT)
        woken = time.monotonic()
        assert await process.says() == "closed interrupted"
        assert time.monotonic() - woken < 2
    async with reading(own, process.stream, 1, FAST) as (late,):
        assert await late.end() == ends[0], "nothing was added by the one who woke"


async def test_an_app_that_blocks_its_loop_is_not_taken_for_dead(own: RedisServer):
    async with producing(own, "fast") as process, reading(own, process.stream, 2, FAST) as readers:
        await until(lambda: all(len(reader.events) > 100 for reader in readers))
        process.tell(f"block {2 * FAST.lease}")
        assert await process.says() == "unblocked"
        seen = len(readers[0].events)
        await until(lambda: all(len(reader.events) > seen + 100 for reader in readers))
        process.tell("end")
        ends = [await reader.end() for reader in readers]
        assert {reader.outcome for reader in readers} == {Outcome.DONE}
        assert all(map(whole, ends))


async def test_a_short_pause_costs_nothing(own: RedisServer):
    async with producing(own, "fast") as process, reading(own, process.stream, 2, FAST) as readers:
        await until(lambda: all(len(reader.events) > 100 for reader in readers))
        process.signal(signal.SIGSTOP)
        await asyncio.sleep(FAST.lease / 3)
        process.signal(signal.SIGCONT)
        seen = len(readers[0].events)
        await until(lambda: all(len(reader.events) > seen + 100 for reader in readers))
        process.tell("end")
        assert all([whole(await reader.end()) for reader in readers])
