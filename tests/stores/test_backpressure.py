"""How far a producer may be ahead: of its foremost reader by the window, by the capacity where nobody reads."""

from __future__ import annotations

import asyncio

from streamware.stores.base import Outcome
from streamware.testing import settle
from tests.stores.worlds import Build, World, read, waiting

EVENT = b"x" * 100


async def test_append_is_false_at_window_bytes_ahead_of_the_only_reader(world: World) -> None:
    log = await world.log(window=1000)
    log.reader(0)
    assert [log.append(EVENT) for _ in range(10)] == [True] * 9 + [False]
    assert log.last == 10, "it was taken all the same"
    assert log.append(EVENT) is False
    assert log.last == 11


async def test_what_was_read_counts_as_sent_only_when_the_reader_reads_on(world: World) -> None:
    log = await world.log(window=1000)
    reader = log.reader(0)
    while log.append(EVENT):
        pass
    room = await waiting(log.room())
    await read(reader)
    await settle()
    assert not room.done(), "the send of what was read may still be under way"
    reading = await waiting(reader.read())
    assert await asyncio.wait_for(room, 5) is True
    reading.cancel()


async def test_a_slow_second_reader_never_holds_back(world: World) -> None:
    log = await world.log(window=1000)
    log.reader(0)  # reads nothing
    fast = log.reader(0)
    for _ in range(200):
        if not log.append(EVENT):
            room = asyncio.ensure_future(log.room())
            await read(fast)
            reading = asyncio.ensure_future(fast.read())
            assert await asyncio.wait_for(room, 5) is True
            reading.cancel()
            await settle()
    assert log.last == 200


async def test_a_reader_that_joins_ahead_is_the_foremost(world: World) -> None:
    log = await world.log(window=1000)
    log.reader(0)
    for _ in range(10):
        log.append(EVENT)
    room = await waiting(log.room())
    ahead = log.reader(9)
    assert await asyncio.wait_for(room, 5) is True
    reading = asyncio.ensure_future(ahead.read())
    assert list((await reading).events) == [EVENT]  # type: ignore[union-attr]
    assert [log.append(EVENT) for _ in range(9)] == [True] * 8 + [False]


async def test_when_the_foremost_leaves_the_next_one_counts(world: World) -> None:
    log = await world.log(window=1000)
    slow, fast = log.reader(0), log.reader(0)
    for _ in range(9):
        log.append(EVENT)
    assert len((await read(slow)).events) == 9, "read, but not yet sent"
    await read(fast)
    (await waiting(fast.read())).cancel()
    assert log.append(EVENT) is True
    fast.close()
    assert log.append(EVENT) is False
    assert not (await waiting(log.room())).done()


async def test_when_the_last_reader_leaves_only_the_capacity_counts(world: World) -> None:
    log = await world.log(window=1000)
    reader = log.reader(0)
    for _ in range(20):
        log.append(EVENT)
    room = await waiting(log.room())
    reader.close()
    assert await asyncio.wait_for(room, 5) is True
    assert all(log.append(EVENT) for _ in range(20))


async def test_room_is_there_at_once_where_nobody_is_behind(world: World) -> None:
    log = await world.log(window=1000)
    assert await asyncio.wait_for(log.room(), 5) is True


async def test_a_closed_log_wakes_who_waits_for_room(world: World) -> None:
    log = await world.log(window=10)
    log.reader(0)
    log.append(EVENT)
    room = await waiting(log.room())
    await world.store.stop(log.stream)
    assert await asyncio.wait_for(room, 5) is False


async def test_one_waiter_that_gives_up_does_not_take_another_with_it(world: World) -> None:
    """An app may send from several tasks, and give up one of those sends."""
    log = await world.log(window=10)
    reader = log.reader(0)
    log.append(EVENT)
    one, other = await waiting(log.room()), await waiting(log.room())
    one.cancel()
    await settle()
    assert not other.done()
    await read(reader)
    reading = await waiting(reader.read())
    assert await asyncio.wait_for(other, 5) is True
    reading.cancel()


# -- the capacity


async def test_with_nobody_reading_the_producer_waits_at_the_capacity_in_bytes(build: Build) -> None:
    log = await build(max_log_bytes=1000).log()
    assert [log.append(EVENT) for _ in range(11)] == [True] * 10 + [False]
    await waiting(log.room())
    assert log.first == 1, "nothing that nobody was sent is trimmed"
    assert list((await read(log.reader(0))).events) == [EVENT] * 11


async def test_with_nobody_reading_the_producer_waits_at_the_capacity_in_events(build: Build) -> None:
    log = await build(max_log_events=10).log()
    assert [log.append(b"1\n\n") for _ in range(11)] == [True] * 10 + [False]
    room = await waiting(log.room())
    assert log.first == 1
    reader = log.reader(0)
    await read(reader)
    reading = await waiting(reader.read())
    assert await asyncio.wait_for(room, 5) is True
    assert log.first > 1
    reading.cancel()


async def test_events_too_large_to_keep_count_as_events_of_the_log(build: Build) -> None:
    log = await build(max_log_events=4).log()
    assert log.append(b"1\n\n") is True
    for _ in range(4):
        await log.pass_by(b"large", True)
    assert log.append(b"6\n\n") is False
    await waiting(log.room())


async def test_a_log_below_its_capacity_keeps_what_was_sent(build: Build) -> None:
    log = await build(max_log_bytes=5000).log(window=10**9)
    reader = log.reader(0)
    for _ in range(50):
        log.append(EVENT)
        await read(reader)
    assert log.first == 1


async def test_only_what_was_sent_is_trimmed_and_whoever_comes_for_it_is_told(build: Build) -> None:
    world = build(max_log_bytes=1000)
    log = await world.log(window=10**9)
    events = [b"%04d" % n * 25 for n in range(1, 31)]
    fast = log.reader(0)
    for event in events[:8]:
        log.append(event)
    await read(fast)
    for event in events[8:14]:
        log.append(event)
    assert log.first == 1, "what was read may not have been sent"
    await world.stored()
    assert len((await read(fast)).events) == 6, "to read on is to say that the first 8 were sent"
    await world.stored()
    log.append(events[14])
    assert 1 < log.first <= 9
    await world.stored()
    batch = await read(log.reader(0))
    assert batch.gap is True
    assert batch.last - len(batch.events) == log.first - 1
    assert list(batch.events) == events[log.first - 1 : 15]
    batch = await read(log.reader(log.first - 1))
    assert (batch.gap, list(batch.events)) == (False, events[log.first - 1 : 15])


async def test_a_slow_reader_is_told_of_what_was_trimmed_under_it(build: Build) -> None:
    world = build(max_log_bytes=1000)
    log = await world.log(window=10**9)
    slow, fast = log.reader(0), log.reader(0)
    log.append(EVENT)
    assert list((await read(slow)).events) == [EVENT]
    for _ in range(50):
        log.append(EVENT)
        await read(fast)
        await world.stored()
    batch = await read(slow)
    assert batch.gap is True
    assert batch.last == 51
    assert batch.last - len(batch.events) == log.first - 1


async def test_a_log_that_is_trimmed_to_nothing_tells_the_gap(build: Build) -> None:
    world = build(max_log_bytes=1000)
    log = await world.log(window=10**9)
    fast, slow = log.reader(0), log.reader(0)
    for _ in range(20):
        log.append(b"x" * 2000)
        await read(fast)
        await world.stored()
        (await waiting(fast.read())).cancel()
        assert await asyncio.wait_for(log.room(), 5) is True
    assert (log.first, log.last) == (21, 20)
    log.close(Outcome.DONE)
    await world.stored()
    batch = await read(slow)
    assert (batch.gap, list(batch.events), batch.last) == (True, [], 20)
    assert batch.outcome is Outcome.DONE
