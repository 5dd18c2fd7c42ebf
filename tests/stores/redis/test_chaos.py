"""Runs at random while the server cuts connections and stalls: a stream begins on one worker, is read over any number
of connections at others, and ends there or is stopped from one of them. Every one of them is exact all the same."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from streamware.exceptions import StoreFull, StoreUnavailable
from streamware.stores.base import Outcome, ProducerLog, Tombstone
from tests.redis_server import RedisServer
from tests.stores.redis.stores import Worker, workers

AT_ONCE = 15
T = TypeVar("T")


@pytest.mark.parametrize("runs", [60, pytest.param(1000, marks=pytest.mark.soak)])
async def test_cuts_and_stalls_cost_no_event(own: RedisServer, runs: int):
    seed = random.randrange(10**6)
    print("seed", seed)
    async with workers(own.url, "t:", 3) as fleet:
        turns = asyncio.Semaphore(AT_ONCE)

        async def turn(n: int) -> None:
            async with turns:
                await asyncio.wait_for(run(random.Random(seed + n), fleet), 50)

        harming = asyncio.ensure_future(harm(random.Random(seed), own))
        try:
            await asyncio.gather(*map(turn, range(runs)))
        finally:
            harming.cancel()
            await asyncio.wait([harming])
            own.resume()


async def harm(chance: random.Random, server: RedisServer) -> None:
    while True:
        await asyncio.sleep(chance.choice([0.02, 0.05, 0.2, 0.4]))
        if chance.random() < 0.9:
            await asyncio.to_thread(server.run, "CLIENT", "KILL", "TYPE", chance.choice(["normal", "pubsub"]))
        else:
            server.stall()
            try:
                await asyncio.sleep(chance.choice([0.05, 0.2, 0.7]))
            finally:
                server.resume()


async def insist(attempt: Callable[[], Awaitable[T]]) -> T:
    """As a client does that comes again."""
    give_up = time.monotonic() + 20
    while True:
        try:
            return await attempt()
        except (StoreUnavailable, StoreFull):
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)


async def run(chance: random.Random, fleet: list[Worker]) -> None:
    own = chance.choice(fleet)
    log = await insist(own.begin)
    sent: list[bytes] = []
    stops = chance.random() < 0.5
    producer = asyncio.ensure_future(produce(chance, log, sent, endless=stops))
    readers = [asyncio.ensure_future(follow(chance, fleet, log.stream)) for _ in range(chance.randrange(1, 4))]
    if stops:
        await asyncio.sleep(chance.random() * 0.3)
        assert await insist(lambda: chance.choice(fleet).store.stop(log.stream)) is True
    await producer
    ends = [await reader for reader in readers]
    others = [worker for worker in fleet if worker is not own]  # which know of it what was written, and no more
    found = await insist(lambda: chance.choice(others).store.open(log.stream))
    assert found is not None
    assert not isinstance(found, Tombstone)
    for seen, outcome in ends:
        if not stops:
            assert seen == sent, "none lost, none twice, in order"
            assert outcome is Outcome.DONE
        else:
            # A worker that cannot be reached for long enough is stopped without it: what it had not written is lost
            # then, and a client that it had given some of that is told, where it comes back to another.
            assert seen == sent[: len(seen)]
            assert len(seen) >= found.last
            assert outcome is Outcome.STOPPED or (outcome is Outcome.INTERRUPTED and len(seen) > found.last)
    assert log.outcome is (Outcome.STOPPED if stops else Outcome.DONE)


async def produce(chance: random.Random, log: ProducerLog, sent: list[bytes], *, endless: bool) -> None:
    count = chance.randrange(1, 400)
    while log.outcome is None and (endless or len(sent) < count):
        for _ in range(chance.choice([1, 1, 2, 5, 20])):
            event = b"data: %d %b\n\n" % (len(sent) + 1, b"x" * chance.choice([5, 50, 500]))
            room = log.append(event)
            if log.last == len(sent) + 1:
                sent.append(event)
            if not room and not await log.room():
                return
        await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
    log.close(Outcome.DONE)


async def follow(chance: random.Random, fleet: list[Worker], stream: str) -> tuple[list[bytes], Outcome]:
    """A client that is cut off again and again, and comes back at any worker."""
    seen: list[bytes] = []
    while True:
        try:
            reader = await chance.choice(fleet).open(stream, len(seen))
        except StoreUnavailable:
            await asyncio.sleep(0.02)
            continue
        try:
            for _ in range(chance.choice([1, 2, 5, 30])):
                batch = await reader.read()
                assert batch is not None
                assert not batch.gap
                seen += batch.events
                if batch.outcome is not None:
                    return seen, batch.outcome
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        finally:
            reader.close()
