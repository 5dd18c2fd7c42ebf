"""What expires, what is refused, what goes first: a store keeps nothing without a cap and a time to live."""

from __future__ import annotations

import asyncio

import pytest

from streamware.exceptions import StoreFull
from streamware.stores.base import Log, Outcome, Tombstone
from tests.stores.worlds import BOUNDED, CLOCKED, Build, World, head, read, until, waiting

clocked = pytest.mark.parametrize("kind", CLOCKED, ids=lambda kind: kind.name)
bounded = pytest.mark.parametrize("kind", BOUNDED, ids=lambda kind: kind.name)


async def finished(world: World, size: int = 100, account: str = "client:a") -> Log:
    log = await world.log(account=account)
    log.append(b"x" * size)
    log.close(Outcome.DONE)
    return log


async def kept(world: World, logs: list[Log]) -> list[bool]:
    found = [await world.store.open(log.stream) for log in logs]
    return [log is not None and not isinstance(log, Tombstone) for log in found]


# -- time


@clocked
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_an_expired_log_leaves_a_tombstone_and_that_expires_too(build: Build, outcome: Outcome) -> None:
    world = build(ttl=300, tombstone_ttl=1000)
    log = await world.store.create(world.stream(), head(owner="principal:x"), window=1000)
    log.append(b"1\n\n")
    log.append(b"2\n\n")
    log.close(outcome)
    await world.stored()
    await world.clock.advance(299)
    assert await kept(world, [log]) == [True]
    await world.clock.advance(2)
    assert await world.store.open(log.stream) == Tombstone("principal:x", "/chat", "POST", outcome, 2)
    assert await world.store.stop(log.stream) is True
    await world.clock.advance(997)
    assert await world.store.open(log.stream) is not None
    await world.clock.advance(2)
    assert await world.store.open(log.stream) is None
    assert await world.store.stop(log.stream) is False


@clocked
async def test_a_running_log_never_expires(build: Build) -> None:
    world = build(ttl=1, tombstone_ttl=1)
    log = await world.log()
    log.append(b"1\n\n")
    await world.clock.advance(100_000)
    assert await kept(world, [log]) == [True]


@clocked
async def test_a_reader_reads_on_in_a_log_that_expires_under_it(build: Build) -> None:
    world = build(ttl=1)
    log = await finished(world)
    reader = log.reader(0)
    await world.clock.advance(2)
    batch = await read(reader)
    assert (list(batch.events), (batch.outcome or (await read(reader)).outcome)) == ([b"x" * 100], Outcome.DONE)
    reader.close()


@clocked
async def test_nothing_is_left_once_all_has_expired(build: Build) -> None:
    world = build(ttl=300, tombstone_ttl=1000)
    for turn in range(20):
        log = await world.log(account=f"client:{turn % 3}")
        await world.store.claim(f"key {turn}", b"body", log.stream)
        await world.store.settle(f"key {turn}", log.stream, True)
        reader = log.reader(0)
        log.append(b"x" * 10_000)
        await read(reader)
        reader.close()
        if turn % 5:
            log.close(Outcome.DONE)
        else:
            await world.store.forget(log.stream)
        await world.clock.advance(turn)
    await world.clock.advance(2000)
    await until(lambda: world.clock.timers == 0)  # by timers alone, without anybody asking


# -- room


@bounded
async def test_a_store_full_of_running_logs_refuses_another(build: Build) -> None:
    world = build(max_bytes=50_000, max_log_bytes=10_000)
    for _ in range(5):
        log = await world.log()
        while log.append(b"x" * 500):
            pass
    with pytest.raises(StoreFull):
        await world.log()


@bounded
async def test_what_a_refused_log_would_have_held_is_not_charged(build: Build) -> None:
    world = build(max_bytes=10_000, max_log_bytes=10_000)
    log = await world.log()
    while log.append(b"x" * 500):
        pass
    for _ in range(10):
        with pytest.raises(StoreFull):
            await world.log()
    await world.store.forget(log.stream)
    again = await world.log()
    while again.append(b"x" * 500):
        pass
    assert again.last >= 20


@bounded
async def test_finished_logs_go_first_the_oldest_before_the_others(build: Build) -> None:
    world = build(max_bytes=50_000, max_log_bytes=10_000)
    done = [await finished(world, 9000) for _ in range(4)]
    assert await kept(world, done) == [True] * 4
    log = await world.log()
    log.append(b"x" * 9000)
    assert await kept(world, done) == [True] * 4
    another = await world.log()
    another.append(b"x" * 9000)
    assert await kept(world, done) == [False, True, True, True]
    tombstone = await world.store.open(done[0].stream)
    assert isinstance(tombstone, Tombstone)
    assert (tombstone.outcome, tombstone.last) == (Outcome.DONE, 1)
    third = await world.log()
    third.append(b"x" * 9000)
    assert await kept(world, done) == [False, False, True, True]
    assert (log.first, another.first, third.first) == (1, 1, 1)


@bounded
async def test_one_account_cannot_take_more_than_its_share(build: Build) -> None:
    world = build(max_bytes=100_000, max_log_bytes=10_000, owner_share=0.3)
    greedy = []
    with pytest.raises(StoreFull):
        while True:
            log = await world.log(account="greedy")
            greedy.append(log)
            while log.append(b"x" * 500):
                pass
    assert 3 <= len(greedy) <= 4
    modest = await world.log(account="modest")
    while modest.append(b"x" * 500):
        pass
    assert modest.last >= 20, "another has its whole capacity all the same"


@bounded
async def test_an_account_over_its_share_loses_its_own_finished_logs_not_others(build: Build) -> None:
    world = build(max_bytes=100_000, max_log_bytes=10_000, owner_share=0.3)
    others = [await finished(world, 9000, "other") for _ in range(2)]
    own = [await finished(world, 9000, "greedy") for _ in range(10)]
    assert await kept(world, others) == [True, True]
    still = await kept(world, own)
    assert still == sorted(still), "the oldest went first"
    assert 2 <= sum(still) <= 3


@bounded
async def test_a_full_store_slows_a_running_log_down_and_loses_nothing(build: Build) -> None:
    world = build(max_bytes=20_000, max_log_bytes=15_000)
    hog = await world.log()
    while hog.append(b"x" * 500):
        pass
    log = await world.log()
    events = []
    for n in range(30):
        event = b"%03d\n" % n * 125
        events.append(event)
        if not log.append(event):
            break
    assert len(events) < 30
    room = await waiting(log.room())
    reader = log.reader(0)
    assert list((await read(reader)).events) == events
    reading = await waiting(reader.read())
    assert await asyncio.wait_for(room, 5) is True
    log.append(b"more")
    assert list((await asyncio.wait_for(reading, 5)).events) == [b"more"]  # type: ignore[union-attr]


@bounded
@pytest.mark.parametrize("how", ["finished", "stopped", "forgotten"])
async def test_a_log_that_waits_for_room_in_a_full_store_is_woken_when_some_becomes_free(
    build: Build, how: str
) -> None:
    """Nobody reads it, so nothing else would ever wake it."""
    world = build(max_bytes=20_000, max_log_bytes=15_000)
    hog = await world.log()
    while hog.append(b"x" * 500):
        pass
    log = await world.log()
    while log.append(b"x" * 500):
        pass
    room = await waiting(log.room())
    if how == "finished":
        hog.close(Outcome.DONE)
    elif how == "stopped":
        await world.store.stop(hog.stream)
    else:
        await world.store.forget(hog.stream)
    assert await asyncio.wait_for(room, 5) is True
    assert log.append(b"x" * 500) is True
    assert log.first == 1


@bounded
async def test_many_streams_come_and_go_within_the_bounds(build: Build) -> None:
    world = build(max_bytes=100_000, max_log_bytes=20_000, ttl=1000)
    for turn in range(200):
        log = await world.log(account=f"client:{turn % 7}")
        for _ in range(turn % 40):
            log.append(b"x" * 400)
        log.close(Outcome.DONE)
        await world.clock.advance(1)
    assert await kept(world, [log]) == [True], "there was room for each of them"
