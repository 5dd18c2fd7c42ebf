"""Runs at random: a stream begins on one worker, its reader is cut at any event, reads on at another, and stops it from
there. Every one of them is exact."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from streamware.stores.base import Outcome, ProducerLog
from tests.redis_server import RedisServer
from tests.stores.redis.stores import Worker, workers

AT_ONCE = 20


@pytest.mark.parametrize("runs", [200, pytest.param(1000, marks=pytest.mark.soak)])
async def test_a_stream_is_read_on_and_stopped_at_another_worker(own: RedisServer, runs: int):
    seed = random.randrange(10**6)
    print("seed", seed)
    async with workers(own.url, "t:", 3) as fleet:
        turns = asyncio.Semaphore(AT_ONCE)
        late: list[float] = []

        async def turn(n: int) -> None:
            async with turns:
                late.append(await asyncio.wait_for(run(random.Random(seed + n), fleet), 30))

        await asyncio.gather(*map(turn, range(runs)))
        assert max(late) < 1.0, "a stop lands within a second"


async def run(chance: random.Random, fleet: list[Worker]) -> float:
    """One run; how long the stop took to arrive."""
    a, b, c = chance.sample(fleet, 3)
    log = await a.begin()
    stopped = asyncio.Event()
    log.on_closed = lambda outcome: stopped.set()
    sent: list[bytes] = []
    producer = asyncio.ensure_future(produce(chance, log, sent))
    seen: list[bytes] = []
    for worker in chance.choices([a, b, c], k=chance.randrange(1, 5)):
        await read_some(worker, log.stream, seen, chance.choice([0, 1, 1, 3, 10, 40]))
    reader = await b.open(log.stream, len(seen))
    asked = time.monotonic()
    assert await b.store.stop(log.stream) is True
    await asyncio.wait_for(stopped.wait(), 5)
    took = time.monotonic() - asked
    await producer
    outcome = None
    while outcome is None:
        batch = await reader.read()
        assert batch is not None
        assert not batch.gap
        seen += batch.events
        outcome = batch.outcome
    reader.close()
    assert (outcome, log.outcome) == (Outcome.STOPPED, Outcome.STOPPED)
    assert seen == sent, "none lost, none twice, in order"
    again: list[bytes] = []
    await read_some(c, log.stream, again, len(sent))
    assert again == sent
    return took


async def produce(chance: random.Random, log: ProducerLog, sent: list[bytes]) -> None:
    while log.outcome is None:
        for _ in range(chance.choice([1, 1, 2, 5, 20])):
            event = b"data: %d %b\n\n" % (len(sent) + 1, b"x" * chance.choice([5, 50, 500, 5000]))
            if log.append(event):
                sent.append(event)
            elif log.outcome is None:
                sent.append(event)
                await log.room()
            else:
                return
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.01]))


async def read_some(worker: Worker, stream: str, seen: list[bytes], count: int) -> None:
    """Read on behind what was ``seen``, until there are ``count`` more, and drop the connection at just that event."""
    reader = await worker.open(stream, len(seen))
    wanted = len(seen) + count
    while len(seen) < wanted:
        batch = await reader.read()
        assert batch is not None
        assert not batch.gap
        seen += batch.events[: wanted - len(seen)]
        if batch.outcome is not None:
            break
    reader.close()
