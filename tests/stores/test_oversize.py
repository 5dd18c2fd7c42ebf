"""What live readers get that no log keeps: asides, and the pieces of events that are too large."""

from __future__ import annotations

import asyncio

from streamware.stores.base import Outcome
from streamware.testing import settle
from tests.stores.worlds import Build, World, read, waiting

# -- asides


async def test_an_aside_reaches_connected_readers_once_and_nobody_later(world: World) -> None:
    log = await world.log()
    one, other = log.reader(0), log.reader(0)
    pending = await waiting(one.read())
    log.aside(b": ping\n")
    batch = await asyncio.wait_for(pending, 5)
    assert batch is not None
    assert (batch.aside, list(batch.events), batch.last, batch.gap) == (b": ping\n", [], 0, False)
    assert (await read(other)).aside == b": ping\n"
    assert log.last == 0
    late = await waiting(log.reader(0).read())
    log.append(b"1\n\n")
    assert (await asyncio.wait_for(late, 5)).aside == b""  # type: ignore[union-attr]
    assert (await read(one)).aside == b""


async def test_an_aside_goes_out_behind_the_events_read_with_it(world: World) -> None:
    log = await world.log()
    reader = log.reader(0)
    log.append(b"1\n\n")
    log.aside(b": ping\n")
    log.append(b"2\n\n")
    batch = await read(reader)
    assert (list(batch.events), batch.aside) == ([b"1\n\n", b"2\n\n"], b": ping\n")


async def test_asides_are_bounded_for_a_reader_that_does_not_keep_up(world: World) -> None:
    log = await world.log()
    reader = log.reader(0)
    for _ in range(10_000):
        log.aside(b": ping\n")
    batch = await read(reader)
    assert 0 < len(batch.aside) < 100_000
    assert batch.aside == b": ping\n" * (len(batch.aside) // 7)


# -- pieces


async def test_pieces_reach_the_readers_that_are_there_as_they_come(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    reader = log.reader(1)
    reading = await waiting(reader.read())
    passing = asyncio.ensure_future(log.pass_by(b"data: begin", False))
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (batch.aside, list(batch.events), batch.last, batch.gap) == (b"data: begin", [], 1, False)
    reading = asyncio.ensure_future(reader.read())
    await asyncio.wait_for(passing, 5)
    passing = asyncio.ensure_future(log.pass_by(b" end\nid: 2\n\n", True))
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (batch.aside, list(batch.events), batch.last, batch.gap) == (b" end\nid: 2\n\n", [], 2, False)
    assert (log.last, reader.position) == (2, 2)
    reading = await waiting(reader.read())
    await asyncio.wait_for(passing, 5)
    log.append(b"3\n\n")
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (list(batch.events), batch.last, batch.gap) == ([b"3\n\n"], 3, False)


async def test_a_large_event_leaves_its_seq_behind_and_a_replay_is_told_of_the_gap(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    await log.pass_by(b"whole", True)
    log.append(b"3\n\n")
    assert (log.first, log.last) == (1, 3)
    reader = log.reader(0)
    batches = [await read(reader)]
    while batches[-1].last < 3:
        batches.append(await read(reader))
    assert [event for batch in batches for event in batch.events] == [b"1\n\n", b"3\n\n"]
    gaps = [batch for batch in batches if batch.gap]
    assert [(batch.last - len(batch.events), batch.torn) for batch in gaps] == [(2, False)]
    behind = await read(log.reader(2))
    assert (list(behind.events), behind.gap) == ([b"3\n\n"], False)


async def test_whoever_joins_in_the_middle_of_a_large_event_meets_a_gap(world: World) -> None:
    log = await world.log()
    await log.pass_by(b"begin", False)
    reader = log.reader(0)
    reading = await waiting(reader.read())
    await log.pass_by(b"middle", False)
    await settle()
    assert not reading.done()
    await log.pass_by(b"end", True)
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (batch.gap, batch.torn, batch.last, batch.aside) == (True, False, 1, b"")


async def test_the_producer_waits_until_the_foremost_has_read_the_piece(world: World) -> None:
    log = await world.log()
    log.reader(0)  # reads nothing, and holds nobody back
    fast = log.reader(0)
    passing = await waiting(log.pass_by(b"begin", False))
    await read(fast)
    reading = asyncio.ensure_future(fast.read())
    await asyncio.wait_for(passing, 5)
    await settle()
    assert not reading.done()
    reading.cancel()


async def test_the_producer_does_not_wait_for_readers_that_leave(world: World) -> None:
    log = await world.log()
    reader = log.reader(0)
    passing = await waiting(log.pass_by(b"begin", False))
    reader.close()
    await asyncio.wait_for(passing, 5)
    await asyncio.wait_for(log.pass_by(b"end", True), 5)
    assert log.last == 1


async def test_a_stop_frees_the_producer_from_its_wait(world: World) -> None:
    log = await world.log()
    log.reader(0)
    passing = await waiting(log.pass_by(b"begin", False))
    await world.store.stop(log.stream)
    await asyncio.wait_for(passing, 5)
    await asyncio.wait_for(log.pass_by(b"end", True), 5)
    assert log.last == 0


async def test_an_event_without_end_that_nobody_reads_lets_others_run(world: World) -> None:
    log = await world.log()
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    task = asyncio.ensure_future(other())
    for _ in range(20):
        await log.pass_by(b"x", False)
    assert ran
    await task


async def test_a_log_that_ends_within_a_large_event_says_that_it_is_torn(world: World) -> None:
    log = await world.log()
    began, waits = log.reader(0), log.reader(0)
    passing = asyncio.ensure_future(log.pass_by(b"begin", False))
    assert (await read(began)).aside == b"begin"
    log.close(Outcome.FAILED)
    await passing
    batch = await read(began)
    assert (batch.outcome, batch.torn) == (Outcome.FAILED, True)
    batch = await read(waits)  # had not begun to read it: it may get the beginning, and is told, or nothing of it
    if batch.aside:
        batch = await read(waits)
        assert batch.torn
    assert batch.outcome is Outcome.FAILED
    late = await read(log.reader(0))
    assert (late.outcome, late.torn) == (Outcome.FAILED, False)


async def test_a_reader_cut_off_in_the_middle_is_told_that_the_event_is_torn(world: World) -> None:
    log = await world.log(window=100)
    slow, fast = log.reader(0), log.reader(0)
    await _pass(log, fast, b"begin", False)
    assert (await read(slow)).aside == b"begin"
    for _ in range(10):
        await _pass(log, fast, b"x" * 60, False)
    await _pass(log, fast, b"end", True)
    log.append(b"2\n\n")
    batch = await read(slow)
    assert (batch.gap, batch.torn, batch.aside) == (True, True, b"")
    assert fast.position == 1


async def test_a_reader_a_little_behind_gets_large_events_whole_and_in_their_place(world: World) -> None:
    """Pieces of the second must not mix with those of the first, nor with the events between them."""
    log = await world.log(window=1000)
    slow, fast = log.reader(0), log.reader(0)
    log.append(b"1\n\n")
    await read(fast)
    for piece, last in ((b"<2a>", False), (b"<2b>", True)):
        await _pass(log, fast, piece, last)
    log.append(b"3\n\n")
    await read(fast)
    for piece, last in ((b"<4a>", False), (b"<4b>", True)):
        await _pass(log, fast, piece, last)
    log.append(b"5\n\n")
    seen = b""
    while slow.position < 5:
        batch = await read(slow)
        assert not batch.gap
        seen += b"".join(batch.events) + batch.aside
    assert seen == b"1\n\n<2a><2b>3\n\n<4a><4b>5\n\n"


async def test_an_aside_never_lands_within_a_large_event(world: World) -> None:
    log = await world.log(window=1000)
    slow, fast = log.reader(0), log.reader(0)
    log.aside(b": ping\n")
    await _pass(log, fast, b"begin ", False)
    await _pass(log, fast, b"end", True)
    seen = b""
    while slow.position < 1:
        seen += (await read(slow)).aside
    assert seen in (b": ping\nbegin end", b"begin end: ping\n")


async def test_a_torn_event_is_told_even_where_its_seq_was_trimmed(build: Build) -> None:
    world = build(max_log_events=4)
    log = await world.log(window=100)
    slow, fast = log.reader(0), log.reader(0)
    await _pass(log, fast, b"begin", False)
    assert (await read(slow)).aside == b"begin"
    await _pass(log, fast, b"x" * 101, False)
    await _pass(log, fast, b"x" * 101, False)
    await _pass(log, fast, b"end", True)
    for n in range(2, 10):
        log.append(b"%d\n\n" % n)
        await read(fast)
        await world.stored()
    assert log.first > 2
    batch = await read(slow)
    assert (batch.gap, batch.torn) == (True, True)
    batch = await read(log.reader(log.last - 1))
    assert (batch.gap, batch.torn) == (False, False)


async def _pass(log, reader, piece: bytes, last: bool) -> None:  # type: ignore[no-untyped-def]
    """Pass ``piece`` by while ``reader`` keeps up."""
    passing = asyncio.ensure_future(log.pass_by(piece, last))
    await settle()
    while not passing.done():
        await read(reader)
        reading = asyncio.ensure_future(reader.read())
        await settle()
        assert not reading.done()
        reading.cancel()
        await settle()
    await passing
