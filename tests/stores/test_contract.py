"""What every store promises of its logs: seqs, outcomes, readers, waiting and waking."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from streamware.stores.base import LogReader, Outcome, Tombstone
from streamware.testing import settle
from tests.stores.worlds import World, head, read, until, waiting


async def test_a_new_log_is_empty_and_open(world: World) -> None:
    stream = world.stream()
    log = await world.store.create(stream, head(), window=1000)
    assert (log.stream, log.head, log.first, log.last, log.outcome, log.readers) == (stream, head(), 1, 0, None, 0)
    assert log.max_bytes > 0


async def test_seqs_run_from_1_without_holes(world: World) -> None:
    log = await world.log()
    for n in range(1, 20):
        assert log.append(b"event %d\n\n" % n) is True
        assert (log.first, log.last) == (1, n)
    batch = await read(log.reader(0))
    assert (list(batch.events), batch.last) == ([b"event %d\n\n" % n for n in range(1, 20)], 19)


async def test_open_finds_a_log_by_its_stream_and_nothing_by_another(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    found = await world.store.open(log.stream)
    assert found is not None
    assert not isinstance(found, Tombstone)
    assert (found.stream, found.head, found.last, found.outcome) == (log.stream, head(), 1, None)
    assert await world.store.open(world.stream()) is None


async def test_what_the_producer_says_of_an_unfinished_end_is_kept(world: World) -> None:
    log = await world.log()
    assert log.unfinished is False
    log.append(b"data: half")
    log.unfinished = True
    log.close(Outcome.DONE)
    found = await world.store.open(log.stream)
    assert found is not None
    assert not isinstance(found, Tombstone)
    assert found.unfinished is True


async def test_two_stores_do_not_share_a_tag(world: World) -> None:
    other = World(world.kind, world.clock, world.limits, world.place)
    assert (other.store.tag == world.store.tag) is world.kind.shared
    await other.store.aclose()


# -- the outcome


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_after_the_outcome_every_append_is_refused(world: World, outcome: Outcome) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    assert log.close(outcome) is True
    assert log.append(b"2\n\n") is False
    await log.pass_by(b"2\n\n", True)
    assert (log.last, log.outcome) == (1, outcome)
    assert await log.room() is False
    assert await read(log.reader(1)) == await read(log.reader(1))
    assert (await read(log.reader(1))).outcome is outcome


async def test_the_first_outcome_stays(world: World) -> None:
    for first, second in itertools.permutations(Outcome, 2):
        log = await world.log()
        assert log.close(first) is True
        assert log.close(second) is False
        assert await world.store.stop(log.stream) is True
        assert log.outcome is first


async def test_of_racing_closers_exactly_one_writes_the_outcome(world: World) -> None:
    for turn in range(20):
        log = await world.log()
        told: list[Outcome] = []
        log.on_closed = told.append

        async def close(log=log) -> bool:  # type: ignore[no-untyped-def]
            return log.close(Outcome.DONE)

        closers = [world.store.stop(log.stream), close(), world.store.stop(log.stream), close()]
        answers = await asyncio.gather(*(closers if turn % 2 else reversed(closers)))
        await settle()
        won = [
            answer for answer, turn_of in zip(answers, "scsc" if turn % 2 else "cscs", strict=True) if turn_of == "c"
        ]
        assert sum(won) == (log.outcome is Outcome.DONE)
        assert told == ([] if log.outcome is Outcome.DONE else [Outcome.STOPPED])


async def test_on_closed_is_called_once_for_closers_from_outside_only(world: World) -> None:
    told: list[Outcome] = []
    own, stopped, left = [await world.log() for _ in range(3)]
    for log in (own, stopped, left):
        log.on_closed = told.append
    own.close(Outcome.DONE)
    assert told == []
    await world.store.stop(stopped.stream)
    await world.store.stop(stopped.stream)
    await settle()
    assert told == [Outcome.STOPPED]
    await world.store.aclose()
    await settle()
    assert told == [Outcome.STOPPED, Outcome.INTERRUPTED]


async def test_a_stop_is_true_for_what_is_known_and_false_for_what_is_not(world: World) -> None:
    running, ended = await world.log(), await world.log()
    running.append(b"1\n\n")
    ended.close(Outcome.FAILED)
    assert await world.store.stop(running.stream) is True
    assert await world.store.stop(running.stream) is True
    assert await world.store.stop(ended.stream) is True
    assert await world.store.stop(world.stream()) is False
    await settle()
    assert (running.outcome, ended.outcome) == (Outcome.STOPPED, Outcome.FAILED)
    assert (await read(running.reader(0))).events == [b"1\n\n"]


async def test_closing_the_store_interrupts_its_open_logs_and_is_harmless_twice(world: World) -> None:
    running, ended = await world.log(), await world.log()
    ended.close(Outcome.DONE)
    reader = running.reader(0)
    pending = await waiting(reader.read())
    producer = await waiting(overfull(running).room())
    await world.store.aclose()
    await world.store.aclose()
    assert (running.outcome, ended.outcome) == (Outcome.INTERRUPTED, Outcome.DONE)
    assert await asyncio.wait_for(producer, 5) is False
    assert await asyncio.wait_for(pending, 5) is not None
    await until(lambda: world.clock.timers == 0)  # a round may be under way, whose calls have time-outs


async def test_starting_twice_is_harmless(world: World) -> None:
    log = await world.log()
    await world.store.start()
    assert await world.store.open(log.stream) is not None


# -- readers


async def test_on_readers_tells_how_many_there_are_at_every_change(world: World) -> None:
    log = await world.log()
    told: list[int] = []
    log.on_readers = told.append
    first, second = log.reader(0), log.reader(0)
    first.close()
    first.close()
    assert log.readers == 1
    second.close()
    await settle()
    assert told == [1, 2, 1, 0]
    assert log.readers == 0


async def test_a_reader_gets_what_is_behind_its_cursor_and_then_what_comes(world: World) -> None:
    log = await world.log()
    for n in range(1, 6):
        log.append(b"%d\n\n" % n)
    reader = log.reader(3)
    assert reader.position == 3
    batch = await read(reader)
    assert (list(batch.events), batch.last, batch.gap, batch.outcome) == ([b"4\n\n", b"5\n\n"], 5, False, None)
    assert reader.position == 5
    pending = await waiting(reader.read())
    log.append(b"6\n\n")
    log.append(b"7\n\n")
    later = await asyncio.wait_for(pending, 5)
    assert later is not None
    assert (list(later.events), later.last) == ([b"6\n\n", b"7\n\n"], 7)


async def test_the_outcome_comes_with_or_behind_the_last_events_and_stays(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    reader = log.reader(0)
    log.close(Outcome.DONE)
    seen = []
    outcome = None
    while outcome is None:
        batch = await read(reader)
        seen += batch.events
        outcome = batch.outcome
    assert (seen, outcome) == ([b"1\n\n"], Outcome.DONE)
    assert (await read(reader)).outcome is Outcome.DONE


async def test_a_waiting_read_is_woken_by_the_outcome(world: World) -> None:
    log = await world.log()
    pending = await waiting(log.reader(0).read())
    log.close(Outcome.FAILED)
    batch = await asyncio.wait_for(pending, 5)
    assert batch is not None
    assert (list(batch.events), batch.outcome) == ([], Outcome.FAILED)


async def test_closing_a_reader_wakes_its_read_and_leaves_the_others(world: World) -> None:
    log = await world.log()
    one, other = log.reader(0), log.reader(0)
    reads = [await waiting(one.read()), await waiting(other.read())]
    one.close()
    assert await asyncio.wait_for(reads[0], 5) is None
    assert await one.read() is None
    await settle()
    assert not reads[1].done()
    log.append(b"1\n\n")
    assert (await asyncio.wait_for(reads[1], 5)) is not None


async def test_a_cancelled_read_loses_nothing(world: World) -> None:
    log = await world.log()
    reader = log.reader(0)
    for n in range(1, 20):
        pending = await waiting(reader.read())
        if n % 2:
            log.append(b"%d\n\n" % n)
            pending.cancel()
            await settle()
            if not pending.cancelled():  # the event was faster
                assert list((await pending).events) == [b"%d\n\n" % n]  # type: ignore[union-attr]
                continue
        else:
            pending.cancel()
            await settle()
            log.append(b"%d\n\n" % n)
        assert list((await read(reader)).events) == [b"%d\n\n" % n]


class Given:
    """A sink that puts what it is given where its reader puts what it reads. ``willing``: it is ready."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.given = 0
        self.willing = True

    def ready(self) -> bool:
        return self.willing

    def give(self, event: bytes) -> bool | None:
        self.seen.append(event)
        self.given += 1
        return True

    async def follow(self, reader: LogReader) -> None:
        while (batch := await reader.read()) is not None:
            self.seen += batch.events
            if batch.outcome is not None:
                break


async def test_what_a_sink_was_given_is_not_read_again_and_all_else_is(world: World) -> None:
    log = await world.log(window=10**9)
    reader = log.reader(0)
    reader.sink = sink = Given()
    following = asyncio.ensure_future(sink.follow(reader))
    for turn in range(1, 200):
        await settle()
        log.append(b"%d\n\n" % turn)
        if turn % 5 == 0:  # more than one in a tick
            log.append(b"%d, too\n\n" % turn)
        if turn % 7 == 0:  # somebody else joins for a moment
            await settle()
            other = log.reader(turn)
            log.append(b"%d, for two\n\n" % turn)
            await settle()
            other.close()
        if turn % 11 == 0:
            await settle()
            following.cancel()
            await settle()
            log.append(b"%d, for nobody\n\n" % turn)
            following = asyncio.ensure_future(sink.follow(reader))
        sink.willing = turn % 3 > 0
    await world.stored()
    await settle()
    log.close(Outcome.DONE)
    await asyncio.wait_for(following, 5)
    again = Given()
    await asyncio.wait_for(again.follow(log.reader(0)), 5)
    assert sink.seen == again.seen
    if "durable" in world.kind.name:
        assert sink.given == 0, "what is in no store yet must not be delivered"
    elif not world.kind.shared:
        assert sink.given > 50, "the way that is tested was hardly taken"
    assert reader.position == log.last


async def test_a_sink_is_given_nothing_while_nobody_waits_for_its_reader(world: World) -> None:
    log = await world.log()
    reader = log.reader(0)
    reader.sink = sink = Given()
    pending = await waiting(reader.read())
    pending.cancel()
    await settle()
    log.append(b"1\n\n")
    assert sink.given == 0
    assert list((await read(reader)).events) == [b"1\n\n"]


async def test_a_batch_is_about_64_kib(world: World) -> None:
    log = await world.log(window=10**9)
    events = [b"%05d" % n * 1000 for n in range(18)]
    for event in events:
        log.append(event)
    reader = log.reader(0)
    seen: list[bytes] = []
    while len(seen) < len(events):
        batch = await read(reader)
        assert 0 < sum(map(len, batch.events)) < 64 * 1024 + 5000
        seen += batch.events
    assert seen == events


async def test_an_event_larger_than_a_batch_comes_whole(world: World) -> None:
    log = await world.log(window=10**9)
    log.append(b"1\n\n")
    log.append(b"x" * 90_000)
    reader = log.reader(0)
    seen: list[bytes] = []
    while len(seen) < 2:
        seen += (await read(reader)).events
    assert seen == [b"1\n\n", b"x" * 90_000]


async def test_a_reader_ahead_of_the_log_waits_for_what_is_behind_its_cursor(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    pending = await waiting(log.reader(2).read())
    log.append(b"2\n\n")
    await settle()
    assert not pending.done()
    log.append(b"3\n\n")
    batch = await asyncio.wait_for(pending, 5)
    assert batch is not None
    assert (list(batch.events), batch.last) == ([b"3\n\n"], 3)


# -- reach


async def test_reach_is_true_at_once_for_what_exists(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    assert await asyncio.wait_for(log.reach(0, 1), 5) is True
    assert await asyncio.wait_for(log.reach(1, 1), 5) is True


async def test_reach_waits_for_the_event(world: World) -> None:
    log = await world.log()
    pending = await waiting(log.reach(2, 1))
    log.append(b"1\n\n")
    await settle()
    assert not pending.done()
    log.append(b"2\n\n")
    assert await asyncio.wait_for(pending, 5) is True


async def test_reach_gives_up_after_its_time(world: World) -> None:
    log = await world.log()
    pending = await waiting(log.reach(1, 1))
    await world.clock.advance(0.9)
    assert not pending.done()
    await world.clock.advance(0.2)
    assert await asyncio.wait_for(pending, 5) is False


async def test_reach_gives_up_at_the_outcome(world: World) -> None:
    log = await world.log()
    pending = await waiting(log.reach(1, 1))
    log.close(Outcome.DONE)
    assert await asyncio.wait_for(pending, 5) is False
    assert world.clock.timers <= 1  # the store's own, for the finished log


# -- forget


async def test_a_forgotten_log_leaves_nothing(world: World) -> None:
    log = await world.log()
    log.append(b"1\n\n")
    claim = await world.store.claim("key", b"f", log.stream)
    assert claim.won
    reader = log.reader(1)
    pending = await waiting(reader.read())
    await world.store.forget(log.stream)
    assert await world.store.open(log.stream) is None
    assert await world.store.stop(log.stream) is False
    batch = await asyncio.wait_for(pending, 5)
    assert batch is None or batch.outcome is not None
    assert batch is None or batch.outcome is not Outcome.DONE, "nobody may take it for complete"
    assert log.append(b"2\n\n") is False
    reader.close()
    await until(lambda: world.clock.timers == 0)  # a round may be under way, whose calls have time-outs
    assert (await world.store.claim("key", b"g", world.stream())).won


async def test_forgetting_what_is_unknown_is_harmless(world: World) -> None:
    await world.store.forget(world.stream())


def overfull(log):  # type: ignore[no-untyped-def]
    """``log`` with a reader that has read nothing of more than its window."""
    while log.append(b"x" * 500):
        pass
    return log
