"""What shared stores promise of several workers: here two stores on one back end, each with its own lease."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from streamware.stores.base import Claim, Log, Outcome, Tombstone
from streamware.stores.remote_log import RemoteLog
from streamware.testing import FakeClock, settle
from tests.stores.worlds import SHARED, Build, StoreKind, World, head, read, read_all, until, waiting

pytestmark = pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.name)


@dataclass
class Pair:
    """Two workers."""

    a: World
    b: World

    async def at_b(self, stream: str) -> Log:
        """The log as worker B sees it."""
        found = await self.b.store.open(stream)
        assert isinstance(found, RemoteLog)
        return found


@pytest.fixture
async def pair(build: Build) -> Pair:
    a = build()
    b = build(place=a.place)
    await a.store.start()
    await b.store.start()
    return Pair(a, b)


async def test_a_log_is_known_elsewhere_as_soon_as_it_is_announced(pair: Pair) -> None:
    log = await pair.a.log()
    found = await pair.at_b(log.stream)
    assert (found.stream, found.head, found.first, found.last, found.outcome) == (log.stream, head(), 1, 0, None)
    assert found.max_bytes == log.max_bytes


async def test_the_two_have_one_tag(pair: Pair) -> None:
    assert pair.a.store.tag == pair.b.store.tag


async def test_what_was_written_is_replayed_elsewhere_and_what_comes_follows(pair: Pair) -> None:
    log = await pair.a.log()
    for n in range(1, 6):
        log.append(b"%d\n\n" % n)
    await pair.a.stored()
    reader = (await pair.at_b(log.stream)).reader(2)
    assert (await read(reader)).events == [b"3\n\n", b"4\n\n", b"5\n\n"]
    reading = await waiting(reader.read())
    log.append(b"6\n\n")
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (list(batch.events), batch.last, batch.gap) == ([b"6\n\n"], 6, False)
    reading = await waiting(reader.read())
    log.close(Outcome.DONE)
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (batch.events, batch.last, batch.outcome) == ((), 6, Outcome.DONE)
    reader.close()


async def test_a_log_that_has_ended_is_read_from_the_store_in_both(pair: Pair) -> None:
    log = await pair.a.log()
    events = [b"event %d\n\n" % n for n in range(1, 1001)]
    for event in events:
        log.append(event)
    log.unfinished = True
    log.close(Outcome.FAILED)
    await pair.a.stored()
    for world in (pair.a, pair.b):
        found = await world.store.open(log.stream)
        assert isinstance(found, RemoteLog)
        assert (found.first, found.last, found.outcome, found.unfinished) == (1, 1000, Outcome.FAILED, True)
        for after in (0, 1, 500, 999, 1000):
            assert await read_all(found.reader(after)) == (events[after:], Outcome.FAILED)
    assert len(pair.a.store) == 0, "nothing of it is held in memory"  # type: ignore[arg-type]


async def test_large_logs_come_in_pages(pair: Pair) -> None:
    log = await pair.a.log(window=10**9)
    events = [b"%04d" % n * 500 for n in range(45)]
    for event in events:
        log.append(event)
    await pair.a.stored()
    reader = (await pair.at_b(log.stream)).reader(0)
    seen: list[bytes] = []
    while len(seen) < len(events):
        batch = await read(reader)
        assert 0 < sum(map(len, batch.events)) <= 64 * 1024
        seen += batch.events
    assert seen == events
    reader.close()


async def test_an_event_too_large_to_keep_is_a_gap_elsewhere(pair: Pair) -> None:
    log = await pair.a.log()
    log.append(b"1\n\n")
    await log.pass_by(b"large", True)
    log.append(b"3\n\n")
    await pair.a.stored()
    reader = (await pair.at_b(log.stream)).reader(0)
    assert (await read(reader)).events == [b"1\n\n"]
    batch = await read(reader)
    assert (list(batch.events), batch.last, batch.gap) == ([], 2, True)
    assert (await read(reader)).events == [b"3\n\n"]
    reading = await waiting(reader.read())
    await log.pass_by(b"large", True)
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (list(batch.events), batch.last, batch.gap) == ([], 4, True)
    reader.close()


async def test_a_reader_elsewhere_that_is_ahead_waits_for_the_log(pair: Pair) -> None:
    log = await pair.a.log()
    reader = (await pair.at_b(log.stream)).reader(2)
    reading = await waiting(reader.read())
    log.append(b"1\n\n")
    log.append(b"2\n\n")
    await pair.a.stored()
    await settle()
    assert not reading.done()
    log.append(b"3\n\n")
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (list(batch.events), batch.last) == ([b"3\n\n"], 3)
    reader.close()


async def test_a_reader_ahead_of_a_log_that_ends_is_told_that_it_was_interrupted(pair: Pair) -> None:
    """It has seen what the store has lost."""
    log = await pair.a.log()
    reader = (await pair.at_b(log.stream)).reader(7)
    reading = await waiting(reader.read())
    log.append(b"1\n\n")
    log.close(Outcome.DONE)
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (list(batch.events), batch.last, batch.outcome) == ([], 7, Outcome.INTERRUPTED)
    reader.close()


async def test_reach_waits_for_an_event_of_another_worker(pair: Pair) -> None:
    log = await pair.a.log()
    found = await pair.at_b(log.stream)
    reaching = await waiting(found.reach(2, 1))
    log.append(b"1\n\n")
    log.append(b"2\n\n")
    assert await asyncio.wait_for(reaching, 5) is True
    assert found.last == 2
    assert await asyncio.wait_for(found.reach(1, 1), 5) is True
    late = await waiting(found.reach(3, 1))
    await pair.b.clock.advance(1.5)
    assert await asyncio.wait_for(late, 5) is False
    ended = await waiting(found.reach(3, 1))
    log.close(Outcome.STOPPED)
    assert await asyncio.wait_for(ended, 5) is False
    assert found.outcome is Outcome.STOPPED


async def test_closing_a_reader_elsewhere_wakes_its_read_and_leaves_the_others(pair: Pair) -> None:
    log = await pair.a.log()
    found = await pair.at_b(log.stream)
    one, other = found.reader(0), found.reader(0)
    reads = [await waiting(one.read()), await waiting(other.read())]
    one.close()
    one.close()
    assert await asyncio.wait_for(reads[0], 5) is None
    assert await one.read() is None
    assert not reads[1].done()
    log.append(b"1\n\n")
    assert (await asyncio.wait_for(reads[1], 5)).events == [b"1\n\n"]  # type: ignore[union-attr]
    other.close()


async def test_a_cancelled_read_elsewhere_loses_nothing(pair: Pair) -> None:
    log = await pair.a.log()
    reader = (await pair.at_b(log.stream)).reader(0)
    for n in range(1, 20):
        reading = asyncio.ensure_future(reader.read())
        if n % 2:
            log.append(b"%d\n\n" % n)
        await settle(n)
        reading.cancel()
        await settle()
        if not n % 2:
            log.append(b"%d\n\n" % n)
        batch = await read(reader) if reading.cancelled() else await reading
        assert batch is not None
        assert list(batch.events) == [b"%d\n\n" % n]
    reader.close()


async def test_thousands_that_come_at_once_all_have_their_turn(pair: Pair) -> None:
    log = await pair.a.log()
    log.append(b"1\n\n")
    await pair.a.stored()

    async def one() -> None:
        reader = (await pair.at_b(log.stream)).reader(0)
        batch = await asyncio.wait_for(reader.read(), 30)
        assert batch is not None
        assert batch.events == [b"1\n\n"]
        reader.close()

    await asyncio.gather(*(one() for _ in range(3000)))


# -- stop, forget, expiry


async def test_a_stop_elsewhere_stops_the_producer(pair: Pair) -> None:
    log = await pair.a.log()
    told: list[Outcome] = []
    log.on_closed = told.append
    log.append(b"1\n\n")
    await pair.a.stored()
    reader = (await pair.at_b(log.stream)).reader(0)
    assert await asyncio.wait_for(pair.b.store.stop(log.stream), 1) is True
    assert (told, log.outcome) == ([Outcome.STOPPED], Outcome.STOPPED)
    assert log.append(b"2\n\n") is False
    assert await read_all(reader) == ([b"1\n\n"], Outcome.STOPPED)
    assert await pair.b.store.stop(log.stream) is True
    assert await pair.b.store.stop(pair.b.stream()) is False
    assert told == [Outcome.STOPPED]


async def test_what_is_forgotten_is_unknown_elsewhere_and_not_taken_for_complete(pair: Pair) -> None:
    log = await pair.a.log()
    log.append(b"1\n\n")
    await pair.a.stored()
    reader = (await pair.at_b(log.stream)).reader(0)
    await read(reader)
    reading = await waiting(reader.read())
    await pair.a.store.forget(log.stream)
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert batch.outcome is Outcome.INTERRUPTED
    assert await pair.b.store.open(log.stream) is None
    reader.close()


async def test_an_expired_log_is_a_tombstone_elsewhere(build: Build, kind: StoreKind) -> None:
    if not kind.clocked:
        return
    a = build(ttl=10, tombstone_ttl=10)
    b = build(ttl=10, tombstone_ttl=10, place=a.place)
    log = await a.log()
    log.append(b"1\n\n")
    log.close(Outcome.DONE)
    await a.stored()
    await a.clock.advance(11)
    assert await b.store.open(log.stream) == Tombstone("", "/chat", "POST", Outcome.DONE, 1)
    await a.clock.advance(11)
    assert await b.store.open(log.stream) is None


async def test_a_reader_of_a_log_that_expires_under_it_is_not_left_waiting(build: Build, kind: StoreKind) -> None:
    if not kind.clocked:
        return
    a = build(ttl=10)
    b = build(ttl=10, place=a.place)
    log = await a.log(window=10**9)
    for n in range(30):
        log.append(b"%04d" % n * 1000)
    log.close(Outcome.DONE)
    await a.stored()
    found = await b.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    await read(reader)
    await a.clock.advance(11)
    events, outcome = await read_all(reader)
    assert outcome is Outcome.INTERRUPTED, "not all of it was read"
    assert len(events) < 30


# -- readers elsewhere


async def test_readers_elsewhere_count_as_readers(pair: Pair) -> None:
    log = await pair.a.log()
    told: list[int] = []
    log.on_readers = told.append
    found = await pair.at_b(log.stream)
    one = found.reader(0)
    await until(lambda: log.readers == 1)
    other = found.reader(0)
    await until(lambda: log.readers == 2)
    here = log.reader(0)
    assert log.readers == 3
    one.close()
    await until(lambda: log.readers == 2)
    here.close()
    other.close()
    await until(lambda: log.readers == 0)
    assert told == [1, 2, 3, 2, 1, 0]


async def test_a_producer_waits_for_the_foremost_reader_wherever_it_is(pair: Pair) -> None:
    log = await pair.a.log(window=1000)
    reader = (await pair.at_b(log.stream)).reader(0)
    await until(lambda: log.readers == 1)
    while log.append(b"x" * 100):
        pass
    assert log.last == 10
    room = await waiting(log.room())
    while reader.position < 10:
        await read(reader)
    reading = await waiting(reader.read())
    assert not room.done(), "what was read elsewhere is told now and then"
    await pair.b.clock.advance(0.5)
    assert await asyncio.wait_for(room, 5) is True
    assert log.append(b"x" * 100) is True
    reading.cancel()
    reader.close()


async def test_a_reader_that_joins_elsewhere_is_as_far_as_its_cursor(pair: Pair) -> None:
    """It waits for the next event, and must not hold back the producer of it."""
    log = await pair.a.log(window=1000)
    for _ in range(10):
        log.append(b"x" * 100)
    await pair.a.stored()
    behind = (await pair.at_b(log.stream)).reader(0)
    await until(lambda: log.readers == 1)
    room = await waiting(log.room())
    reader = (await pair.at_b(log.stream)).reader(10)
    assert await asyncio.wait_for(room, 5) is True
    reader.close()
    await until(lambda: log.readers == 1)
    await waiting(log.room())
    behind.close()


async def test_a_reader_elsewhere_that_gets_much_says_so_at_once(pair: Pair) -> None:
    log = await pair.a.log(window=64 * 1024)
    reader = (await pair.at_b(log.stream)).reader(0)
    await until(lambda: log.readers == 1)
    for _ in range(50):
        if not log.append(b"x" * 8000):
            room = asyncio.ensure_future(log.room())
            while not room.done():
                reading = asyncio.ensure_future(reader.read())
                await asyncio.wait([room, reading], return_when=asyncio.FIRST_COMPLETED, timeout=5)
                reading.cancel()
            assert await room is True
    reader.close()


async def test_what_was_sent_elsewhere_may_be_trimmed(build: Build) -> None:
    a = build(max_log_bytes=1000)
    b = build(max_log_bytes=1000, place=a.place)
    log = await a.log(window=10**9)
    found = await b.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    for _ in range(9):
        log.append(b"x" * 100)
    while reader.position < 9:
        await read(reader)
    reading = await waiting(reader.read())
    await b.clock.advance(0.5)
    await a.stored()
    await until(lambda: log._sent == 9)  # type: ignore[attr-defined]
    log.append(b"x" * 200)
    log.append(b"x" * 200)
    assert log.first > 1
    await a.stored()
    reading.cancel()
    reader.close()


async def test_readers_of_a_worker_that_falls_silent_are_forgotten(build: Build, clock: FakeClock) -> None:
    a = build()
    b = build(place=a.place)
    log = await a.log()
    told: list[int] = []
    log.on_readers = told.append
    found = await b.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    await until(lambda: log.readers == 1)
    for _ in range(10):  # as long as it says so now and then, it counts
        await clock.advance(5)
        await until(lambda: clock.now() - log._elsewhere[next(iter(log._elsewhere))].heard < 1)  # type: ignore[attr-defined]
    assert log.readers == 1
    b.store._vigil.end()  # type: ignore[attr-defined]  # as if its loop were stuck
    await clock.advance(16)
    await until(lambda: log.readers == 0)
    assert told == [1, 0]
    reader.close()


# -- claims


async def test_a_key_is_one_in_all_workers(pair: Pair) -> None:
    log = await pair.a.log()
    assert (await pair.a.store.claim("key", b"body", log.stream)).won
    assert await pair.b.store.claim("key", b"other", pair.b.stream()) == Claim(False, log.stream, b"body", False)
    waits = await waiting(pair.b.store.settled("key", 10))
    await pair.a.store.settle("key", log.stream, True)
    await soon(waits, pair.b.clock)
    assert await waits == Claim(False, log.stream, b"body", True)


async def test_a_key_that_is_freed_elsewhere_is_free(pair: Pair) -> None:
    stream = pair.a.stream()
    assert (await pair.a.store.claim("key", b"body", stream)).won
    waits = await waiting(pair.b.store.settled("key", 10))
    await pair.a.store.settle("key", stream, False)
    await soon(waits, pair.b.clock)
    assert await waits is None
    assert (await pair.b.store.claim("key", b"body", pair.b.stream())).won


async def test_of_claimers_in_both_exactly_one_wins(pair: Pair) -> None:
    for turn in range(10):
        claims = await asyncio.gather(
            *(world.store.claim(f"key {turn}", b"", world.stream()) for world in (pair.a, pair.b) * 5)
        )
        winners = [claim.stream for claim in claims if claim.won]
        assert len(winners) == 1
        assert {claim.stream for claim in claims} == set(winners)


# -- the end of a worker


async def test_a_worker_that_leaves_closes_its_logs_for_all(pair: Pair) -> None:
    running, ended = await pair.a.log(), await pair.a.log()
    running.append(b"1\n\n")
    ended.append(b"1\n\n")
    ended.close(Outcome.DONE)
    reader = (await pair.at_b(running.stream)).reader(0)
    await pair.a.store.aclose()
    assert await read_all(reader) == ([b"1\n\n"], Outcome.INTERRUPTED)
    assert (await pair.at_b(running.stream)).outcome is Outcome.INTERRUPTED
    assert (await pair.at_b(ended.stream)).outcome is Outcome.DONE


async def test_a_store_can_be_started_again(pair: Pair) -> None:
    log = await pair.a.log()
    log.append(b"1\n\n")
    log.close(Outcome.DONE)
    await pair.a.store.aclose()
    await pair.a.store.start()
    found = await pair.a.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    assert await read_all(found.reader(0)) == ([b"1\n\n"], Outcome.DONE)
    again = await pair.a.log()
    again.append(b"2\n\n")
    await pair.a.stored()
    assert (await read((await pair.at_b(again.stream)).reader(0))).events == [b"2\n\n"]


# -- the death of a worker: its lease is no longer renewed, as if its process had been stopped


@dataclass
class Dying:
    """Worker A dies when ``a.store._vigil`` ends; B and C look after what it leaves."""

    a: World
    b: World
    c: World

    def die(self) -> None:
        self.a.store._vigil.end()  # type: ignore[attr-defined]


@pytest.fixture
async def dying(build: Build) -> Dying:
    a = build(lease=0.6)
    b, c = build(place=a.place, lease=0.6), build(place=a.place, lease=0.6)
    for world in (a, b, c):
        await world.store.start()
    return Dying(a, b, c)


async def test_a_dead_workers_log_is_closed_as_interrupted_and_its_producer_fenced_off(dying: Dying) -> None:
    log = await dying.a.log()
    told: list[Outcome] = []
    log.on_closed = told.append
    log.append(b"1\n\n")
    await dying.a.stored()
    found = await dying.b.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    assert (await read(reader)).events == [b"1\n\n"]
    reading = await waiting(reader.read())
    dying.die()
    batch = await asyncio.wait_for(reading, 5)
    assert batch is not None
    assert (list(batch.events), batch.outcome) == ([], Outcome.INTERRUPTED)
    reader.close()
    assert told == [], "it does not know"
    log.append(b"2\n\n")
    await until(lambda: told)
    assert log.append(b"3\n\n") is False
    assert log.close(Outcome.DONE) is False
    await dying.a.stored()
    assert told == [Outcome.INTERRUPTED]
    for world in (dying.a, dying.b, dying.c):
        found = await world.store.open(log.stream)
        assert isinstance(found, RemoteLog)
        assert (found.last, found.outcome) == (1, Outcome.INTERRUPTED)
        assert await read_all(found.reader(0)) == ([b"1\n\n"], Outcome.INTERRUPTED)


async def test_an_end_that_comes_too_late_changes_nothing(dying: Dying) -> None:
    log = await dying.a.log()
    told: list[Outcome] = []
    log.on_closed = told.append
    dying.die()
    found = await dying.b.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    assert await asyncio.wait_for(found.ends(10**6), 5) is True
    assert log.close(Outcome.DONE) is True, "so much it knows"
    await dying.a.stored()
    for world in (dying.a, dying.b):
        found = await world.store.open(log.stream)
        assert isinstance(found, RemoteLog)
        assert (found.last, found.outcome) == (0, Outcome.INTERRUPTED)
    assert told == []


async def test_a_living_workers_logs_are_left_alone(dying: Dying) -> None:
    dead, alive = await dying.a.log(), await dying.b.log()
    dying.die()
    found = await dying.c.store.open(dead.stream)
    assert isinstance(found, RemoteLog)
    assert await asyncio.wait_for(found.ends(10**6), 5) is True
    await asyncio.sleep(0.5)
    assert alive.outcome is None
    alive.append(b"1\n\n")
    await dying.b.stored()
    assert alive.outcome is None


async def test_a_key_that_a_dead_worker_held_is_never_free_for_its_app_may_have_begun(dying: Dying) -> None:
    log = await dying.a.log()
    await dying.a.store.claim("settled", b"", log.stream)
    await dying.a.store.settle("settled", log.stream, True)
    stream = dying.a.stream()
    await dying.a.store.claim("starting", b"body", stream)
    dying.die()
    found = await dying.b.store.open(log.stream)
    assert isinstance(found, RemoteLog)
    assert await asyncio.wait_for(found.ends(10**6), 5) is True
    held = await dying.b.store.claim("settled", b"", dying.b.stream())
    assert (held.won, held.settled, held.abandoned) == (False, True, False)
    for _ in range(20):  # while who looks after the dead forgets the worker
        starting = await dying.b.store.claim("starting", b"body", dying.b.stream())
        assert (starting.won, starting.stream, starting.settled, starting.abandoned) == (False, stream, False, True)
        assert await dying.b.store.settled("starting", 5) == starting, "it is not waited for"
        await asyncio.sleep(0.05)


async def test_who_waits_for_a_key_whose_holder_dies_waits_no_more(dying: Dying) -> None:
    stream = dying.a.stream()
    await dying.a.store.claim("key", b"body", stream)
    waits = await waiting(dying.b.store.settled("key", 10**6))
    dying.die()
    await soon(waits, dying.b.clock)
    assert await waits == Claim(False, stream, b"body", False, abandoned=True)


async def test_of_a_worker_that_leaves_a_key_is_free_if_it_said_so_and_else_abandoned(dying: Dying) -> None:
    freed, kept = dying.a.stream(), dying.a.stream()
    await dying.a.store.claim("freed", b"body", freed)
    await dying.a.store.claim("kept", b"body", kept)
    await dying.a.store.settle("freed", freed, False)
    await dying.a.store.aclose()
    assert (await dying.b.store.claim("freed", b"body", dying.b.stream())).won
    abandoned = Claim(False, kept, b"body", False, abandoned=True)
    assert await dying.b.store.claim("kept", b"", dying.b.stream()) == abandoned


async def soon(future: asyncio.Future[object], clock: FakeClock) -> None:
    """Move the clock on, in real time too, until ``future`` is there."""
    async with asyncio.timeout(5):
        while not future.done():
            await clock.advance(0.1)
            await asyncio.sleep(0.005)
